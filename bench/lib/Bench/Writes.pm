# Writes.pm: what a write costs with each lane; and the same while a snapshot is held.

package Bench::Writes;

use strict;
use warnings;

use Bench::Lanes;
use Bench::Load;
use Bench::Report;
use Bench::Scale;
use Bench::Session;
use Bench::Stats;

my @cpu = qw(backend worker redis other);

sub _lanes
{
	my %wanted = map { $_ => 1 } @_;
	return grep { !@_ || $wanted{ $_->{id} } } Bench::Lanes::all();
}

sub _row
{
	my ($report, $section, $case, $lane) = @_;
	my $base = $lane->{base} // 'none';
	my @figures = ($section, $case, $lane->{id});

	return [ $lane->{label}, 'not available' ] if $lane->{missing};
	return [ $lane->{label}, '-' ] unless $report->values_of(@figures, 'tps');
	my @added = map {
		my @base = $report->values_of($section, $case, $base, "cpu_$_");
		sprintf '%+.1f', $report->median_of(@figures, "cpu_$_") - median(@base)
	} @cpu, 'servers', 'client';
	return [ $lane->{label},
		Bench::Report::spread('%.2f', $report->ratios(@figures, $base, 'tps')),
		sprintf('%.0f', $report->median_of(@figures, 'tps')), @added,
		map { sprintf '%.2f', $report->median_of(@figures, $_) / 1000 } 'p50', 'p99' ];
}

sub _table
{
	my ($report, $section, $case, $title, @lanes) = @_;

	$report->table("$title\nTPS ratio: median and quartiles of the rounds; CPU: microseconds a "
		. "transaction more than without a trigger.",
		[ '', 'TPS ratio', 'TPS', @cpu, 'together', 'client', 'p50 ms', 'p99 ms' ],
		map { _row($report, $section, $case, $_) } @lanes);
	return;
}

# What a rival's throughput is divided by that of: title, ours, the rival.
our @rivals = (
	[ 'UNLINK in a C trigger, before the commit', 'ryw', 'direct' ],
	[ "the application's own UNLINK after COMMIT", 'app_ryw', 'app_unlink' ],
);

sub _rivals
{
	my ($report, $case, $clients) = @_;
	my @rows = [ 'TPS of pg_uncache read_your_writes, by that of', 'ratio' ];

	foreach my $rival (@rivals)
	{
		my ($title, $ours, $theirs) = @$rival;
		push @rows, [ $title, Bench::Report::spread('%.2f',
			$report->ratios('writes', $case, $ours, $theirs, 'tps')) ];
	}
	$report->table(
		"Against the rivals, $clients clients\nRatios of each round: median and quartiles.", @rows);
	return;
}

sub run
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @lanes = _lanes(@{ $bench->{lanes} });
	my @runnable = grep { !$_->{missing} } @lanes;

	foreach my $clients (@{ $bench->{clients} })
	{
		my $case = "update-$clients";
		my $is_first = $clients == $bench->{clients}[0];
		my $rounds = $is_first ? $bench->{rounds} : $bench->{few};

		Bench::Load::rounds($bench, 'writes', $case, $rounds, \@runnable, 'update', $clients,
			$is_first ? $bench->{seconds} : $bench->{brief});
		_table($report, 'writes', $case, "UPDATE of one row, $clients clients", @lanes);
		_rivals($report, $case, $clients);
	}
	return;
}

# What can run on pgbench_accounts; all of it with the first number of clients.
sub run_tpcb
{
	my ($bench) = @_;
	my %ours = map { $_ => 1 } qw(none c_noop plpgsql_noop eventual ryw fenced strict);
	my @lanes = grep { !$_->{client} && $_->{id} ne 'redis_fdw' } _lanes(@{ $bench->{lanes} });

	system('pgbench -q -i -s 20 bench >/dev/null 2>&1') == 0 or die 'pgbench -i failed';
	foreach my $clients (@{ $bench->{clients} })
	{
		my @some = $clients == $bench->{clients}[0] ? @lanes : grep { $ours{ $_->{id} } } @lanes;

		Bench::Load::rounds($bench, 'tpcb', $clients, $bench->{few},
			[ grep { !$_->{missing} } @some ],
			'tpcb', $clients, $bench->{brief});
		_table($bench->{report}, 'tpcb', $clients,
			"TPC-B of pgbench, $clients clients, a rule on pgbench_accounts", @some);
	}
	return;
}

sub _held_row
{
	my ($report, $case, $lane, $label) = @_;
	my @row = ("$lane->{label}, $label");
	my @ratio;

	foreach my $state (qw(free held))
	{
		my @figures = ('snapshot', "$state-$case", $lane->{id});
		my @ratios = $report->ratios(@figures, 'none', 'tps');

		push @ratio, median(@ratios);
		push @row, sprintf('%.0f', $report->median_of(@figures, 'tps')),
			Bench::Report::spread('%.2f', @ratios),
		  sprintf('%.1f', $report->median_of(@figures, 'cpu_worker'));
	}
	return [ @row, sprintf '%.2f', $ratio[1] / $ratio[0] ];
}

# The table of the load itself suffers from a held snapshot, with or without a
# trigger; so what counts is the ratio to no trigger in the same state.
sub run_held
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @lanes = _lanes(qw(none eventual ryw));
	my $holder = Bench::Session->new('bench');
	my (@rows, @times);

	foreach my $case (qw(free held))
	{
		$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1') if $case eq 'held';
		Bench::Load::rounds($bench, 'snapshot', "$case-8", 2 * $bench->{few}, \@lanes, 'update',
			8, $bench->{seconds});
		Bench::Scale::measure_some($bench, $case);
		$bench->{session}->query("SELECT uncache.wait('60 s')");
		push @times, "$case: " . $bench->{session}->query(
			"SELECT pg_size_pretty(sum(pg_relation_size(oid))) FROM pg_class
			WHERE relnamespace = 'uncache'::regnamespace AND relname LIKE 'outbox%'");
	}
	$holder->query('COMMIT');
	$holder->close;
	foreach my $lane (@lanes)
	{
		push @rows, map { _held_row($report, $_, $lane, "$_ client" . ($_ > 1 ? 's' : '')) } 8, 1,
			64;
	}
	$report->table("A REPEATABLE READ transaction held open throughout\n"
		  . "The table of the load itself suffers from it, with a trigger or without: what counts "
			. "is the ratio to no trigger. "
		  . "The outbox afterwards: " . join(', ', @times) . '.',
		[ '', 'free: TPS', 'ratio', 'worker us', 'held: TPS', 'ratio', 'worker us',
			'held / free' ], @rows);
	$report->table('Keys in a read_your_writes transaction, with that snapshot',
		[ 'keys', 'free: ms', 'held: ms', 'held / free' ],
		map {
			my @ms = ($report->median_of('snapshot', "free-keys-$_", 'ryw', 'ms'),
				$report->median_of('snapshot', "held-keys-$_", 'ryw', 'ms'));
			[ $_, (map { sprintf '%.2f', $_ } @ms), sprintf '%.2f', $ms[1] / $ms[0] ]
		} 10, 1000);
	return;
}

1;
