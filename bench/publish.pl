#!/usr/bin/perl
#
# publish.pl RESULTS SOURCE: put the results of a run into the documentation.
#
# The tables go between the markers of docs/performance.md, one sentence and the
# picture between those of README.md; raw data and picture into docs/performance/.
# Nobody types a figure by hand.

use strict;
use warnings;

use File::Copy qw(copy);
use FindBin;
use lib "$FindBin::Bin/lib";

use Bench::Publish;
use Bench::Stats;

my ($results, $source) = @ARGV;

# Median of the rounds' ratios to no trigger, of the first number of clients.
sub ratio_of
{
	my ($csv, $lane) = @_;
	my ($case, %tps);

	foreach my $line (grep { /,/ } split /\n/, $csv)
	{
		my ($section, $this, $id, $round, $figure, $value) = split /,/, $line;

		next unless $section eq 'writes' && $figure eq 'tps';
		$case //= $this;
		$tps{$id}[$round] = $value if $this eq $case;
	}
	my @ratios = map { $tps{$lane}[$_] / $tps{none}[$_] } 0 .. $#{ $tps{$lane} };
	return (sprintf('%.2f', median(@ratios)), $case =~ s/\D+//r);
}

my $csv = slurp("$results/bench.csv");
my ($eventual, $clients) = ratio_of($csv, 'eventual');
my ($ryw) = ratio_of($csv, 'ryw');

mkdir "$source/docs/performance";
foreach my $file (qw(bench.csv writes.svg))
{
	copy("$results/$file", "$source/docs/performance/$file") or die "$file: $!\n";
}
# The targets were printed last and are to be read first.
my ($machine, @tables) = split /(?=\n### )/, slurp("$results/tables.md");
my @sorted = ((grep { /^\n### Targets\n/ } @tables), grep { !/^\n### Targets\n/ } @tables);
replace_between_markers("$source/docs/performance.md", 'figures', join '', $machine, @sorted);
my $picture = 'docs/performance/writes.svg';
replace_between_markers("$source/README.md", 'writes', <<"TEXT");
![What is left of the throughput of a write, by way of deleting the key]($picture)

A single-row UPDATE of $clients clients keeps $eventual of its throughput with `eventual`, $ryw with
`read_your_writes`: `make bench` measures it beside other ways, on your machine. Method, all figures
and raw data: [docs/performance.md](docs/performance.md).
TEXT
