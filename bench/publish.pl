#!/usr/bin/perl
#
# publish.pl RESULTS SOURCE: put the results of a run into the documentation.
#
# The picture and the words of the README, and the first table of docs/performance.md, are made
# from the CSV; the tables of the run go into docs/performance/figures.md.  Nobody types a figure
# by hand.  It can be run again: on bench/results, or on docs/performance, which has the CSV of the
# last published run but not its tables, so that those of figures.md stay.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Copy qw(copy);
use FindBin;
use lib "$FindBin::Bin/lib";

use Bench::Overview;
use Bench::Publish;
use Bench::Report;

my ($results, $source) = @ARGV;
die "usage: publish.pl RESULTS SOURCE\n" unless @ARGV == 2;
my $folder = "$source/docs/performance";
my $figures = "$folder/figures.md";

# The paragraph that says which machine it was, and when.
sub machine_of
{
	my ($text) = @_;

	return $text =~ /^(Machine: .*?)\n\n/ms ? $1 : 'Machine: not noted.';
}

my $report = Bench::Report->read("$results/bench.csv");

if (abs_path($results) ne abs_path($folder))
{
	copy("$results/bench.csv", "$folder/bench.csv") or die "bench.csv: $!\n";
}
if (-e "$results/tables.md")
{
	# The targets were printed last and are to be read first.
	my ($machine, @tables) = split /(?=\n### )/, slurp("$results/tables.md");
	my @sorted = ((grep { /^\n### Targets\n/ } @tables), grep { !/^\n### Targets\n/ } @tables);

	replace_between_markers($figures, 'figures', join '', $machine, @sorted);
}
replace_between_markers("$source/docs/performance.md", 'costs',
	Bench::Overview::costs($report) . "\n" . machine_of(slurp($figures)) . "\n");
Bench::Overview::picture($report, "$folder/writes.svg");
replace_between_markers("$source/README.md", 'writes',
	Bench::Overview::words($report, 'docs/performance/writes.svg'));
