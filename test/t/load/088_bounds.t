# Under full load the outbox stays small and delivery goes on, whoever holds a
# snapshot, an idle transaction, or a commit; and in an outage the worker's memory
# stays as it is.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, "uncache.redeliver_window = '1s'", 'max_connections = 50',
	'synchronous_commit = off', 'log_statement = none', 'wal_level = replica',
		'max_wal_senders = 2',
	'autovacuum = off', "uncache.wait_timeout = '2s'");

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 1000) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'the worker is up to date');

# UNCACHE_BOUND_SECONDS=300 has each run last that long, and shows whether it gets
# slower with time.  A snapshot that is held bloats the table itself, which is not of
# interest here: then keys are named by hand.
my $length = $ENV{UNCACHE_BOUND_SECONDS} || 6;
my $script = $node->basedir . '/load.sql';
append_to_file($script, "\\set id random(1, 1000)\n"
	. ($length > 6 ? "SELECT uncache.invalidate_keys('item:' || :id);\n"
		: "UPDATE item SET n = n + 1 WHERE id = :id;\n"));

sub start_load
{
	my ($seconds) = @_;

	return start_command($node, 'pgbench', '-n', '-c', 8, '-j', 2, '-T', $seconds, '-P',
		int($seconds / 5) || 1,
		'-f', $script, $node->connstr('postgres'));
}

my $looker = $node->background_psql('postgres', timeout => 600 + 20 * $length);

# Sizes of the tables that take turns, in kB.
sub sizes
{
	return split /\|/, $looker->query_safe(q{
		SELECT pg_relation_size('uncache.outbox_0') / 1024,
			pg_relation_size('uncache.outbox_1') / 1024,
			pg_relation_size('uncache.outbox_2') / 1024,
				pg_relation_size('uncache.outbox_3') / 1024});
}

# Look at the outbox while the load runs: the largest size in each fifth of the time,
# and how often a table was emptied.
sub watch
{
	my ($load) = @_;
	my @most = (0) x 5;
	my $emptied = 0;
	my $begin = time;
	my @before = sizes();

	while ($load->runs)
	{
		my @now = sizes();
		my $fifth = int((time - $begin) * 5 / $length);
		my $sum = 0;

		$fifth = 4 if $fifth > 4;
		$sum += $_ foreach @now;
		$most[$fifth] = $sum if $sum > $most[$fifth];
		foreach (0 .. 3) { $emptied++ if $now[$_] < $before[$_] }
		@before = @now;
		select undef, undef, undef, 0.1;
	}
	return ($emptied, @most);
}

sub run_load
{
	my ($what, $seconds) = @_;

	my ($most, $emptied, $failed, $tps) = (0, 0, 0);
	my $deadline = time + 90;

	$node->safe_psql('postgres', 'SELECT uncache.stat_reset()');
	# A table is emptied some seconds after it was retired: on a busy machine later.
	while ($emptied < 2 && time < $deadline)
	{
		my $load = start_load($seconds);
		my ($times, @sizes) = watch($load);

		$failed++ if $load->finish != 0;
		($tps) = $load->out =~ /tps = (\d+)/;
		if ($length > 6)
		{
			diag "$what, one fifth of the time after the other: commits a second "
			  . join(' ', $load->err =~ /, (\d+)\.\d+ tps/g) . ', ms each '
			  . join(' ', $load->err =~ /tps, lat ([\d.]+) ms/g) . ", outbox at most kB @sizes";
		}
		foreach (@sizes) { $most = $_ if $_ > $most }
		$emptied += $times;
	}
	is($failed, 0, "$what: the load has run");
	my $latency = $node->safe_psql('postgres',
		q{SELECT latency_p50_ms || ' / ' || latency_p99_ms || ' / ' || latency_max_ms
			FROM uncache.stat});
	my $timeouts = $node->safe_psql('postgres', 'SELECT wait_timeouts FROM uncache.stat');
	diag "$what: $tps commits a second, outbox at most $most kB, emptied $emptied times, "
		. "latency $latency ms";
	is($timeouts, '0', 'nobody waits in vain');
	cmp_ok($emptied, '>=', 2, 'the tables are emptied while it runs');
	ok(delivered($node), 'and all is delivered');
	return $tps;
}

run_load('alone', $length);

my $held = $node->background_psql('postgres', timeout => 600 + 20 * $length);
$held->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
run_load('with a snapshot held', $length);
$held->query_safe('COMMIT');

$held->query_safe('BEGIN; SELECT count(*) FROM uncache.backlog');
run_load('with uncache.backlog in an idle transaction', $length);
$held->query_safe('COMMIT');

$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
my $stuck = start_psql($node, q{
	SET application_name = 'stuck'; SET synchronous_commit = on;
		SELECT uncache.invalidate_keys('stuck')});
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name = 'stuck' AND wait_event = 'SyncRep'}),
	'a commit is stuck');
run_load('with a commit that waits for its standby', $length);
$node->safe_psql('postgres', q{
	SET synchronous_commit = local;
	SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'stuck'});
$stuck->finish;
$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;

# --- an outage ---

sub worker_memory
{
	open my $in, '<', '/proc/' . worker_pid($node) . '/status' or die $!;
	my ($kb) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$in>;
	return $kb;
}

my $before = worker_memory();
$redis->fill('first', map { "item:$_" } 1 .. 1000);
$redis->freeze;
ok(wait_for_state($node, 'down'), 'Redis is down');
# Its table is retired and due to be emptied while Redis is down.
$node->safe_psql('postgres', q{SELECT uncache.invalidate_keys('first')});
my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog');
my $load = start_load($length);
$load->finish;
my $grown = worker_memory() - $before;
my $backlog = $node->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog') - $rows;
my $bytes = 0;
$bytes += $_ foreach sizes();
diag sprintf 'outage: %d commits, outbox %d kB (%.0f bytes a commit), worker memory %+d kB',
	$backlog, $bytes,
  $bytes * 1024 / $backlog, $grown;
cmp_ok($backlog, '>', 1000, 'an outage: the outbox keeps the commits');
cmp_ok($grown, '<', 1000, 'the memory of the worker stays as it is');
cmp_ok($bytes * 1024 / $backlog, '<', 120, 'the disk grows by the rows alone');
my $started = time;
$redis->thaw;
ok(delivered($node), 'Redis is back: all is delivered');
my $drained = time - $started;
is($node->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog'), '0',
	'and nothing is in the backlog');
diag sprintf 'drained in %.1f s', $drained;
is($redis->cli('dbsize'), '0', 'every key, since every row was changed');
cmp_ok(worker_memory() - $before, '<', 30000, 'in memory that is bounded');
ok(poll_until(sub { my $sum = 0; $sum += $_ foreach sizes(); $sum < 100 }),
	'and the outbox shrinks again');

$looker->quit;
$held->quit;
$node->stop;
done_testing();
