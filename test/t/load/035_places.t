# The worker knows outbox rows by their place.  Places that change (VACUUM FULL), or
# come to be others' (tables emptied while there is no worker), lose no key; nor does
# a prepared transaction that nobody ends, and a parallel worker can't enqueue.

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
my $node = new_node('main', $redis, 'max_prepared_transactions = 5', "uncache.wait_timeout = '10s'",
	'autovacuum = off');
my $parallel = $node->pg_version >= 16 ? 'debug_parallel_query' : 'force_parallel_mode';

sub sql { return $node->safe_psql('postgres', @_) }

# --- VACUUM FULL ---

ok(delivered($node), 'the worker is up to date');
foreach my $i (1 .. 3)
{
	my $offset = -s $node->logfile;
	my $worker = worker_pid($node);

	# A row that is written and rolled back leaves a hole.
	isnt($node->psql('postgres',
		q{SET uncache.consistency = strict; SELECT uncache.invalidate_keys('hole')}), 0,
		'a commit fails after its row is written');
	sql(qq{SELECT uncache.invalidate_keys('before:$i')});
	ok(delivered($node), 'a row behind it is delivered');
	sql("VACUUM FULL uncache.$_") foreach map { "outbox_$_" } 0 .. 3;
	$redis->fill("after:$i");
	sql(qq{SELECT uncache.invalidate_keys('after:$i')});
	ok(gone($redis, "after:$i"), 'a row in the place of the one before is delivered');
	ok(delivered($node), 'and nothing is left');
	isnt(worker_pid($node), $worker, 'by a new worker');
	like(slurp_file($node->logfile, $offset),
		qr/LOG:  database "\w+": a table of the outbox has a new file/, 'the log says why');
}

# --- VACUUM ---

my @new = map { "new:$_" } 0 .. 99;
$redis->fill(@new);
$redis->freeze;
ok(wait_for_state($node, 'down'), 'Redis is away');
my ($xid) = sql(q{BEGIN; SELECT pg_current_xact_id(); SELECT uncache.invalidate_keys('discarded');
	COMMIT}) =~ /^(\d+)/;
sub places_of
{
	return sql(join ' UNION ALL ', map { "SELECT $_ || ctid::text FROM uncache.outbox_$_
		WHERE xid = '$_[0]'" } 0 .. 3);
}
# Whether, after VACUUM, a new row gets this place; its key is $key then.
my $key;
sub is_reused
{
	my ($place) = @_;

	return poll_until(sub {
		sql("VACUUM uncache.$_") foreach map { "outbox_$_" } 0 .. 3;
		$key = shift @new // die 'no new row gets it';
		my ($next) = sql("SET uncache.consistency = eventual; BEGIN; SELECT pg_current_xact_id();
			SELECT uncache.invalidate_keys('$key'); COMMIT") =~ /^(\d+)/;
		return places_of($next) eq $place;
	});
}

my $place = places_of($xid);
sql(q{SELECT uncache.invalidate_keys('kept')});
is(sql("SELECT uncache.discard_backlog('$xid'::xid8)"), '1', 'a transaction is discarded');
ok(is_reused($place), 'after VACUUM a new row gets its place');
$redis->thaw;
ok(gone($redis, $key), 'which is delivered');
ok(delivered($node), 'and nothing is left');

# The same with a row that is in the ring while it is discarded.
set_conf($node, 'uncache.command_timeout', '60s');
$node->reload;
ok(delivered($node), 'Redis is to be waited for');
$redis->fill('discarded', @new);
$redis->freeze;
sql(q{SET uncache.consistency = eventual; SELECT uncache.invalidate_keys('kept')});
my $stopped = worker_pid($node);
kill 'STOP', $stopped;
($xid) = sql(q{SET uncache.consistency = eventual; BEGIN; SELECT pg_current_xact_id();
	SELECT uncache.invalidate_keys('discarded'); COMMIT}) =~ /^(\d+)/;
$place = places_of($xid);
my $discarder = start_psql($node, "SELECT uncache.discard_backlog('$xid'::xid8)");
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
	WHERE query LIKE 'SELECT uncache.discard_backlog(%' AND wait_event IS NOT NULL
	AND wait_event <> 'ClientRead' AND pid <> pg_backend_pid()}), 'a session asks to discard it');
kill 'CONT', $stopped;
is($discarder->finish, 0, '... and is answered');
is($discarder->out, "1\n", 'a transaction that is in the ring is discarded');
ok(is_reused($place), 'after VACUUM a new row gets its place');
$redis->thaw;
ok(gone($redis, $key), 'which is delivered');
ok(delivered($node), 'and nothing is left');
ok($redis->has('discarded'), 'what was discarded is not deleted');

# --- tables that are emptied while there is no worker ---

sub pid_of
{
	return sql("SELECT pid FROM pg_stat_activity WHERE backend_type = '$_[0]'");
}

my $launcher = pid_of('pg_uncache launcher');
my $worker = worker_pid($node);
kill 'STOP', $launcher, $worker;
$redis->fill('first', 'second', 'third');
sql(q{SET uncache.consistency = eventual; SELECT uncache.invalidate_keys('first')});
sql(q{BEGIN; SELECT uncache.invalidate_keys('third'); PREPARE TRANSACTION 'orphan'});
kill 'TERM', $worker;
kill 'CONT', $worker;
ok($node->poll_query_until('postgres', q{SELECT state = 'no worker' FROM uncache.stat}),
	'there is no worker');
is(sql(q{SET statement_timeout = '60s'; SELECT uncache.discard_backlog() >= 1}), 't',
	'what is not delivered is forgotten, whoever has prepared a transaction');
sql(q{SET uncache.consistency = eventual; SELECT uncache.invalidate_keys('second')});
kill 'CONT', $launcher;
ok(gone($redis, 'second'), 'what came after it is delivered');
ok($redis->has('first'), 'what was forgotten is not');
sql(q{COMMIT PREPARED 'orphan'});
ok(gone($redis, 'third'), 'what was prepared is delivered when it commits');
ok(delivered($node), 'and nothing is left');

# --- notes, while a prepared transaction is open ---

sql(q{CREATE TABLE item (id int PRIMARY KEY, v int); SELECT uncache.attach('item', 'item:{id}');
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 30000) i});
ok(delivered($node), 'a table with a rule');
sql(q{ALTER SYSTEM SET uncache.outbox_max_size = '1MB'});
sql(q{ALTER SYSTEM SET uncache.delivery = off});
$node->reload;
ok(wait_for_state($node, 'paused'), 'delivery is off');
$redis->fill('item:1', 'item:2');
my $round = 0;
sql('UPDATE item SET v = v + 1 WHERE id > 10')
  while sql('SELECT outbox_bytes < 1024 * 1024 FROM uncache.stat') eq 't' && $round++ < 40;
sql(q{BEGIN; UPDATE item SET v = -1 WHERE id = 1; PREPARE TRANSACTION 'orphan'});
sql('UPDATE item SET v = -1 WHERE id = 2');
sql('ALTER SYSTEM SET uncache.delivery = on');
$node->reload;
ok(gone($redis, 'item:2'), 'a note is carried out while a prepared transaction is open');
ok(delivered($node), 'and nothing is left');
sql(q{COMMIT PREPARED 'orphan'});
ok(gone($redis, 'item:1'), 'its own keys are deleted when it commits');

# --- parallel workers ---

sql(q{CREATE FUNCTION wrongly_marked() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE
	AS $$ BEGIN RETURN uncache.invalidate_keys('parallel'); END $$});
my ($status, $out, $err) = $node->psql('postgres', "SET $parallel = on; SELECT wrongly_marked()");
like($err, qr/ERROR:  cannot execute uncache.invalidate_keys\(\) during a parallel operation/,
	'a function that is wrongly marked parallel safe fails, instead of losing its keys');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
