# Commits that a crash has lost, the second delete, and an outbox with a limit.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Faults;
use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new_durable;
$redis->start;
my $node = new_fenced_node('main', $redis, 'fsync = on', 'wal_writer_delay = 10s',
	'checkpoint_timeout = 1h',
	'uncache.redeliver_window = 60s');

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub crash
{
	$node->stop('immediate');
	$node->start;
	ok(wait_for_state($node, 'connected'), 'a crash, and the worker is back');
	return;
}

# The number of the next transaction, without using it.
sub next_xid { return sql('SELECT pg_snapshot_xmax(pg_current_snapshot())') }

sub incarnation { return sql('SELECT id FROM uncache.incarnation') }

# --- a lost asynchronous commit, whose number is used again ---

sub lose_a_commit
{
	my ($id, $snapshot_of_it) = @_;
	my $tries = 0;

	# Whether it is lost depends on the WAL writer, so try until it is.
	while ($tries++ < 5)
	{
		sql('CHECKPOINT');
		my $before = next_xid();
		my ($old) = sql("SELECT v FROM item WHERE id = $id");
		my $incarnation = incarnation();
		my $token = miss($redis, "item:$id");
		$redis->kill9;
		wait_for_state($node, 'down') or die;
		sql("SET synchronous_commit = off; SET uncache.wait_timeout = 0;
			UPDATE item SET v = 1000 + $tries WHERE id = $id");
		my $session = $node->background_psql('postgres');
		my ($value, $snapshot) = look($session, $token, $id);
		my $after = next_xid();
		$node->stop('immediate');
		eval { $session->quit };
		$redis->start;
		$node->start;
		fence_is_on($node) or die 'no fence';
		next if sql("SELECT v FROM item WHERE id = $id") ne $old;
		return ($old, $value, $snapshot, $before, $incarnation);
	}
	die 'no commit gets lost';
}

# Reading a page of a catalog can tidy it up, which writes all of it, so that the WAL writer comes.
sql('VACUUM');
my ($old, $value, $snapshot, $xid, $incarnation) = lose_a_commit(1);
cmp_ok($value, '>', 1000, 'a reader has read an asynchronous commit');
is(sql('SELECT v FROM item WHERE id = 1'), $old, 'that a crash has lost');
isnt(incarnation(), $incarnation, 'the incarnation is another one');
like($snapshot, qr/:\Q$incarnation\E:/, 'than that of the reader');
is(fill($redis, 'item:1', $snapshot, $value), '0', 'what it read is refused');

# A snapshot of before that does not see a number which is used anew, and one
# that would.
my $token = miss($redis, 'item:1');
my ($epoch, $counter) = split /:/, $token;
is(fill($redis, 'item:1', "$token:$incarnation:1:999999:999999:", 'forged'), '0',
	'an old incarnation is refused with a new token too');
is(read_item($redis, $node, 1), '1', 'a new reader stores');
is(cached($redis, 'item:1'), $old, 'what is there now');
sql('UPDATE item SET v = v + 1 WHERE id = 1');
is(cached($redis, 'item:1'), '', 'and writes are delivered');

# --- after_lost_commits ---

sql(q{
	CREATE UNLOGGED TABLE passing (id int, v int);
	SELECT uncache.attach('passing', 'passing:{id}');
	INSERT INTO passing VALUES (1, 1)});
put($redis, 2, 1);
$redis->fill('passing:1', 'other:1');
crash();
ok(gone($redis, 'passing:1'), 'an unlogged table is emptied by the crash: its keys are deleted');
ok(delivered($node), 'nothing is left to deliver');
ok($redis->has('item:2'), 'redeliver: keys of other tables stay');
ok($redis->has('other:1'), 'and what no rule covers');

set_conf($node, 'uncache.after_lost_commits', 'flush');
$node->reload;
$node->restart;
ok(wait_for_state($node, 'connected'), 'after a clean shutdown');
ok(delivered($node), 'nothing is left to deliver');
ok($redis->has('item:2'), 'nothing is deleted, but what is sent again anyway');
$redis->fill('passing:1', 'worn:1');
# A rule that does not work, before another one of the same table.
sql(q{
	CREATE TABLE worn (id int);
	SELECT uncache.attach('worn', 'worn:{id}');
	ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
	CREATE TRIGGER a_broken AFTER INSERT ON worn FOR EACH ROW
		EXECUTE FUNCTION uncache.invalidate('torn:{nosuch}');
	ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS});
crash();
ok(gone($redis, 'item:2'), 'flush: after a crash all keys of the rules are deleted');
ok(gone($redis, 'passing:1'), 'of all of them');
ok(gone($redis, 'worn:1'), 'of those that work, also where another of the table does not');
like(slurp_file($node->logfile), qr/column "nosuch" of table "worn" does not exist/,
	'the log says which does not');
ok($redis->has('other:1'), 'but no other');

# --- the second delete ---

# Until then all is sent again, which would be taken for one.
fence_is_on($node) or die 'no fence';
set_conf($node, 'uncache.second_delete_delay', '1s');
$node->reload;
$node->poll_query_until('postgres',
	q{SELECT setting = '1000' FROM pg_settings WHERE name = 'uncache.second_delete_delay'});
put($redis, 3, 'old');
my $began = time;
sql('UPDATE item SET v = 2 WHERE id = 3');
ok(!$redis->has('item:3'), 'a delete');
put($redis, 3, 'old, by a late reader');
ok($redis->has('item:3'), 'a plain reader puts the old value back');
ok(gone($redis, 'item:3'), 'a second delete takes it away');
cmp_ok(time - $began, '>=', 0.95, 'not before the delay is over');
put($redis, 3, 'new');
sleep 1.5;
ok($redis->has('item:3'), 'there is no third');

# Of keys too long for a row of the outbox, too: of one transaction, and of several at a time.
my @long = map { "long:$_:" . 'x' x 20000 } 1 .. 4;
$redis->fill(@long);
sql('SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @$_) . ')')
	foreach [ @long[ 0, 1 ] ], [ $long[2] ], [ $long[3] ];
is(join(' ', $redis->keys('long:*')), '', 'long keys are deleted');
$redis->fill(@long);
ok(poll_until(sub { !$redis->keys('long:*') }), 'and a second time');
ok(delivered($node), 'and nothing of them is left under way');
set_conf($node, 'uncache.second_delete_delay', '0');

# --- an outbox with a limit ---

set_conf($node, 'uncache.outbox_max_size', '2MB');
$node->reload;
$node->poll_query_until('postgres',
	q{SELECT setting = '2' FROM pg_settings WHERE name = 'uncache.outbox_max_size'});
sql(q{
	CREATE TABLE big (id int PRIMARY KEY, v int);
	SELECT uncache.attach('big', 'big:{id}');
	INSERT INTO big SELECT i, 0 FROM generate_series(1, 20000) i;
	CREATE TABLE changed (id text PRIMARY KEY, v int);
	INSERT INTO changed VALUES ('one', 0);
	CREATE TRIGGER rule AFTER UPDATE ON changed FOR EACH ROW
		EXECUTE FUNCTION uncache.invalidate('was:{id}')});
ok(delivered($node), 'all is delivered');
$redis->fill_range('big:', 1, 20000);
$redis->fill('literal:1', 'literal:2', 'other:1', 'was:one', 'is:one');
$redis->kill9;
ok(wait_for_state($node, 'down'), 'Redis is away');

sub outbox_bytes { return sql('SELECT outbox_bytes FROM uncache.stat') }

my $offset = -s $node->logfile;
my $rounds = 0;
while (outbox_bytes() < 2 * 1024 * 1024 && $rounds++ < 40)
{
	sql('UPDATE big SET v = v + 1 WHERE id <= 15000');
	sql(q{SELECT uncache.invalidate_keys('literal:1')});
}
cmp_ok(outbox_bytes(), '>=', 2 * 1024 * 1024, 'the outbox has reached its limit');
my $full = outbox_bytes();
sql('UPDATE big SET v = v + 1') foreach 1 .. 5;
sql(q{SELECT uncache.invalidate_keys('literal:2')});
cmp_ok(outbox_bytes() - $full, '<', 64 * 1024, 'and does not grow by what rules produce');
$node->psql('postgres', 'BEGIN; UPDATE big SET v = v + 1; ROLLBACK');
ok(poll_until(sub { slurp_file($node->logfile,
	$offset) =~ /reached 100 percent of uncache.outbox_max_size/ }, 5), 'the log says so');
sql(q{
	BEGIN;
	UPDATE changed SET v = 1;
	CREATE OR REPLACE TRIGGER rule AFTER UPDATE ON changed FOR EACH ROW
		EXECUTE FUNCTION uncache.invalidate('is:{id}');
	UPDATE changed SET v = 2;
	COMMIT});
$redis->start;
ok(wait_for_state($node, 'connected'), 'Redis is back, with all that it had');
ok(poll_until(sub { $redis->cli('eval', q{return #redis.call('keys', 'big:*')}, 0) eq '0' }, 20),
	'no key of the rule is left');
ok(gone($redis, 'literal:1') && gone($redis, 'literal:2'), 'keys of invalidate_keys() are deleted');
ok(gone($redis, 'was:one') && gone($redis, 'is:one'),
	'so are keys of a rule that the same transaction has changed');
ok($redis->has('other:1'), 'others are not');
like(slurp_file($node->logfile, $offset), qr/LOG: .*the outbox was over its limit/,
	'the log says what was done');
ok(delivered($node), 'all is delivered');
is(sql('SELECT count(*) FROM uncache.outbox_note'), '0', 'no note is left');
$redis->fill('big:1');
sql('UPDATE big SET v = 7 WHERE id = 1');
ok(!$redis->has('big:1'), 'and things go on as ever');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
