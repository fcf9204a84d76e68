# Databases.pm: what a server costs that serves a hundred databases, each with a worker.

package Bench::Databases;

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use Bench::Cpu;
use Bench::Lanes;
use Bench::Report;
use Bench::Session;

my $databases = 100;
my $idle_seconds = 10;

sub _workers
{
	my ($session) = @_;
	return split /\n/, $session->query(
		"SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_uncache worker%'");
}

# How often a process has gone to sleep so far.
sub _sleeps
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/status" or return 0;
	my ($count) = grep { /^voluntary_ctxt_switches/ } <$in>;
	close $in;
	return $count =~ /(\d+)/ ? $1 : 0;
}

sub _sum
{
	my ($of, @pids) = @_;
	my $sum = 0;

	$sum += $of->($_) // 0 foreach @pids;
	return $sum;
}

# Start the server again; a new session of it.
sub _restart
{
	my ($session) = @_;

	$session->close;
	system("pg_ctl -D $ENV{PGDATA} -m fast -w -t 600 -l $ENV{PRIVATE}/postgres.log restart "
		  . '>/dev/null') == 0
	  or die 'the server does not start';
	open my $in, '<', "$ENV{PGDATA}/postmaster.pid" or die $!;
	chomp($ENV{PG_PID} = <$in>);
	close $in;
	return Bench::Session->new('bench');
}

sub _await_all
{
	my ($session) = @_;

	$session->await("SELECT count(*) >= $databases FROM uncache.stat_databases
		WHERE state = 'connected'", 't', 300);
	return;
}

sub run
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my $is = sub { $report->add('databases', $databases, 'workers', 0, @_) };

	# After the restart its worker would send again what the outbox has, which is not idle.
	Bench::Lanes::empty_outbox($bench->{session});
	$bench->{session}->set_for_all('uncache.max_database_workers', $databases);
	$bench->{session}->set_for_all('max_worker_processes', $databases + 20);
	foreach my $i (2 .. $databases)
	{
		system("createdb many_$i && psql -qX -d many_$i -c 'CREATE EXTENSION pg_uncache'") == 0
		  or die 'createdb failed';
	}
	my $session = $bench->{session} = _restart($bench->{session});
	_await_all($session);
	my $begin = time;
	$session = $bench->{session} = _restart($session);
	_await_all($session);
	$is->('ready', time - $begin);

	my @pids = _workers($session);
	my ($cpu, $sleeps) = (_sum(\&Bench::Cpu::of_process, @pids), _sum(\&_sleeps, @pids));
	sleep $idle_seconds;
	$is->('idle', (_sum(\&Bench::Cpu::of_process, @pids) - $cpu) / $idle_seconds * 1000);
	$is->('sleeps', (_sum(\&_sleeps, @pids) - $sleeps) / $idle_seconds);
	$is->('memory', _sum(\&Bench::Cpu::own_memory, @pids) / @pids);

	my $median = sub { $report->median_of('databases', $databases, 'workers', $_[0]) };
	$report->table("$databases databases of one server\n"
		  . 'Each has the extension and a worker; no load.',
		[ '', '' ],
		[ 'from the order to restart until all are connected, s',
			sprintf '%.1f', $median->('ready') ],
		[ 'CPU of all workers in an idle second, ms', sprintf '%.1f', $median->('idle') ],
		[ 'wake-ups of all workers in an idle second', sprintf '%.0f', $median->('sleeps') ],
		[ 'memory of a worker that is its own, kB', sprintf '%.0f', $median->('memory') ]);
	return;
}

1;
