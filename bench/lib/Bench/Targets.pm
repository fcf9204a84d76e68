# Targets.pm: what the project wants of the figures, and what they are.

package Bench::Targets;

use strict;
use warnings;

use Bench::Report;
use Bench::Stats;
use Bench::Writes;

sub _verdict { my ($good) = @_; return $good ? 'yes' : '**no**' }

sub _writes
{
	my ($report, $case) = @_;
	my @rows;

	foreach my $goal ([ 'eventual', 0.95 ], [ 'ryw', 0.80 ])
	{
		my ($lane, $least) = @$goal;
		my @ratios = $report->ratios('writes', $case, $lane, 'none', 'tps') or next;

		push @rows, [ ($lane eq 'ryw' ? 'read_your_writes' : $lane) . ': TPS ratio to no trigger',
			"at least $least",
			Bench::Report::spread('%.2f', @ratios), _verdict(median(@ratios) >= $least) ];
	}
	foreach my $rival (@Bench::Writes::rivals)
	{
		my ($title, $ours, $theirs) = @$rival;
		my @ratios = $report->ratios('writes', $case, $ours, $theirs, 'tps') or next;

		push @rows, [ "read_your_writes: TPS ratio to $title", 'lower quartile above 1',
			Bench::Report::spread('%.2f', @ratios), _verdict(quantile(0.25, @ratios) > 1) ];
	}
	return @rows;
}

sub _cpu
{
	my ($report, $case) = @_;
	my %added;

	foreach my $kind (qw(backend worker redis servers))
	{
		my @lane = $report->values_of('writes', $case, 'eventual', "cpu_$kind") or return ();
		my @base = $report->values_of('writes', $case, 'none', "cpu_$kind") or return ();
		$added{$kind} = median(@lane) - median(@base);
	}
	return [ 'eventual: CPU added per transaction', 'at most 15 us',
		sprintf('%.1f us: backend %.1f, worker %.1f, Redis %.1f',
			@added{qw(servers backend worker redis)}), _verdict($added{servers} <= 15) ];
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

sub _patterns
{
	my ($report) = @_;
	my @ratios = $report->ratios('patterns', 'commit', 'beside', 'quiet', 'p99') or return;
	my $seconds = $report->median_of('patterns', 'pass', 'beside', 'seconds');

	return (
		[ 'COMMIT beside a pass for 20,000 patterns: ratio of p99', 'at most 2',
			Bench::Report::spread('%.2f', @ratios), _verdict(median(@ratios) <= 2) ],
		[ 'a pass for 20,000 patterns', 'under 60 s', sprintf('%.1f s', $seconds),
			_verdict($seconds < 60) ]);
}

# CLIENTS: of the first write bench.  ROWS: of the bulk update.
sub report
{
	my ($report, $clients, $rows) = @_;
	my $case = "update-$clients";
	my @rows = (_writes($report, $case), _cpu($report, $case), _latency($report), _drain($report),
		_bulk($report, $rows), _patterns($report), _held($report));

	$report->table("Targets\n$clients clients, single-row UPDATE, Redis on the loopback.",
		[ 'figure', 'target', 'measured', 'met' ], @rows) if @rows;
	return;
}

1;
