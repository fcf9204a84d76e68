#!/usr/bin/perl
#
# bounds.pl MINUTES EVERY RATE CSV: a mixed load, a Redis that goes and comes, and
# samples of all that could grow.
#
# The load: pgbench, one process for each kind of client, at a rate and not at full
# speed; and a reader that fills the cache through the fence.  A pgbench whose clients
# have failed (strict, while Redis is away) is started again.
#
# A sample is one line of the CSV.  Memory of a process is RssAnon: what it has for
# itself, without the shared buffers that it has touched.  Of several sessions of one
# kind the largest counts.

use strict;
use warnings;

use FindBin;
use IO::Handle;
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw(sleep time);

use Bench::Session;

my ($minutes, $every, $rate, $csv) = @ARGV;
my $length = 60 * $minutes;
my ($redis, @loads);
# What is going on with Redis (up, away, hung), and until which second.
my ($state, $until) = ('up', 0);

# At which part of the run something happens to Redis, what, and for how long, as
# a part of the run again.  The outages last at most five minutes.
my @events = (
	[ 0.10, 'restarted', 0 ],
	[ 0.20, 'away', 0.08 ],
	[ 0.40, 'hung', 0.01 ],
	[ 0.50, 'restarted', 0 ],
	[ 0.62, 'away', 0.05 ],
	[ 0.80, 'restarted', 0 ],
);

# ----- the load -----

my $one = '\set id random(1, 20000)
UPDATE item SET n = n + 1 WHERE id = :id;
';
my $aborted = '\set id random(1, 20000)
BEGIN;
UPDATE item SET n = n + 1 WHERE id = :id;
SAVEPOINT s;
UPDATE item SET n = n + 1 WHERE id = :id + 1;
ROLLBACK TO s;
UPDATE item SET n = n + 1 WHERE id = :id + 2;
ROLLBACK;
';
my $many = '\set id random(1, 19000)
UPDATE item SET n = n + 1 WHERE id BETWEEN :id AND :id + 999;
';
my $pattern = q{\set shop random(0, 99)
SELECT uncache.invalidate_pattern('list:' || :shop || ':*');
};

# Name of the sessions, clients, share of the rate or transactions a second, settings, scripts.
my @kinds = (
	[ eventual => 4, 0.5 * $rate, 'eventual', "$one\@19", "$aborted\@1" ],
	[ read_your_writes => 4, 0.35 * $rate, 'read_your_writes', "$one\@19", "$aborted\@1" ],
	[ strict => 2, 0.15 * $rate, 'strict', $one ],
	[ many => 1, 0.2, 'read_your_writes', $many ],
	[ patterns => 1, 0.1, 'eventual', $pattern ],
);

sub pgbench_arguments
{
	my ($name, $clients, $per_second, $consistency, @scripts) = @_;
	my @files;

	foreach my $i (0 .. $#scripts)
	{
		my ($text, $weight) = $scripts[$i] =~ /^(.*?)(@\d+)?$/s;
		my $path = "$ENV{PRIVATE}/tmp/$name.$i.sql";

		open my $out, '>', $path or die "$path: $!";
		print $out $text;
		close $out;
		push @files, '-f', $path . ($weight // '');
	}
	return ('pgbench', '-n', '-c', $clients, '-R', $per_second, '-T', $length + 60, @files,
		'postgres');
}

sub start_load
{
	my ($kind) = @_;
	my @command = pgbench_arguments(@$kind);
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	$ENV{PGAPPNAME} = $kind->[0];
	$ENV{PGOPTIONS} = "-c uncache.consistency=$kind->[3]";
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', "$ENV{PRIVATE}/tmp/$kind->[0].log";
	exec @command;
	die "pgbench: $!";
}

sub restart_ended_loads
{
	foreach my $load (@loads)
	{
		next if $load->{pid} && waitpid($load->{pid}, POSIX::WNOHANG()) == 0;
		$load->{starts}++;
		$load->{pid} = $load->{code}->();
	}
	return;
}

# ----- the reader -----

# One answer of Redis: a value, an array, or undef.
sub read_reply
{
	my ($socket) = @_;
	my $line = readline $socket;

	die "Redis has closed the connection\n" unless defined $line;
	my ($kind, $rest) = $line =~ /^(.)(.*?)\r\n/s or die "Redis said $line\n";
	die "Redis said $rest\n" if $kind eq '-';
	return $rest if $kind eq '+' || $kind eq ':';
	return undef if $rest < 0;
	return [ map { read_reply($socket) } 1 .. $rest ] if $kind eq '*';
	read $socket, my $value, $rest + 2;
	return substr $value, 0, $rest;
}

sub ask_redis
{
	my ($socket, @words) = @_;

	print $socket '*' . @words . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @words;
	return read_reply($socket);
}

sub connect_redis
{
	my $socket = IO::Socket::UNIX->new(Peer => $ENV{REDIS_SOCKET}) or die "Redis: $!\n";

	$socket->autoflush(1);
	return $socket;
}

sub read_fenced
{
	my ($socket, $session) = @_;
	my $id = 1 + int rand 2000;
	my ($value, $token) = @{ ask_redis($socket, 'FCALL', 'uncache_get', 1, "item:$id") };

	return if defined $value || !defined $token;
	my ($n, $snapshot) = split /\|/,
	  $session->query("SELECT n, uncache.snapshot('$token') FROM item WHERE id = $id");
	ask_redis($socket, 'FCALL', 'uncache_set', 1, "item:$id", $snapshot, 60_000, $n)
	  if length($snapshot // '');
	ask_redis($socket, 'SET', 'list:' . $id % 100 . ":$id", $n, 'EX', 60);
	return;
}

# Some 50 reads a second; where Redis is away it connects again.
sub start_reader
{
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	$SIG{TERM} = 'DEFAULT';
	$SIG{PIPE} = 'IGNORE';
	$ENV{PGAPPNAME} = 'reader';
	my $session = Bench::Session->new('postgres');
	while (1)
	{
		eval {
			my $socket = connect_redis();
			while (1) { read_fenced($socket, $session); sleep 0.02 }
		};
		die $@ if $@ =~ /psql has ended/;
		sleep 0.5;
	}
}

# ----- Redis -----

sub start_redis
{
	$redis = fork // die "fork: $!";
	return if $redis;
	chdir $ENV{PRIVATE};
	open STDOUT, '>>', "$ENV{PRIVATE}/redis.log";
	exec 'redis-server', '--port', 0, '--unixsocket', $ENV{REDIS_SOCKET}, '--dir', $ENV{PRIVATE},
	  '--save', '', '--loglevel', 'warning';
	die "redis-server: $!";
}

sub end_redis
{
	kill 'KILL', $redis;
	waitpid $redis, 0;
	$redis = 0;
	return;
}

# What is due at this second of the run; returns what goes on with Redis.
sub disturb
{
	my ($second) = @_;

	if ($state ne 'up' && $second >= $until)
	{
		kill 'CONT', $redis if $state eq 'hung';
		start_redis() if $state eq 'away';
		$state = 'up';
	}
	return if !@events || $second < $events[0][0] * $length;
	my (undef, $what, $part) = @{ shift @events };
	my $seconds = $part * $length;

	print "second @{[int $second]}: Redis is $what\n";
	$until = $second + ($seconds > 300 ? 300 : $seconds);
	$state = $what eq 'restarted' ? 'up' : $what;
	if ($what eq 'hung') { kill 'STOP', $redis }
	else { end_redis() }
	start_redis() if $what eq 'restarted';
	return;
}

# ----- samples -----

sub anonymous_kb
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/status" or return;
	while (my $line = <$in>) { return $1 if $line =~ /^RssAnon:\s+(\d+)/ }
	return;
}

sub descriptors
{
	my ($pid) = @_;

	opendir my $dir, "/proc/$pid/fd" or return;
	return scalar grep { /^\d/ } readdir $dir;
}

sub larger { my ($a, $b) = @_; return !defined $a || (defined $b && $b > $a) ? $b : $a }

my @columns = (qw(second redis),
	(map { ("${_}_kb", "${_}_fds") } qw(eventual read_your_writes strict many patterns reader
		worker launcher postmaster redis)),
	qw(redis_used_kb outbox_rows outbox_bytes schema_bytes ring_used shared_bytes
	transactions_delivered pattern_passes fills_stored fills_refused reconnects));

# The processes of a kind: largest memory, most descriptors.
sub sample_processes
{
	my ($session, $sample) = @_;
	my @processes = map { [ split /\|/ ] } split /\n/, $session->query(
		q{SELECT pid, CASE WHEN backend_type = 'client backend' THEN application_name
			WHEN backend_type LIKE 'pg_uncache worker%' THEN 'worker'
			WHEN backend_type LIKE 'pg_uncache launcher%' THEN 'launcher' END
			FROM pg_stat_activity WHERE pid <> pg_backend_pid()});
	my ($postmaster) = `head -n 1 $ENV{PRIVATE}/data/postmaster.pid` =~ /(\d+)/;

	foreach my $process (@processes, [ $postmaster, 'postmaster' ], [ $redis, 'redis' ])
	{
		my ($pid, $kind) = @$process;

		next if !$pid || !defined $kind;
		$sample->{"${kind}_kb"} = larger($sample->{"${kind}_kb"}, anonymous_kb($pid));
		$sample->{"${kind}_fds"} = larger($sample->{"${kind}_fds"}, descriptors($pid));
	}
	return;
}

sub sample_database
{
	my ($session, $sample) = @_;
	my @names = qw(outbox_rows outbox_bytes ring_used transactions_delivered pattern_passes
	  fills_stored fills_refused reconnects);

	@$sample{@names} =
	  split /\|/, $session->query('SELECT ' . join(', ', @names) . ' FROM uncache.stat');
	$sample->{schema_bytes} = $session->query(
		"SELECT sum(pg_total_relation_size(oid)) FROM pg_class
			WHERE relnamespace = 'uncache'::regnamespace AND relkind = 'r'");
	$sample->{shared_bytes} = $session->query(
		"SELECT sum(allocated_size) FROM pg_shmem_allocations WHERE name LIKE '%uncache%'");
	return;
}

sub take_sample
{
	my ($session, $second) = @_;
	my %sample = (second => int $second, redis => $state);

	sample_processes($session, \%sample);
	sample_database($session, \%sample);
	if ($state eq 'up')
	{
		my ($used) = eval { ask_redis(connect_redis(), 'INFO', 'memory') =~ /used_memory:(\d+)/ };
		$sample{redis_used_kb} = int $used / 1024 if $used;
	}
	return \%sample;
}

# ----- the run -----

sub end_loads
{
	my @pids = grep { $_ } map { $_->{pid} } @loads;

	kill 'TERM', @pids;
	waitpid $_, 0 foreach @pids;
	return;
}

STDOUT->autoflush;
start_redis();
my $session = Bench::Session->new('postgres');
$session->await('SELECT fence FROM uncache.stat', 'on');
@loads = ((map { my $kind = $_; { name => $kind->[0], code => sub { start_load($kind) } } } @kinds),
	{ name => 'reader', code => \&start_reader });
open my $out, '>', $csv or die "$csv: $!";
$out->autoflush;
print $out join(',', @columns), "\n";
my $start = time;
for (my $next = 0; (my $second = time - $start) < $length; sleep 0.5)
{
	restart_ended_loads();
	disturb($second);
	next if $second < $next;
	my $sample = take_sample($session, $second);
	print $out join(',', map { $sample->{$_} // '' } @columns), "\n";
	$next += $every;
}
end_loads();
$session->query("SELECT uncache.wait('5 min')") eq 't' or die "not all was delivered\n";
print 'starts of the loads: ', join(', ', map { "$_->{name} $_->{starts}" } @loads), "\n";
end_redis();
