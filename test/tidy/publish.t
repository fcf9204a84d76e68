# Does publish.pl bring a run of the benches into the documentation?  It reads a small made-up
# run, then the same with a part missing: that must be said, and nothing else change.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $bench = dirname(__FILE__) . '/../../bench';
my $source = tempdir(CLEANUP => 1);
my $results = tempdir(CLEANUP => 1);

sub put
{
	my ($path, $text) = @_;

	open my $out, '>', $path or die "$path: $!";
	print $out $text;
	close $out;
	return;
}

sub get
{
	my ($path) = @_;

	open my $in, '<', $path or die "$path: $!";
	local $/;
	return scalar <$in>;
}

my %marked = ('README.md' => 'writes', 'docs/performance.md' => 'costs',
	'docs/performance/figures.md' => 'figures');

make_path("$source/docs/performance");
foreach my $page (keys %marked)
{
	put("$source/$page", "before\n<!-- $marked{$page}: written -->\nold\n"
		  . "<!-- end of $marked{$page} -->\nafter\n");
}

# Throughput and latency of each lane, in thousandths; each round a little faster.
my %lane = (none => [ 1000, 200 ], eventual => [ 900, 230 ], ryw => [ 500, 450 ],
	app => [ 800, 300 ], app_unlink => [ 600, 400 ], pgq => [ 700, 350 ]);

# The run, without the lines that match MISSING.
sub run_of
{
	my ($missing) = @_;
	my @lines;

	foreach my $case ('writes,update-8', 'places,both-8')
	{
		foreach my $id (sort keys %lane)
		{
			foreach my $round (0 .. 2)
			{
				push @lines, "$case,$id,$round,tps," . $lane{$id}[0] * (10 + $round),
					"$case,$id,$round,p50,$lane{$id}[1]";
			}
		}
	}
	return join "\n", 'section,case,lane,round,figure,value',
		(grep { !$missing || $_ !~ $missing } @lines), '';
}

my $long = join ' ', ('a word') x 30;

sub publish
{
	my ($from, $missing) = @_;

	put("$results/bench.csv", run_of($missing));
	put("$results/tables.md", "Machine: made up, $long.\n\n### Writes\n\n| a |\n| -- |\n\n"
		. "### Targets\n\n| b |\n| -- |\n");
	return qx{$^X $bench/publish.pl $from $source 2>&1} . ($? ? "exit code $?" : '');
}

# The line of a table that begins like this.
sub line_of
{
	my ($head) = @_;

	return get("$source/docs/performance.md") =~ /^(\Q$head\E.*)$/m ? $1 : undef;
}

my $here = '| 8 | the fastest disk | beside it |';
my $there = '| 8 | a flush takes 1 ms more | 0.25 ms away |';

is(publish($results), '', 'a whole run');
is(line_of($here), "$here 11000 a second, 0.20 ms | 0.90, +0.03 ms | 0.50, +0.25 ms"
	. ' | not measured' x 3 . ' | 0.75, +0.10 ms |', 'its costs, each by its own base');
is(line_of($there), line_of($here) =~ s/\Q$here\E/$there/r, 'where Redis is further away');
like(line_of('| 32 | the fastest disk | beside it |'), qr/^\|([^|]*\|){3}( not measured \|){7}$/,
	'clients that were not measured');
like(get("$source/README.md"), qr/keeps\s0\.90\s.*\s0\.50\s.*\s0\.75\..*these\sare\s0\.90,/s,
	'words of the README');
like(get("$source/docs/performance/writes.svg"), qr{>pg_uncache eventual<.*</svg>}s, 'picture');
like(get("$source/docs/performance/figures.md"), qr/Machine: made up.*### Targets.*### Writes/s,
	'targets come first');
my @lines = map { split /\n/, get("$source/$_") } 'docs/performance.md',
	'docs/performance/figures.md';
is_deeply([ grep { length > 100 && !/^\|/ } @lines ], [], 'prose is filled');
like(get("$source/$_"), qr/^before\n.*\nafter\n$/s, "$_: what stands around")
  foreach sort keys %marked;

my %first = map { $_ => get("$source/$_") } keys %marked, 'docs/performance/writes.svg';
is(publish("$source/docs/performance"), '', 'once more, from what is published');
is_deeply({ map { $_ => get("$source/$_") } keys %first }, \%first, 'changes nothing');

foreach my $missing (qr/^places/, qr/^writes/, qr/,none,/, qr/,app_unlink,/, qr/,p50,/, qr/./)
{
	is(publish($results, $missing), '', "without $missing");
	like(get("$source/docs/performance.md"), qr/not measured/, 'which is said');
}

done_testing();
