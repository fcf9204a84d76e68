# Targets.pm: what the project wants of the figures, and what they are.

package Bench::Targets;

use strict;
use warnings;

use Bench::Report;
use Bench::Stats;

sub _verdict { my ($good) = @_; return $good ? 'yes' : '**no**' }

# Section, case, lane, what it is divided by, least ratio: of the lower quartile.
my @ratios_wanted = (
	[ 'places', 'flush-8', 'eventual', 'none', 0.98 ],
	[ 'places', 'flush-8', 'ryw', 'none', 0.90 ],
	[ 'places', 'both-8', 'app_ryw', 'app_unlink', 1.0 ],
	[ 'writes', 'update-8', 'eventual', 'c_noop', 0.95 ],
	[ 'writes', 'update-8', 'ryw', 'c_noop', 0.75 ],
	[ 'writes', 'update-32', 'eventual', 'c_noop', 0.92 ],
	[ 'writes', 'update-32', 'ryw', 'c_noop', 0.80 ],
	[ 'writes', 'update-32', 'app_ryw', 'app_unlink', 1.0 ],
	[ 'writes', 'update-8', 'eventual_fenced', 'eventual', 0.97 ],
	[ 'writes', 'update-8', 'fenced', 'ryw', 0.92 ],
	[ 'writes', 'update-8', 'strict', 'ryw', 0.75 ],
);

my %place = (
	'flush-8' => '8 clients, flush 1 ms more',
	'both-8' => '8 clients, flush 1 ms more, Redis 0.25 ms away',
	'update-8' => '8 clients', 'update-32' => '32 clients',
);

sub _ratios
{
	my ($report) = @_;
	my @rows;

	foreach my $goal (@ratios_wanted)
	{
		my ($section, $case, $lane, $base, $least) = @$goal;
		my @ratios = $report->ratios($section, $case, $lane, $base, 'tps') or next;

		push @rows, [ "$place{$case}: TPS of $lane / $base", "lower quartile at least $least",
			Bench::Report::spread('%.2f', @ratios), _verdict(quantile(0.25, @ratios) >= $least) ];
	}
	return @rows;
}

sub _added
{
	my ($report, $case, $lane, $most) = @_;
	my %added;

	foreach my $kind (qw(backend worker redis servers))
	{
		my @lane = $report->values_of('writes', $case, $lane, "cpu_$kind") or return ();
		my @base = $report->values_of('writes', $case, 'c_noop', "cpu_$kind") or return ();
		$added{$kind} = median(@lane) - median(@base);
	}
	return [ "$place{$case}: CPU of $lane over c_noop, a transaction", "at most $most us",
		sprintf('%.1f us: backend %.1f, worker %.1f, Redis %.1f',
			@added{qw(servers backend worker redis)}), _verdict($added{servers} <= $most) ];
}

sub _cpu
{
	my ($report) = @_;

	return (_added($report, 'update-8', 'eventual', 8), _added($report, 'update-8', 'ryw', 40));
}

sub _latency
{
	my ($report) = @_;
	my @figures = ('latency', 'alone', 'ryw');
	my %median;

	return () unless $report->values_of(@figures, 'p50');
	$median{$_} = $report->median_of(@figures, $_) foreach qw(p50 p99 ping rested rested_p99);
	return (
		[ 'commit to deleted, one client: p50', 'under 3 round trips of PING',
			sprintf('%.1f (%.1f of a PING after the same pause)', $median{p50} / $median{ping},
				$median{p50} / $median{rested}),
			_verdict($median{p50} < 3 * $median{ping}) ],
		[ 'commit to deleted, one client: p99', 'under 10 round trips of PING',
			sprintf('%.1f (%.1f of a PING after the same pause)', $median{p99} / $median{ping},
				$median{p99} / $median{rested}),
			_verdict($median{p99} < 10 * $median{ping}) ]);
}

sub _drain
{
	my ($report) = @_;
	my @rows;

	foreach my $case ([ 'small', 'one key a transaction' ], [ 'large', '1000 keys a transaction' ])
	{
		my @ratios = $report->ratios('drain', $case->[0], 'pg_uncache',
			'redis-benchmark', 'rate') or next;

		push @rows, [ "drain, $case->[1]: ratio to redis-benchmark -P 64", 'at least 0.8',
			Bench::Report::spread('%.2f', @ratios), _verdict(median(@ratios) >= 0.8) ];
	}
	return @rows;
}

sub _stream
{
	my ($report) = @_;
	my @rows;

	foreach my $case ([ 'small', 'one key a transaction' ], [ 'large', '1000 keys a transaction' ])
	{
		my @rates = $report->ratios('drain', $case->[0], 'stream', 'pg_uncache', 'rate') or next;
		my @cpu = $report->ratios('drain', $case->[0], 'stream', 'pg_uncache', 'cpu');

		push @rows,
			[ "drain with uncache.stream, $case->[1]: ratio to without", 'at least 0.7',
				Bench::Report::spread('%.2f', @rates), _verdict(median(@rates) >= 0.7) ],
			[ "the same: CPU a key of worker and Redis", 'at most 1.15',
				Bench::Report::spread('%.2f', @cpu), _verdict(median(@cpu) <= 1.15) ];
	}
	return @rows;
}

sub _bulk
{
	my ($report, $rows) = @_;
	my @more = map { $report->values_of('bulk', $rows, $_, 'seconds') ? $report->median_of('bulk',
		$rows, $_, 'seconds') : () }
	  qw(distinct c_noop);

	return () if @more < 2;
	my $us = ($more[0] - $more[1]) / $rows * 1e6;
	return [ 'bulk, one key per row: more than a no-op C trigger', 'at most 1.5 us a row',
		sprintf('%.2f us', $us), _verdict($us <= 1.5) ];
}

sub _held
{
	my ($report) = @_;
	my $worst;

	foreach my $lane (qw(eventual ryw))
	{
		my @ratio = map { median($report->ratios('snapshot', "$_-8", $lane, 'none',
			'tps')) } qw(free held);

		return () unless defined $ratio[1];
		my $change = $ratio[1] / $ratio[0] - 1;
		$worst = $change if !defined $worst || $change < $worst;
	}
	return [ 'held snapshot: TPS ratio against the run without', 'within 10 %',
		sprintf('%+.0f %%', 100 * $worst), _verdict($worst >= -0.1) ];
}

sub _compared_patterns
{
	my ($report, $patterns) = @_;
	my @ratios = $report->ratios('patterns', "commit-$patterns", 'beside', 'quiet', 'p99')
	  or return ();

	return [ "COMMIT beside a pass for $patterns patterns over all keys: ratio of p99",
		'at most 2', Bench::Report::spread('%.2f', @ratios), _verdict(median(@ratios) <= 2) ];
}

sub _patterns
{
	my ($report) = @_;
	my @ratios = $report->ratios('patterns', 'commit', 'beside', 'quiet', 'p99') or return;
	my $seconds = $report->median_of('patterns', 'pass', 'beside', 'seconds');

	return (
		[ 'COMMIT beside a pass for 20,000 patterns: ratio of p99', 'at most 2',
			Bench::Report::spread('%.2f', @ratios), _verdict(median(@ratios) <= 2) ],
		[ 'a pass for 20,000 patterns', 'under 60 s', sprintf('%.1f s', $seconds),
			_verdict($seconds < 60) ],
		map { _compared_patterns($report, $_) } 1, 1000);
}

# ROWS: of the bulk update.
sub report
{
	my ($report, $rows) = @_;
	my @rows = (_ratios($report), _cpu($report), _latency($report), _drain($report),
		_stream($report), _bulk($report, $rows), _patterns($report), _held($report));

	$report->table("Targets\nUPDATE of one row, Redis on the loopback where nothing else is said.",
		[ 'figure', 'target', 'measured', 'met' ], @rows) if @rows;
	return;
}

1;
