# A table and its rules go through pg_dump and back; what is not delivered yet
# does not: it belongs to the database that was dumped.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);
my $rules = q{SELECT relation, trigger, events, columns, templates, enabled, problem
	FROM uncache.rules ORDER BY relation::text, trigger};

$node->safe_psql('postgres', q{
	CREATE SCHEMA shop;
	CREATE TABLE shop."Order Line" (id int PRIMARY KEY, sku text, note text);
	INSERT INTO shop."Order Line" VALUES (1, 'abc', 'it''s'), (2, 'def', NULL);
	SELECT uncache.attach('shop."Order Line"', 'line:{id}',
		'sku:{upper(sku)}:''quoted''', 'cart:{{{id}}}');
	CREATE TABLE part (id int, at date) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
	SELECT uncache.attach_columns('part', ARRAY['at'], 'part:{id}');
	CREATE TABLE by_hand (id int);
	CREATE TRIGGER mine AFTER UPDATE OF id ON by_hand FOR EACH ROW
		WHEN (old.id > 0) EXECUTE FUNCTION uncache.invalidate('hand:{id}');
	CREATE TRIGGER mine_all AFTER TRUNCATE ON by_hand FOR EACH STATEMENT
		EXECUTE FUNCTION uncache.invalidate('hand:{id}')});
ok(delivered($node), 'the worker is up to date');
$redis->stop;
$node->safe_psql('postgres',
	q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('only:here')});

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-p', $node->port, '-h', $node->host,
	'postgres' ], 'pg_dump');
unlike(slurp_file($dump), qr/^COPY uncache\./m, 'has no rows of the outbox');

$redis->start;
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-p',
	$node->port, '-h', $node->host,
		'restored' ], 'it can be restored');

is($node->safe_psql('restored', $rules), $node->safe_psql('postgres', $rules),
	'the rules are the same');
is($node->safe_psql('restored', 'SELECT count(*) = 6 FROM uncache.rules'), 't', 'and not none');
is($node->safe_psql('restored', 'SELECT count(*) FROM uncache.rules WHERE problem IS NOT NULL'),
	'0', 'without a problem');

ok(wait_for_state($node, 'connected', 'restored'), 'the restored database has a worker');
$redis->fill('line:1', 'line:2', 'sku:ABC:\'quoted\'', 'cart:{1}', 'part:5', 'part:6', 'hand:1');
$node->safe_psql('restored', q{
	INSERT INTO part VALUES (5, '2020-01-01'), (6, '2020-01-01');
	UPDATE shop."Order Line" SET note = 'new' WHERE id = 1;
	INSERT INTO by_hand VALUES (1);
	UPDATE by_hand SET id = 2});
ok(delivered($node, 'restored'), 'changes are delivered');
is(join(' ', $redis->keys), 'line:2', 'and delete what they should');

$node->stop;
done_testing();
