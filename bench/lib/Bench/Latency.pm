# Latency.pm: from a commit being visible to Redis telling a subscriber that the key
# is gone; one client, beside a load, with a network in between, and beside a consumer
# of logical decoding.

package Bench::Latency;

use strict;
use warnings;

use Bench::Lanes;
use Bench::Load;
use Bench::Network;
use Bench::Report;
use Bench::Session;
use Bench::Stats;

# Each way.
my $delay_us = 250;

my %label = (
	alone => 'one client',
	loaded => 'beside 8 writers',
	delayed => 'one client, 0.5 ms of network to Redis and back',
	decoding => 'one client, wal_level = logical',
);

# Microseconds, in three lists: commit to deleted, and the round trips of two PINGs.
sub _measure
{
	my ($lane, $times, $link) = @_;
	my @command = ('./client', 'latency', $times, $Bench::Load::ROWS, $ENV{REDIS_PORT}, $link);
	my @lists = ([], [], []);

	push @command, 'delete' if $lane->{client};
	local $ENV{PGDATABASE} = 'bench';
	local $ENV{PGOPTIONS} = $lane->{settings} ? "-c $lane->{settings}" : '';
	open my $in, '-|', @command or die "client: $!";
	while (<$in>)
	{
		my @figures = split;
		push @{ $lists[$_] }, $figures[$_] foreach 0 .. 2;
	}
	close $in or die 'client failed';
	return @lists;
}

# The same with writers of other keys beside it.
sub _measure_under_load
{
	my ($lane, $times) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		$ENV{PGOPTIONS} = "-c $lane->{settings}" if $lane->{settings};
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec 'pgbench', '-n', '-c', 8, '-j', 2, '-T', 60, '-f', "$ENV{PRIVATE}/update.sql", 'bench';
	}
	sleep 1;
	my @lists = _measure($lane, $times, $ENV{REDIS_PORT});
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return @lists;
}

# A consumer that has ended may still have hold of its slot.
sub _await_free_slots
{
	my ($session) = @_;

	$session->await('SELECT count(*) FROM pg_replication_slots WHERE active', 0);
	return;
}

sub _rounds
{
	my ($bench, $case, $link, @lanes) = @_;

	foreach my $round (0 .. $bench->{few} - 1)
	{
		foreach my $lane ($round % 2 ? reverse @lanes : @lanes)
		{
			my $beside;

			Bench::Lanes::enter($bench->{session}, $lane, 'bench.item', 'id');
			_await_free_slots($bench->{session});
			$beside = Bench::Lanes::start_beside($lane);
			my ($gone, $hot, $rested) =
			  $case eq 'loaded' ? _measure_under_load($lane, 400) : _measure($lane, 800, $link);
			Bench::Lanes::stop_beside($beside);
			my %figures = (p50 => quantile(0.5, @$gone), p99 => quantile(0.99, @$gone),
				p999 => quantile(0.999, @$gone), ping => median(@$hot),
					ping_p99 => quantile(0.99, @$hot),
				rested => median(@$rested), rested_p99 => quantile(0.99, @$rested));

			$bench->{report}->add('latency', $case, $lane->{id}, $round, $_, $figures{$_})
				foreach sort keys %figures;
		}
		print STDERR "latency $case: round ", $round + 1, " of $bench->{few}\n";
	}
	return;
}

sub _rows
{
	my ($report, $case, @lanes) = @_;
	my @rows;

	foreach my $lane (@lanes)
	{
		my %median = map { $_ => $report->median_of('latency', $case, $lane->{id}, $_) }
		  qw(p50 p99 p999 ping rested rested_p99);

		push @rows, [ "$lane->{label}, $label{$case}",
			(map { sprintf '%.0f', $median{$_} } qw(p50 p99 p999 ping rested rested_p99)),
			(map { sprintf '%.1f', $median{$_} / $median{ping} } qw(p50 p99)),
			sprintf('%.1f', $median{p50} / $median{rested}),
				sprintf('%.1f', $median{p99} / $median{rested_p99}) ];
	}
	return @rows;
}

my @head = ('microseconds, median of the rounds', 'p50', 'p99', 'p99.9', 'PING',
	'PING after a pause', 'its p99',
	'p50 / PING', 'p99 / PING', 'p50 / paused PING', 'p99 / p99 of paused PING');
my $note = 'PING: a round trip on the same socket, straight after another one; "after a pause": '
	. 'after one as long as '
  . "the transaction before, in which everybody has gone to sleep, as before a delete.";

sub _delayed
{
	my ($bench, @lanes) = @_;
	my $socket = "$ENV{PRIVATE}/delayed";

	with_network($bench->{session}, $socket, $delay_us,
		sub { _rounds($bench, 'delayed', $socket, @lanes) });
	return;
}

sub _lanes
{
	my %wanted = map { $_ => 1 } @_;
	return grep { $wanted{ $_->{id} } } Bench::Lanes::all();
}

sub run
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @lanes = _lanes(qw(eventual ryw fenced app_unlink));
	my @unfenced = _lanes(qw(eventual ryw app_unlink));
	my $link = $ENV{REDIS_PORT};

	_rounds($bench, 'alone', $link, @lanes);
	_rounds($bench, 'loaded', $link, @lanes);
	Bench::Lanes::set_fence($bench->{session}, 0);
	_delayed($bench, @unfenced);
	$report->table("Commit to deleted, as a subscriber of Redis sees it\n$note", [@head],
		_rows($report, 'alone', @lanes), _rows($report, 'loaded', @lanes),
			_rows($report, 'delayed', @unfenced));
	return;
}

# The peer that reads the WAL needs another wal_level, and so a restart: the last of
# all sections.
sub run_decoding
{
	my ($bench) = @_;
	my $session = $bench->{session};
	my $decoder = { id => 'wal2json', label => 'wal2json and a consumer',
		beside => [ $^X, 'decoder.pl' ] };
	my @lanes = (_lanes(qw(ryw app_unlink)), $decoder);

	if (!-e `pg_config --pkglibdir` =~ s/\n//r . '/wal2json.so')
	{
		$bench->{report}->text("\nwal2json: not available");
		return;
	}
	Bench::Lanes::set_fence($session, 0);
	$session->query("ALTER SYSTEM SET wal_level = logical");
	# What recent minor releases ask for; the others do not know it.
	$session->query("ALTER SYSTEM SET output_plugin_libraries = 'wal2json'")
	  if $session->query("SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'");
	$session->close;
	system('pg_ctl', '-D', $ENV{PGDATA}, '-l', "$ENV{PRIVATE}/postgres.log", '-m', 'fast', '-w',
		'-s', 'restart') == 0
	  or die 'restart failed';
	$session = $bench->{session} = Bench::Session->new('bench');
	$session->await('SELECT state FROM uncache.stat', 'connected');
	$session->query("SELECT pg_create_logical_replication_slot('bench', 'wal2json')");
	_rounds($bench, 'decoding', $ENV{REDIS_PORT}, @lanes);
	_await_free_slots($session);
	$session->query("SELECT pg_drop_replication_slot('bench')");
	$bench->{report}->table("Commit to deleted, beside change data capture\n$note", [@head],
		_rows($bench->{report}, 'decoding', @lanes));
	return;
}

1;
