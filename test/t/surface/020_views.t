# What uncache.stat and uncache.backlog say while things happen.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.max_database_workers = 1',
	'wal_level = replica', 'max_wal_senders = 5');

sub stat_of
{
	my ($columns, $database) = @_;

	return $node->safe_psql($database // 'postgres', "SELECT $columns FROM uncache.stat");
}

# reached(CONDITION): whether it becomes true of the row of uncache.stat.
sub reached
{
	my ($condition) = @_;

	return $node->poll_query_until('postgres', "SELECT $condition FROM uncache.stat");
}

sub commit_keys
{
	my ($keys, $before) = @_;

	return $node->psql('postgres',
		($before // '') . "SELECT uncache.invalidate_keys(VARIADIC '{$keys}')");
}

# Connected, and counting.
ok(wait_for_state($node, 'connected'), 'the worker is connected');
is(stat_of('redis'), $redis->url, 'the address is the one in use');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity a, uncache.stat s
	WHERE a.pid = s.worker_pid AND a.backend_type = 'pg_uncache worker'}), '1',
		'worker_pid is the worker');
is(stat_of('latency_p50_ms IS NULL AND latency_max_ms IS NULL'), 't',
	'no latency before the first delivery');

$redis->fill('a', 'b');
commit_keys('a,b,c');
commit_keys('d');
ok(delivered($node), 'two transactions are delivered');
is(stat_of('transactions_delivered, keys_delivered, keys_existed, waits, wait_timeouts,
	waits_skipped, retries'),
	'2|4|2|2|0|0|0', 'and counted');
is(stat_of('batches BETWEEN 2 AND 4'), 't', 'with the commands they took');
is(stat_of('latency_p50_ms > 0 AND latency_p50_ms <= latency_p99_ms
	AND latency_p99_ms <= latency_max_ms AND latency_max_ms < 5000'),
	't', 'and the time they took');
is(stat_of('outbox_rows, outbox_bytes > 0, outbox_oldest_age IS NULL'), '0|t|t',
	'delivered rows are no backlog, though still on disk');
ok(outbox_is_empty($node), 'in neither view');
commit_keys('e', 'SET uncache.wait_max_keys = 0;');
is(stat_of('waits, waits_skipped'), '2|1', 'a commit with too many keys to wait is counted');

# Which rule sent what: a partition's rows count for the rule of its table.
$redis->fill('item:1', 'item:2', 'group:7');
$node->safe_psql('postgres', q{
	CREATE TABLE item (id int, grp int) PARTITION BY RANGE (id);
	CREATE TABLE item_low PARTITION OF item FOR VALUES FROM (0) TO (100);
	CREATE TRIGGER a_item AFTER INSERT OR UPDATE OR DELETE ON item
		FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('item:{id}');
	CREATE TRIGGER b_group AFTER INSERT OR UPDATE OR DELETE ON item
		FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('group:{grp}');
	CREATE TRIGGER c_never AFTER DELETE ON item
		FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('item:{id}');
	INSERT INTO item VALUES (1, 7), (2, 7), (3, 8)});
ok(delivered($node), 'keys of rules are delivered');
is($node->safe_psql('postgres',
	q{SELECT relation, trigger, keys_sent, keys_existed, last_sent > now() - interval '1 min'
	FROM uncache.stat_rules ORDER BY trigger}),
	"item|a_item|3|2|t\nitem|b_group|2|1|t\nitem|c_never|0|0|", 'and counted by rule');

# Reset.
my $reset_at = stat_of('stats_reset');
ok(delivered($node), 'all is delivered');
$node->safe_psql('postgres', 'SELECT uncache.stat_reset()');
is(stat_of('transactions_delivered, keys_delivered, keys_existed, batches, waits,
	waits_skipped, latency_max_ms'),
	'0|0|0|0|0|0|', 'a reset starts from zero');
is(stat_of("stats_reset > '$reset_at'"), 't', 'and notes when');
is($node->safe_psql('postgres',
	'SELECT sum(keys_sent), sum(keys_existed), count(last_sent) FROM uncache.stat_rules'),
	'0|0|0', 'for the rules, too');

# A session that waits.
$redis->freeze;
my $waiting = $node->background_psql('postgres', on_error_stop => 0)
	if $node->can('background_psql');
SKIP:
{
	skip 'no background sessions', 2 unless ref $waiting && $waiting->can('query_until');
	$waiting->query_until(qr/sent/,
		"\\echo sent\nSET uncache.wait_timeout = '50s'; SELECT uncache.invalidate_keys('slow');\n");
	ok(reached('waiting_backends = 1'), 'who waits is shown');
	$redis->thaw;
	ok(reached('waiting_backends = 0'), 'until it is answered');
	$waiting->quit;
}
$redis->thaw;
ok(reached("state = 'connected'"), 'connected');

# Refused: some keys of a transaction stay, others go.
$redis->cli('acl', 'setuser', 'default', 'resetkeys', '~ok:*');
$redis->fill('ok:1');
commit_keys('ok:1,no:1,no:2');
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM uncache.backlog WHERE attempts > 0}), 'a refused key is backlog');
is($node->safe_psql('postgres', 'SELECT keys FROM uncache.backlog'), '2',
	'with those that are refused');
ok(!$redis->has('ok:1'), 'the other one is gone');
is(stat_of("state, last_error LIKE '%NOPERM%',
	last_error_at > now() - interval '1 min', outbox_rows"),
	'connected|t|t|1', 'and the reason is told');
$redis->cli('acl', 'setuser', 'default', 'allkeys');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM uncache.backlog'),
	'it is tried again until it is taken');
$node->safe_psql('postgres', 'SELECT uncache.stat_reset()');
is(stat_of('last_error IS NULL AND last_error_at IS NULL'), 't', 'a reset forgets what is over');

# Down.
$redis->stop;
ok(reached("state = 'down' AND last_error IS NOT NULL"), 'down, and why');
commit_keys('f');
is(stat_of('waits_skipped, outbox_rows, outbox_oldest_age > interval \'0\''), '1|1|t',
	'the backlog begins');
is($node->safe_psql('postgres', 'SELECT keys, attempts FROM uncache.backlog'),
	'1|0', 'and is shown');
$node->safe_psql('postgres', 'SELECT uncache.stat_reset()');
is(stat_of('last_error IS NOT NULL'), 't', 'a reset does not forget what lasts');
$redis->start;
ok(reached("state = 'connected' AND outbox_rows = 0 AND reconnects > 0"), 'back again');

# Paused.
$node->safe_psql('postgres', 'ALTER SYSTEM SET uncache.delivery = off');
$node->reload;
ok(reached("state = 'paused'"), 'paused');
commit_keys('g');
is(stat_of('outbox_rows'), '1', 'the outbox keeps what is committed');

# A backlog too large to be read whole for every look: 10,000 blocks and more.
$node->safe_psql('postgres', q{SELECT count(uncache.invalidate_keys(repeat('x', 1000) || i))
	FROM generate_series(1, 70000) i});
my $all = join ' UNION ALL ', map { "SELECT xid FROM uncache.outbox_$_" } 0 .. 3;
my ($rows, $bytes) = split /\|/, $node->safe_psql('postgres', qq{SELECT count(*),
	pg_table_size('uncache.outbox_0') + pg_table_size('uncache.outbox_1') +
		pg_table_size('uncache.outbox_2') + pg_table_size('uncache.outbox_3')
	FROM ($all) o WHERE xid IN (SELECT xid FROM uncache.backlog)});
cmp_ok($bytes, '>', 8192 * 8192, 'more than is read for a look');
is(stat_of("outbox_rows BETWEEN 0.99 * $rows AND 1.01 * $rows"), 't', 'is estimated well');
is($node->safe_psql('postgres', 'SELECT keys BETWEEN 69000 AND 71000, estimated FROM uncache.backlog
	ORDER BY keys DESC LIMIT 1'),
	't|t', 'in uncache.backlog, too, which says so');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET uncache.delivery');
$node->reload;
ok(reached("state = 'connected' AND outbox_rows = 0"), 'on again: delivered');

# No worker, and why.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->psql('other', 'CREATE EXTENSION pg_uncache');
is(stat_of("state, worker_pid IS NULL, last_error LIKE '%max_database_workers%'", 'other'),
	'no worker|t|t', 'one database too many');
$node->safe_psql('postgres', 'ALTER DATABASE other IS_TEMPLATE true');
is(stat_of("state, last_error LIKE '%template database%'", 'other'), 'no worker|t',
	'a template database');

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
commit_keys('h');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', q{SELECT state, last_error LIKE '%standby%' FROM uncache.stat}),
	'no worker|t', 'a standby');
is($standby->safe_psql('postgres', q{SELECT count(*) > 0 FROM uncache.backlog}), 't',
	'does not know what is delivered');
$standby->stop;

# A worker that is ended has a successor.
my $pid = stat_of('worker_pid');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok(reached("worker_pid <> $pid AND state = 'connected' AND outbox_rows = 0"),
	'a new worker knows what is delivered once it has sent it again');

$node->stop;
done_testing();
