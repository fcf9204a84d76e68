# Writes.pm: what a write costs with each lane; and the same while a snapshot is held.

package Bench::Writes;

use strict;
use warnings;

use Bench::Lanes;
use Bench::Load;
use Bench::Report;
use Bench::Session;
use Bench::Stats;
use Bench::Svg;

my @cpu = qw(backend worker redis other);

sub _lanes { my %wanted = map { $_ => 1 } @_; return grep { !@_ || $wanted{ $_->{id} } } Bench::Lanes::all() }

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

	$report->table("$title\n(TPS ratio: median and quartiles of the rounds; CPU: microseconds a transaction more than without a trigger)",
		[ '', 'TPS ratio', 'TPS', @cpu, 'together', 'client', 'p50 ms', 'p99 ms' ],
		map { _row($report, $section, $case, $_) } @lanes);
	return;
}

# The lower quartile of these must be above 1.
sub _rivals
{
	my ($report, $case) = @_;
	my @rows = [ 'TPS of pg_uncache read_your_writes, by that of', 'ratio' ];
	my @ryw = $report->ratios('writes', $case, 'ryw', 'none', 'tps');
	my @app = $report->ratios('writes', $case, 'app_unlink', 'app', 'tps');

	push @rows, [ 'UNLINK in a C trigger', Bench::Report::spread('%.2f', $report->ratios('writes', $case, 'ryw', 'direct', 'tps')) ];
	push @rows, [ "the application's own UNLINK (ratios to their bases)",
		Bench::Report::spread('%.2f', map { $ryw[$_] / $app[$_] } grep { $app[$_] } 0 .. $#ryw) ];
	$report->table('Against the rivals', @rows);
	return;
}

sub _picture
{
	my ($report, $case, $clients, $rounds, @lanes) = @_;
	my @bars;

	foreach my $lane (@lanes)
	{
		my @ratios = $report->ratios('writes', $case, $lane->{id}, $lane->{base} // 'none', 'tps');

		next if !@ratios || $lane->{id} eq 'none' || $lane->{id} eq 'app';
		push @bars, { label => $lane->{label}, ours => $lane->{label} =~ /^pg_uncache/ ? 1 : 0,
			value => median(@ratios), low => quantile(0.25, @ratios), high => quantile(0.75, @ratios) };
	}
	Bench::Svg::write($report->file('writes.svg'), 'What is left of the throughput of a write',
		"single-row UPDATE, $clients clients; 1.00 is without any trigger; median and quartiles of $rounds rounds",
		'%.2f', @bars);
	return;
}

sub run
{
	my ($bench) = @_;
	my ($seconds, $report) = @{$bench}{qw(seconds report)};
	my @lanes = _lanes(@{ $bench->{lanes} });
	my @runnable = grep { !$_->{missing} } @lanes;

	foreach my $clients (@{ $bench->{clients} })
	{
		my $case = "update-$clients";
		my $rounds = $clients == $bench->{clients}[0] ? $bench->{rounds} : $bench->{few};

		Bench::Load::rounds($bench, 'writes', $case, $rounds, \@runnable, 'update', $clients, $seconds);
		_table($report, 'writes', $case, "UPDATE of one row, $clients clients", @lanes);
		_rivals($report, $case);
		_picture($report, $case, $clients, $rounds, @lanes) if $clients == $bench->{clients}[0];
	}
	return;
}

sub run_tpcb
{
	my ($bench) = @_;
	my %can = map { $_ => 1 } qw(none c_noop plpgsql_noop eventual ryw fenced strict);
	my @lanes = grep { $can{ $_->{id} } } _lanes(@{ $bench->{lanes} });
	my @runnable = grep { !$_->{missing} } @lanes;

	system('pgbench -q -i -s 20 bench >/dev/null 2>&1') == 0 or die 'pgbench -i failed';
	foreach my $clients (@{ $bench->{clients} })
	{
		Bench::Load::rounds($bench, 'tpcb', $clients, $bench->{few}, \@runnable, 'tpcb', $clients, $bench->{seconds});
		_table($bench->{report}, 'tpcb', $clients, "TPC-B of pgbench, $clients clients, a rule on pgbench_accounts", @lanes);
	}
	return;
}

# Rounds without and with a snapshot held, in turns.
sub run_held
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @lanes = _lanes(qw(none eventual ryw));
	my $holder = Bench::Session->new('bench');
	my @rows;

	foreach my $case (qw(free held))
	{
		$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1') if $case eq 'held';
		Bench::Load::rounds($bench, 'snapshot', $case, $bench->{rounds}, \@lanes, 'update', 8, $bench->{seconds});
	}
	$holder->query('COMMIT');
	$holder->close;
	foreach my $lane (@lanes)
	{
		my @row = ($lane->{label});

		foreach my $case (qw(free held))
		{
			push @row, sprintf('%.0f', $report->median_of('snapshot', $case, $lane->{id}, 'tps')),
			  Bench::Report::spread('%.2f', $report->ratios('snapshot', $case, $lane->{id}, 'none', 'tps')),
			  sprintf('%.1f', $report->median_of('snapshot', $case, $lane->{id}, 'cpu_worker'));
		}
		push @rows, \@row;
	}
	$report->table('A REPEATABLE READ transaction held open throughout (the table of the load itself suffers, with or without a trigger)',
		[ '', 'free: TPS', 'ratio', 'worker us', 'held: TPS', 'ratio', 'worker us' ], @rows);
	return;
}

1;
