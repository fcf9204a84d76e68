# uncache.stat_databases and uncache.stat_latency: what a monitor with one connection sees.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.max_database_workers = 2', 'autovacuum = off');

$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', 'CREATE EXTENSION pg_uncache');
ok(wait_for_state($node, 'connected') && wait_for_state($node, 'connected', 'shop'),
	'a second database is served');

# of(DATABASE, COLUMNS): its row, as the database postgres sees it.
sub of
{
	my ($database, $columns) = @_;

	return $node->safe_psql('postgres',
		"SELECT $columns FROM uncache.stat_databases WHERE datname = '$database'");
}

sub reaches
{
	my ($database, $condition) = @_;

	return $node->poll_query_until('postgres',
		"SELECT $condition FROM uncache.stat_databases WHERE datname = '$database'");
}

is($node->safe_psql('postgres',
	'SELECT datname, state, redis, version = uncache.version() FROM uncache.stat_databases
	ORDER BY datname'),
	'postgres|connected|' . $redis->url . "|t\nshop|connected|" . $redis->url . '|t',
	'one connection sees both');
is(of('shop', 'datid = (SELECT oid FROM pg_database d WHERE d.datname = stat_databases.datname),
	worker_pid = (SELECT pid FROM pg_stat_activity a WHERE a.datname = stat_databases.datname
	AND backend_type = \'pg_uncache worker\')'), 't|t', 'with its OID and its worker');

# The columns that both views have say the same.
my $common = $node->safe_psql('postgres', q{
	SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
	WHERE attrelid = 'uncache.stat'::regclass AND attnum > 0
		AND attname !~ '^(outbox_|waiting|ring_used|last_error|beats|fills_|latency)'});
is(of('shop', $common), $node->safe_psql('shop', "SELECT $common FROM uncache.stat"),
	'what uncache.stat shows there, stat_databases shows here');
is($node->safe_psql('postgres', q{
	SELECT string_agg(attname, ', ') FROM pg_attribute a
	WHERE attrelid = 'uncache.stat'::regclass AND attnum > 0 AND NOT EXISTS (SELECT FROM
		pg_attribute b WHERE b.attrelid = 'uncache.stat_databases'::regclass
		AND b.attname = a.attname)}), '', 'it has every column of uncache.stat');

# Counting, and the backlog as the worker sees it.
$node->safe_psql('shop', q{SELECT uncache.invalidate_keys('a', 'b')});
ok(delivered($node, 'shop'), 'two keys of the other database are delivered');
is(of('shop', 'transactions_delivered, keys_delivered, latency_sum_ms > 0'), '1|2|t',
	'and counted there');
is(of('postgres', 'transactions_delivered, keys_delivered'), '0|0', 'and not here');
ok(reaches('shop', 'outbox_bytes > 0 AND outbox_rows = 0 AND outbox_oldest_age IS NULL'),
	'its outbox has a size, and no backlog');
$redis->freeze;
$node->safe_psql('shop',
	q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('c')});
ok(reaches('shop', "outbox_rows = 1 AND outbox_oldest_age > '0 s'"), 'the backlog is seen');
is(of('shop', "backlog_at > now() - interval '60 s'"), 't', 'with the time of the look');
ok(poll_until(sub {
	my @looks = map { of('shop', 'backlog_at, outbox_oldest_age') } 1 .. 2;

	return $looks[0] eq $looks[1];
}), 'the age is that of the look');
$redis->thaw;
ok(reaches('shop', 'outbox_rows = 0 AND outbox_oldest_age IS NULL'), 'and seen to be gone');

# Rules with problems are counted, without a look into that database.
is(of('shop', 'rules_with_problems'), '0', 'no rule has a problem');
$node->safe_psql('shop', q{
	CREATE TABLE item (id int);
	SELECT uncache.attach('item', 'item:{id}');
	CREATE TABLE fine (id int);
	SELECT uncache.attach('fine', 'fine:{id}');
	ALTER TABLE item DISABLE TRIGGER ALL});
ok(reaches('shop', 'rules_with_problems = 2'), 'two disabled rules are found');
is($node->safe_psql('shop', 'SELECT count(problem) FROM uncache.rules'), '2',
	'as many as uncache.rules shows');
$node->safe_psql('shop', 'ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_row;
	ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_truncate');
ok(reaches('shop', 'rules_with_problems = 0'), 'and found mended');
$node->safe_psql('shop', q{DO $$ BEGIN FOR i IN 1..300 LOOP
	EXECUTE format('CREATE TABLE t%s (id int)', i);
	EXECUTE format('SELECT uncache.attach(''t%s'', ''t%1$s:{id}'')', i);
	END LOOP; END $$; ALTER TABLE t1 DISABLE TRIGGER ALL; ALTER TABLE t300 DISABLE TRIGGER ALL});
ok(reaches('shop', 'rules_with_problems = 4'), 'many rules are checked, in slices');

# Of a table with very many partitions the worker looks at the first 255; the view at all.
$node->safe_psql('shop', q{
	CREATE TABLE parted (id int) PARTITION BY LIST (id);
	SELECT uncache.attach('parted', 'parted:{id}');
	DO $$ BEGIN FOR i IN 1..256 LOOP
	EXECUTE format('CREATE TABLE parted%s PARTITION OF parted FOR VALUES IN (%1$s)', i);
	END LOOP; END $$; ALTER TABLE parted256 DISABLE TRIGGER uncache_row;
	ALTER TABLE item DISABLE TRIGGER ALL});
ok(reaches('shop', 'rules_with_problems = 6'), 'a partition beyond many is not looked at');
is($node->safe_psql('shop', 'SELECT count(problem) FROM uncache.rules'), '7',
	'but by uncache.rules');
$node->safe_psql('shop', 'ALTER TABLE parted255 DISABLE TRIGGER uncache_row');
ok(reaches('shop', 'rules_with_problems = 7'), 'one before is');
$node->safe_psql('shop', 'DROP TABLE parted; DROP TABLE item');
ok(reaches('shop', 'rules_with_problems = 4'), 'and dropped tables are forgotten');

# Nor does the worker wait for a lock on a table whose row type a template uses.
$node->safe_psql('shop', q{
	CREATE TABLE other (a int);
	CREATE TABLE held (id int);
	SELECT uncache.attach('held', 'held:{(ROW(id)::public.other).a}')});
SKIP:
{
	my $locker = $node->background_psql('shop') if $node->can('background_psql');
	my $worker = of('shop', 'worker_pid');

	skip 'no background sessions', 4 unless ref $locker && $locker->can('query_until');
	$locker->query_until(qr/locked/,
		"BEGIN; LOCK TABLE other IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n");
	# A new worker does not know the row type yet.
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	ok(reaches('shop', "worker_pid <> $worker AND rules_with_problems = 6"),
		'rules that cannot be looked at now count');
	$worker = of('shop', 'worker_pid');
	$node->safe_psql('shop', q{SELECT uncache.invalidate_keys('meanwhile')});
	ok(delivered($node, 'shop'), 'the worker delivers meanwhile');
	$locker->query_until(qr/released/, "COMMIT;\n\\echo released\n");
	$locker->quit;
	ok(reaches('shop', 'rules_with_problems = 4'), 'they are looked at later');
	is(of('shop', 'worker_pid'), $worker, 'by the same worker');
}

# A worker that starts again is counted.
my $starts = of('shop', 'worker_starts');
my $pid = of('shop', 'worker_pid');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok(reaches('shop', "worker_pid <> $pid AND state = 'connected'"), 'another worker is there');
is(of('shop', 'worker_starts'), $starts + 1, 'and counted');

# Buckets: they grow, end with all, and are of this database alone.
is($node->safe_psql('shop', q{
	SELECT count(*), min(le_ms), max(le_ms), bool_and(sorted) FROM
		(SELECT le_ms, count >= lag(count, 1, 0::bigint) OVER (ORDER BY le_ms) AS sorted
		FROM uncache.stat_latency) l}), '22|0.128|Infinity|t', 'buckets are cumulative');
is($node->safe_psql('shop', q{SELECT count = (SELECT max(count) FROM uncache.stat_latency),
	count > 0 FROM uncache.stat_latency WHERE le_ms = 'Infinity'}), 't|t',
	'the last one has all deliveries');
is($node->safe_psql('postgres', 'SELECT max(count) FROM uncache.stat_latency'), '0',
	'the other database has its own');
is($node->safe_psql('postgres',
	'SELECT datname, count(*) FROM uncache.stat_databases_latency GROUP BY 1 ORDER BY 1'),
	"postgres|22\nshop|22", 'and one connection sees both');

# A delivery that took long is in a late bucket alone.
$node->safe_psql('shop', 'SELECT uncache.stat_reset()');
is($node->safe_psql('shop', 'SELECT max(count) FROM uncache.stat_latency'), '0', 'a reset empties');
$redis->freeze;
my $late = $node->background_psql('shop', on_error_stop => 0)
	if $node->can('background_psql');
SKIP:
{
	skip 'no background sessions', 2 unless ref $late && $late->can('query_until');
	$late->query_until(qr/sent/, "\\echo sent\nSET uncache.wait_timeout = '50s';
		SELECT uncache.invalidate_keys('late');\n");
	ok($node->poll_query_until('shop', 'SELECT waiting_backends = 1 FROM uncache.stat'),
		'a session waits');
	$node->poll_query_until('shop',
		"SELECT clock_timestamp() > '" . $node->safe_psql('shop', 'SELECT clock_timestamp()')
		. "'::timestamptz + interval '0.3 s'");
	$redis->thaw;
	$late->quit;
	ok(delivered($node, 'shop'), 'until Redis answers');
	is($node->safe_psql('shop', q{SELECT max(count) FILTER (WHERE le_ms < 200), max(count)
		FROM uncache.stat_latency}), '0|1', 'a slow delivery is in the late buckets alone');
}

# Rights.
$node->safe_psql('postgres', 'CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE stranger');
foreach my $view ('stat_databases', 'stat_latency', 'stat_databases_latency')
{
	is($node->psql('postgres', "SET ROLE watcher; SELECT count(*) FROM uncache.$view"), 0,
		"pg_monitor may read $view");
	isnt($node->psql('postgres', "SET ROLE stranger; SELECT count(*) FROM uncache.$view"), 0,
		"and no other role");
}

# A dropped database has no row.
$node->safe_psql('postgres', 'DROP DATABASE shop');
is($node->safe_psql('postgres', 'SELECT count(*) FROM uncache.stat_databases'), '1',
	'a dropped database has no row');

# The last error of a database in LATIN1, read in UTF-8.
$node->safe_psql('postgres', "CREATE DATABASE $_->[0] ENCODING '$_->[1]' LC_COLLATE 'C'
	LC_CTYPE 'C' TEMPLATE template0") foreach ['latin', 'LATIN1'], ['utf8', 'UTF8'];
$node->safe_psql('latin', 'CREATE EXTENSION pg_uncache');
ok(wait_for_state($node, 'connected', 'latin'), 'a database in LATIN1');
$node->safe_psql('utf8', 'CREATE EXTENSION pg_uncache');
$redis->kill9;
$node->append_conf('postgresql.conf', "uncache.redis_url = 'unix:///nosuch\xE9'");
$node->reload;
ok($node->poll_query_until('latin',
	q{SELECT last_error LIKE '%nosuch' || chr(233) || '%' FROM uncache.stat}),
	'its last error has a letter of LATIN1');
is($node->safe_psql('utf8', q{SET client_encoding = 'LATIN1';
	SELECT last_error LIKE '%nosuch?%' FROM uncache.stat_databases
	WHERE datname = 'latin'}), 't', 'which is "?" where it is not valid');

done_testing();
