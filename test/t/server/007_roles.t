# Who may do what: a role that migrates the schema and is no superuser, a role
# that only writes, and one that only looks.

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

$node->safe_psql('postgres', q{
	CREATE ROLE migrator LOGIN;
	CREATE ROLE writer LOGIN;
	CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
	CREATE SCHEMA app AUTHORIZATION migrator;
	-- As the README has it.
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA uncache TO migrator;
	REVOKE EXECUTE ON FUNCTION uncache.discard_backlog() FROM migrator;
	GRANT SELECT ON uncache.rules TO migrator});

sub as
{
	my ($role, $sql) = @_;

	return $node->psql('postgres', "SET SESSION AUTHORIZATION $role; $sql");
}

sub succeeds
{
	my ($role, $sql, $what) = @_;
	my ($status, $out, $err) = as($role, $sql);

	is($status, 0, $what) or diag $err;
	return $out;
}

sub refused
{
	my ($role, $sql, $what) = @_;
	my ($status, $out, $err) = as($role, $sql);

	isnt($status, 0, $what);
	like($err, qr/permission denied|must be owner|must be superuser|only superuser/i,
		'for want of the right') or diag $err;
	return;
}

succeeds('migrator', q{
	CREATE TABLE app.item (id int PRIMARY KEY, n int, tag text);
	INSERT INTO app.item SELECT i, 0 FROM generate_series(1, 20) i;
	GRANT USAGE ON SCHEMA app TO writer;
	GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON app.item TO writer;
	SELECT uncache.attach('app.item', 'item:{id}');
	SELECT uncache.attach_columns('app.item', ARRAY['n'], 'item:{id}', 'n:{n}');
	SELECT uncache.detach('app.item');
	SELECT uncache.attach('app.item', 'item:{id}');
	CREATE TRIGGER by_hand AFTER UPDATE ON app.item FOR EACH ROW
		EXECUTE FUNCTION uncache.invalidate('hand:{id}');
	ALTER TABLE app.item ADD COLUMN more int;
	ALTER TABLE app.item DROP COLUMN tag;
	SELECT uncache.invalidate_table('app.item')},
	'the migrator needs no superuser to attach, detach and alter');
is(succeeds('migrator', 'SELECT count(*) FROM uncache.rules', 'it sees its rules'),
	'3', 'all of them');
refused('migrator', q{SET uncache.redis_url = 'redis://elsewhere'},
	'it may not change the Redis server');
refused('migrator', 'SELECT uncache.discard_backlog()', 'nor forget the backlog');

ok(delivered($node), 'the worker is up to date');
$redis->fill('item:1', 'item:2', 'hand:1');
succeeds('writer', 'UPDATE app.item SET n = n + 1 WHERE id = 1',
	'a role without any right on the outbox writes');
ok(gone($redis, 'item:1') && gone($redis, 'hand:1'), 'and its change is delivered');
ok($redis->has('item:2'), 'and no other');
succeeds('writer', 'SELECT uncache.wait()', 'it may wait');
is(succeeds('writer',
	q{SELECT uncache.render('item:{id}', i) FROM app.item i WHERE id = 2}, 'and render'),
	'{item:2}', 'a key');

refused('writer', q{SELECT uncache.invalidate_keys('item:2')},
	'it may not delete any key it likes');
refused('writer', q{SELECT uncache.invalidate_pattern('item:*')}, 'nor a pattern');
refused('writer', q{SELECT uncache.invalidate_table('app.item')}, 'nor the keys of a table');
refused('writer', q{SELECT uncache.attach('app.item', 'any:{id}')}, 'nor attach a rule');
refused('writer', q{CREATE TEMP TABLE t (id int); CREATE TRIGGER t AFTER INSERT ON t
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('any:{id}')}, 'nor make one by hand');
refused('writer', 'SELECT * FROM uncache.transaction_keys()', 'nor see keys');
refused('writer', 'SELECT * FROM uncache.stat', 'nor the state of delivery');
ok($redis->has('item:2'), 'so that item:2 is still there');

is(succeeds('watcher', 'SELECT state FROM uncache.stat', 'pg_monitor sees the state'),
	'connected', 'connected');
succeeds('watcher', 'SELECT * FROM uncache.backlog; SELECT * FROM uncache.stat_rules;
	SELECT * FROM uncache.rules',
	'and the other views');
refused('watcher', 'SELECT uncache.discard_backlog()', 'but may not forget the backlog');

foreach my $table (split /\n/, $node->safe_psql('postgres', q{
	SELECT oid::regclass FROM pg_class
		WHERE relnamespace = 'uncache'::regnamespace AND relkind = 'r'}))
{
	refused('writer', "SELECT * FROM $table", "nobody reads $table");
	my ($status) = $node->psql('postgres',
		"INSERT INTO $table SELECT * FROM $table; INSERT INTO $table DEFAULT VALUES");
	isnt($status, 0, 'and not even a superuser writes to it');
}

$node->stop;
done_testing();
