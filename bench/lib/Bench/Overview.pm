# Overview.pm: what a write costs, at a glance: the table on the first page of the documentation,
# and the picture and the words of the README.
#
# It needs no server, only the figures of a run.  What the run did not measure is said to be so.

package Bench::Overview;

use strict;
use warnings;

use Bench::Lanes;
use Bench::Stats;
use Bench::Svg;

my $nothing = 'not measured';

# Where servers stand: section and case, and the words for it.
my @places = (
	[ 'writes', 'update', 'the fastest disk', 'beside it' ],
	[ 'places', 'distance', 'the fastest disk', '0.25 ms away' ],
	[ 'places', 'flush', 'a flush takes 1 ms more', 'beside it' ],
	[ 'places', 'both', 'a flush takes 1 ms more', '0.25 ms away' ],
);

my @columns = (
	[ 'eventual' => '`eventual`' ],
	[ 'ryw' => '`read_your_writes`' ],
	[ 'fenced' => '`read_your_writes`, fenced' ],
	[ 'strict' => '`strict`' ],
	[ 'strict_once' => '`strict`, `wait_timeout = 0`' ],
	[ 'app_unlink' => 'the application deletes' ],
);

my %lane = map { $_->{id} => $_ } Bench::Lanes::all();

# For the picture: the machine at its end, and one as most are.
my @panels = (
	[ 'writes', 'update', 'the fastest disk, processors saturated' ],
	[ 'places', 'both', 'flush 1 ms more, Redis 0.25 ms away' ],
);

# Ratios of throughput to the same without a delete, in each round.
sub _ratios
{
	my ($report, $section, $case, $id) = @_;

	return $report->ratios($section, $case, $id, $lane{$id}{base} // 'none', 'tps');
}

sub _cost
{
	my ($report, $section, $case, $id) = @_;
	my @ratios = _ratios($report, $section, $case, $id);
	my @added = $report->differences($section, $case, $id, $lane{$id}{base} // 'none', 'p50');

	return $nothing unless @ratios && @added;
	return sprintf '%.2f, %+.2f ms', median(@ratios), median(@added) / 1000;
}

sub _without
{
	my ($report, $section, $case) = @_;
	my @figures = ($section, $case, 'none');

	return $nothing
	  unless $report->values_of(@figures, 'tps') && $report->values_of(@figures, 'p50');
	return sprintf '%.0f a second, %.2f ms', $report->median_of(@figures, 'tps'),
		$report->median_of(@figures, 'p50') / 1000;
}

# The table of the first page, as Markdown.
sub costs
{
	my ($report) = @_;
	my @rows = ([ 'clients', 'disk', 'Redis', 'no trigger', map { $_->[1] } @columns ],
		[ '--:', ':--', ':--', ('--:') x (1 + @columns) ]);

	foreach my $clients (8, 32)
	{
		foreach my $place (@places)
		{
			my ($section, $case, $disk, $redis) = @$place;
			my @measured = ($report, $section, "$case-$clients");

			push @rows, [ $clients, $disk, $redis, _without(@measured),
				map { _cost(@measured, $_->[0]) } @columns ];
		}
	}
	return join '', map { '| ' . join(' | ', @$_) . " |\n" } @rows;
}

# Of the picture and the words: 8 where they were measured.
sub _clients
{
	my ($report) = @_;
	my @clients = map { /^update-(\d+)$/ ? $1 : () } $report->cases('writes');

	return 8 if !@clients || grep { $_ == 8 } @clients;
	return (sort { $a <=> $b } @clients)[0];
}

sub _bar
{
	my (@ratios) = @_;

	return undef unless @ratios;
	return { value => median(@ratios), low => quantile(0.25, @ratios),
		high => quantile(0.75, @ratios) };
}

# A bar for each way in each of two places.
sub picture
{
	my ($report, $file) = @_;
	my $clients = _clients($report);
	my @rows;

	foreach my $lane (grep { $_->{id} !~ /^(none|app)$/ } Bench::Lanes::all())
	{
		my @bars = map {
			_bar(_ratios($report, $_->[0], "$_->[1]-$clients", $lane->{id}))
		} @panels;

		next unless grep { defined } @bars;
		push @rows, { label => $lane->{label}, ours => $lane->{label} =~ /pg_uncache/ ? 1 : 0,
			bars => \@bars };
	}
	Bench::Svg::panels($file, 'What is left of the throughput of a write',
		"single-row UPDATE, $clients clients; 1.00 is the same without any delete; median and "
			. 'quartiles of the rounds', '%.2f', [ map { $_->[2] } @panels ], @rows);
	return;
}

sub _kept
{
	my ($report, @measured) = @_;
	my @ratios = _ratios($report, @measured);

	return @ratios ? sprintf('%.2f', median(@ratios)) : $nothing;
}

# The picture, and two sentences that tell it.
sub words
{
	my ($report, $picture) = @_;
	my $clients = _clients($report);
	my %kept;

	foreach my $panel (@panels)
	{
		$kept{ $panel->[0] }{$_} = _kept($report, $panel->[0], "$panel->[1]-$clients", $_)
			foreach qw(eventual ryw app_unlink);
	}
	my ($here, $there) = @kept{qw(writes places)};
	my $those = (grep { $_ ne $nothing } values %$there)
	  ? "these are $there->{eventual}, $there->{ryw} and $there->{app_unlink}"
	  : 'it was not measured';

	return <<"TEXT";
![What is left of the throughput of a write, by way of deleting the key]($picture)

On a machine whose processors are saturated, with the fastest disk, a single-row UPDATE of $clients
clients keeps $here->{eventual} of its throughput with `eventual` and $here->{ryw} with
`read_your_writes`, where an application that deletes by itself keeps $here->{app_unlink}.
Where a flush of the WAL takes 1 ms more and Redis is 0.25 ms away, as on many servers, $those.

[docs/performance.md](docs/performance.md) says what it costs you, by your disk and your distance to
Redis; `make bench` measures it beside other ways, on your machine.
TEXT
}

1;
