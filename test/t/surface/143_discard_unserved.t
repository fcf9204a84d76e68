# uncache.discard_backlog() without a worker: the session empties the tables itself, all of them
# or of one transaction; unless a worker starts meanwhile, which then has to know.

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
my $node = new_node('main', $redis, 'autovacuum = off', 'uncache.consistency = eventual');

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub waiting
{
	return sql(q{SELECT string_agg(xid::text, chr(32) ORDER BY xid) FROM uncache.backlog});
}

# Commit a key, after these statements; returns the transaction.
sub commit
{
	my ($key, $end) = @_;
	$end //= 'COMMIT';

	$redis->fill($key);
	return sql("BEGIN; SELECT pg_current_xact_id(); SELECT uncache.invalidate_keys('$key'); $end")
		=~ /^(\d+)/ ? $1 : die 'no transaction';
}

my $launcher;

sub end_worker
{
	my $worker = worker_pid($node);

	$launcher = launcher_pid($node);
	kill 'STOP', $launcher;
	is_stopped($launcher) or die 'the launcher does not stop';
	kill 'TERM', $worker;
	ok($node->poll_query_until('postgres', q{SELECT state = 'no worker' FROM uncache.stat}),
		'there is no worker');
	return;
}

sub start_worker
{
	kill 'CONT', $launcher;
	return wait_for_state($node, 'connected');
}

ok(wait_for_state($node, 'connected') && delivered($node), 'the worker is up to date');
end_worker();

# --- rows in two of the tables that take turns, and in the side table ---

is(sql('SELECT uncache.discard_backlog()'), '0', 'there is nothing to be discarded');
my @xids = map { commit("first:$_") } 1 .. 2;
my ($used) = sql(q{SELECT i FROM generate_series(0, 3) i
	WHERE pg_relation_size('uncache.outbox_' || i) > 0}) =~ /^(\d)$/;
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; LOCK TABLE uncache.outbox_$used IN EXCLUSIVE MODE");
push @xids, map { commit("second:$_") } 1 .. 2;
$holder->query_safe('ROLLBACK');
$holder->quit;
is(sql(q{SELECT count(*) FROM generate_series(0, 3) i
	WHERE pg_relation_size('uncache.outbox_' || i) > 0}), '2', 'two tables have rows');
push @xids, map { commit("side:$_", "PREPARE TRANSACTION 'side:$_'") } 1 .. 2;
sql("COMMIT PREPARED 'side:$_'") foreach 1 .. 2;
commit('orphan', q{PREPARE TRANSACTION 'orphan'});
is(waiting(), "@xids", 'six transactions wait');

# --- one transaction ---

foreach my $i (0, 2, 4)
{
	is(sql("SELECT uncache.discard_backlog('$xids[$i]'::xid8)"), '1', 'one is discarded');
	is(sql("SELECT uncache.discard_backlog('$xids[$i]'::xid8)"), '0', 'and is not there any more');
}
is(sql(q{SELECT uncache.discard_backlog('3'::xid8)}), '0', 'one that has nothing is not there');
is(waiting(), "@xids[1, 3, 5]", 'the others wait');

# --- all, whatever is prepared ---

is(sql('SELECT uncache.discard_backlog()'), '3', 'all others are discarded');
is(sql('SELECT count(*) FROM uncache.backlog'), '0', 'nothing waits');
is(outbox_size($node), '0', 'and the disk is free');
my $later = commit('later');
is(waiting(), $later, 'what comes then waits');
ok(start_worker() && gone($redis, 'later') && delivered($node), 'a worker delivers it');
sql(q{COMMIT PREPARED 'orphan'});
ok(gone($redis, 'orphan'), 'and what was prepared');
is(join(' ', $redis->keys), 'first:1 first:2 second:1 second:2 side:1 side:2',
	'and nothing of what was discarded');

# --- a worker starts when the backlog is counted, and delivers from the places of rows ---

sql('SELECT uncache.discard_backlog()');
ok(outbox_is_emptied($node), 'the outbox is empty');
end_worker();
commit("before:$_") foreach 1 .. 3;
my $session = start_psql($node, q{SET uncache.fault_point = 'discard-counted:stop';
	SELECT uncache.discard_backlog()});
ok(struck_in_time($node, 'discard-counted'), 'a session has counted the backlog');
my $backend = sql(q{SELECT pid FROM pg_stat_activity
	WHERE query LIKE '%discard_backlog()%' AND pid <> pg_backend_pid()});
ok(is_stopped($backend), 'and is stopped');
ok(start_worker() && gone($redis, "before:$_"), "a worker starts, and delivers $_") foreach 1 .. 3;
ok(delivered($node), 'all of it');
kill 'CONT', $backend;
is($session->finish, 0, 'the session goes on');
is($session->out, "0\n", 'and the worker has nothing to discard');
commit("after:$_") foreach 1 .. 3;
ok(gone($redis, "after:$_"), "what comes then is delivered: $_") foreach 1 .. 3;
ok(delivered($node), 'all of it');

# --- a worker that delivers nothing ---

sql('ALTER SYSTEM SET uncache.delivery = off');
$node->reload;
ok(wait_for_state($node, 'paused'), 'delivery is off');
commit('paused');
is(sql('SELECT uncache.discard_backlog()'), '1', 'its worker discards all the same');
is(sql('SELECT count(*) FROM uncache.backlog'), '0', 'nothing waits');
sql('ALTER SYSTEM SET uncache.delivery = on');
$node->reload;
ok(wait_for_state($node, 'connected'), 'delivery is on');
$later = commit('on again');
ok(gone($redis, 'on again') && delivered($node), 'what comes then is delivered');
ok($redis->has('paused'), 'what was discarded is not');

$node->stop;
done_testing();
