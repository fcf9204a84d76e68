# kill -9 of a backend at every step of a commit.  What had committed is
# delivered after the restart, what had not leaves its key alone.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'restart_after_crash = on', 'wal_level = replica',
	'max_wal_senders = 2');

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);

$node->safe_psql('postgres', 'CREATE TABLE oracle (key text)');
ok(wait_for_state($node, 'connected'), 'the worker is connected');

# Returns once the server has gone through its restart.
sub wait_for_restart
{
	my ($before) = @_;

	return comes_true($node,
		"SELECT pg_postmaster_start_time() IS NOT NULL AND state = 'connected'
			AND worker_pid <> $before FROM uncache.stat");
}

# One row and several, since the second takes marks instead of the ring.
sub crash_at
{
	my ($point, $committed, $keys, $setup) = @_;
	my $what = "$keys keys, killed at $point";
	my @mine = map { "$point:$keys:$_" } 1 .. $keys;
	my $worker = worker_pid($node);

	arm($node, $point);
	$redis->fill(@mine, "kept:$point");
	my ($status, $out, $err) = $node->psql('postgres', qq{
		SET uncache.fault_point = '$point:kill9';
		BEGIN;
		INSERT INTO oracle SELECT '$point:$keys:' || i FROM generate_series(1, $keys) i;
		SELECT count(uncache.invalidate_keys('$point:$keys:' || i))
			FROM generate_series(1, $keys) i;
		@{[ $setup // 'COMMIT' ]};});
	isnt($status, 0, "$what: the session is cut off");
	ok(struck($node, $point), 'at the right place');
	ok(wait_for_restart($worker), 'the server is up again');
	is($node->safe_psql('postgres', "SELECT count(*) FROM oracle WHERE key LIKE '$point:$keys:%'"),
		$committed ? $keys : 0, $committed ? 'the data is there' : 'the data is not');
	ok(delivered($node), 'nothing is left to deliver');
	is(scalar(grep { $redis->has($_) } @mine[ 0, -1 ]), $committed ? 0 : 2,
		$committed ? 'its keys are gone' : 'its keys are untouched');
	ok($redis->has("kept:$point"), 'and so is another');
	$redis->cli('flushall');
	return;
}

foreach my $keys (1, 2000)
{
	crash_at('outbox-written', 0, $keys);
	crash_at('commit-visible', 1, $keys);
	crash_at('handed-over', 1, $keys);
	crash_at('waiting', 1, $keys);
}
crash_at('prepare-written', 0, 1, "PREPARE TRANSACTION 'cut off'");

# Between the flush of the commit record and visibility: a synchronous standby
# that does not exist holds the commit there.
$redis->fill('sync:1');
$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
my $worker = worker_pid($node);
my $session = start_psql($node, q{
	SET application_name = 'held';
	BEGIN; INSERT INTO oracle VALUES ('sync:1');
		SELECT uncache.invalidate_keys('sync:1'); COMMIT;});
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name = 'held' AND wait_event = 'SyncRep'}),
	'a commit hangs between its flush and its visibility');
is($node->safe_psql('postgres', q{SELECT count(*) FROM oracle WHERE key = 'sync:1'}),
	'0', 'nobody sees it');
ok($redis->has('sync:1'), 'and its key is there');
kill 'KILL', $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE application_name = 'held'});
$session->finish;
ok(wait_for_restart($worker), 'killed there: the server is up again');
is($node->safe_psql('postgres', q{SELECT count(*) FROM oracle WHERE key = 'sync:1'}), '1',
	'it has committed');
ok(gone($redis, 'sync:1'), 'and its key is deleted');

my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
