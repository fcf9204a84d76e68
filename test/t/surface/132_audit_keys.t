# uncache.audit_keys(): which keys no rule covers, and which have no TTL.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisCluster;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);
ok(wait_for_state($node, 'connected'), 'connected');

sub audit
{
	my ($samples) = @_;

	return $node->safe_psql('postgres', 'SELECT key_pattern, keys, covered, without_ttl, example
		FROM uncache.audit_keys(' . ($samples // '') . ')');
}

# refusal(): how psql ends, and what it says where no Redis could be looked at.
sub refusal
{
	my ($ret, undef, $err) = $node->psql('postgres', 'SELECT * FROM uncache.audit_keys()');

	return ($ret, $err =~
		/(\w+):  uncache\.audit_keys\(\) could not look at the keys of any Redis/ ? $1 : $err);
}

sub reload
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET $_") foreach @_;
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

is(audit(), '', 'an empty Redis has no keys');
$node->safe_psql('postgres', q{
	CREATE TABLE users (id int, name text);
	SELECT uncache.attach('users', 'user:{id}', 'name:{name}');
	CREATE TABLE off (id int);
	SELECT uncache.attach('off', 'off:{id}');
	ALTER TABLE off DISABLE TRIGGER ALL});
$redis->cli('set', "user:$_", 1, 'ex', 1000) foreach 1 .. 5;
$redis->fill('name:bob', 'name:alice', 'off:1', 'user:1:session', 'user:x',
	map { "session:$_:data" } 1 .. 3);
$redis->cli('set', 'api:v2:config', 1);
is(audit(), join("\n",
	'user:*|5|t|0|user:1',
	'session:*:data|3|f|3|session:1:data',
	'name:*|2|t|2|name:alice',
	'api:v2:config|1|f|1|api:v2:config',
	'off:*|1|t|1|off:1',
	'user:*:session|1|f|1|user:1:session',
	'user:x|1|f|1|user:x'), 'keys are grouped, and compared with the rules');

# It changes nothing, and counts as no use of a key.
my $idle = $redis->cli('object', 'idletime', 'name:bob');
$redis->cli('config', 'resetstat');
audit();
my @touched = grep { $redis->calls($_) > 0 }
	qw(get set unlink del touch expire fcall object randomkey);
is("@touched", '', 'no command that uses a key is sent');
ok($redis->cli('object', 'idletime', 'name:bob') >= $idle, 'and no key looks used');

# A prefix belongs to the keys of rules.
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET uncache.key_prefix = 'app1:'});
$redis->fill('app1:user:7');
is($node->safe_psql('postgres', q{SELECT key_pattern, keys FROM uncache.audit_keys()
	WHERE covered}), 'app1:user:*|1', 'with the prefix');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET uncache.key_prefix');

# Bytes that are no text, long keys, a key with a null byte.
$redis->cli('flushall');
$redis->cli('eval', q{redis.call('set', '\255\254:1', 1); redis.call('set', 'null\0:x', 1);
	redis.call('set', 'long:' .. string.rep('x', 100000), 1); return 1}, 0);
$node->safe_psql('postgres', "CREATE DATABASE utf8 ENCODING 'UTF8' TEMPLATE template0");
$node->safe_psql('utf8', 'CREATE EXTENSION pg_uncache');
ok(wait_for_state($node, 'connected', 'utf8'), 'a database in UTF-8');
is($node->safe_psql('utf8', q{SELECT key_pattern, covered, left(example, 12), length(example)
	FROM uncache.audit_keys() ORDER BY key_pattern COLLATE "C"}),
	"\\xff\\xfe:*|f|\\xff\\xfe:1|10\nlong:*|f|long:xxxxxxx|16384\nnull?:x|f|null\\x00:x|10",
	'whatever a key is made of');

# Many different keys: few groups, all keys.
$redis->cli('flushall');
$redis->cli('eval', q{for i = 1, 3000 do
	local name = string.char(97 + i % 26, 97 + math.floor(i / 26) % 26, 97 + math.floor(i / 676))
	redis.call('set', name .. ':' .. name, 1) end return 1}, 0);
is($node->safe_psql('postgres', 'SELECT count(*) <= 300, sum(keys) FROM uncache.audit_keys(5000)'),
	't|3000', 'there are not too many groups, and no key is missing');
is($node->safe_psql('postgres', 'SELECT sum(keys) FROM uncache.audit_keys()'), '1000',
	'a sample is as large as was asked for');

# A large sample comes in several parts; a value of many kilobytes does not matter.
$redis->cli('flushall');
$redis->fill_range('item:' . ('k' x 100) . ':', 1, 20000);
is($node->safe_psql('postgres', 'SELECT count(*), sum(keys), sum(without_ttl)
	FROM uncache.audit_keys(100000)'), '1|20000|20000', 'all keys of a larger Redis');

# The fence's records and the stream are pg_uncache's own.
$redis->cli('flushall');
$redis->fill('uncache:{user:1}', 'uncache::cart:{1}', 'uncachedkeys');
is(audit(), 'uncachedkeys|1|f|1|uncachedkeys', "pg_uncache's own keys are left out");

# Without the right to PTTL nothing is said of it.
$redis->cli('acl', 'setuser', 'default', '-pttl');
is($node->safe_psql('postgres', 'SELECT keys, without_ttl IS NULL FROM uncache.audit_keys()'),
	'1|t', 'a TTL that Redis does not tell is NULL');
$redis->cli('acl', 'setuser', 'default', '-scan');
is_deeply([refusal()], [3, 'ERROR'], 'without SCAN there is no sample, but an error');
like($node->safe_psql('postgres', 'SELECT last_error FROM uncache.stat'),
	qr/uncache\.audit_keys\(\) cannot use SCAN: NOPERM/, 'and last_error says why');
$redis->cli('acl', 'setuser', 'default', '+@all');

# While a pattern is looked for.
$redis->fill_range('user:', 1, 50000);
$node->safe_psql('postgres', q{SET uncache.wait_timeout = 0; TRUNCATE users});
is($node->safe_psql('postgres', 'SELECT count(*) >= 0 FROM uncache.audit_keys()'), 't',
	'a pass is not in the way');
ok(delivered($node), 'nor is the audit in the way of the pass');
is(scalar($redis->keys('user:*')), 0, 'which deletes all it should');

# Bad arguments, and rights.
foreach my $bad ('0', '-1', '100001', 'NULL')
{
	my (undef, undef, $err) = $node->psql('postgres', "SELECT uncache.audit_keys($bad)");

	like($err, qr/argument 1 of uncache\.audit_keys\(\) must be between 1 and 100000/,
		"$bad keys are refused");
}
$node->safe_psql('postgres', 'CREATE ROLE watcher IN ROLE pg_monitor;
	CREATE ROLE reader IN ROLE pg_read_all_data');
isnt($node->psql('postgres', 'SET ROLE watcher; SELECT * FROM uncache.audit_keys()'), 0,
	'pg_monitor may not see keys');
is($node->psql('postgres', 'SET ROLE reader; SELECT * FROM uncache.audit_keys()'), 0,
	'pg_read_all_data may');

# A worker that is replaced while it answers: an error, or the whole answer.
$redis->fill_range('item:', 1, 20000);
my $pid = $node->safe_psql('postgres', 'SELECT worker_pid FROM uncache.stat');
my ($ret, $out, $err) = $node->psql('postgres', "SELECT pg_terminate_backend($pid);
	SELECT count(*) > 0 FROM uncache.audit_keys(20000)");
ok($ret == 0 || $err =~ /the worker has ended while it answered/, 'a worker may be replaced');

# A broken rule covers nothing, and says so.
$node->safe_psql('postgres', q{SET session_replication_role = replica;
	CREATE TABLE broken (id int); SELECT uncache.attach('broken', 'broken:{id}')});
$node->safe_psql('postgres', q{ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
	ALTER EVENT TRIGGER uncache_ddl_drop DISABLE;
	ALTER TABLE broken RENAME COLUMN id TO number;
	ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;
	ALTER EVENT TRIGGER uncache_ddl_drop ENABLE ALWAYS});
($ret, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM uncache.audit_keys()');
like($err, qr/WARNING:  rule "uncache_(row|truncate)" is broken, and covers no key/,
	'a broken rule is told');

# Where nothing can be looked at, and where a part is missing.
$redis->cli('flushall');
$redis->fill('here');
reload('uncache.delivery = off');
ok(wait_for_state($node, 'paused'), 'paused');
is_deeply([refusal()], [3, 'ERROR'], 'without delivery there is no link, but an error');
reload('uncache.delivery = on');
ok(wait_for_state($node, 'connected'), 'connected');
my $other = RedisServer->new;
$other->start;
reload("uncache.redis_url = '" . $redis->url . ' ' . $other->url . "'");
ok($node->poll_query_until('postgres', q{SELECT state = 'connected' AND position(' ' in redis) > 0
	FROM uncache.stat}),
	'connected to two');
$other->fill('here', 'there');
is($node->safe_psql('postgres', q{SELECT string_agg(key_pattern || ' ' || keys, ', '
	ORDER BY key_pattern) FROM uncache.audit_keys()}), 'here 1, there 1',
	'a key of both counts once');
$other->kill9;
ok(wait_for_state($node, 'down'), 'one of two is away');
(undef, $out, $err) = $node->psql('postgres', 'SELECT key_pattern FROM uncache.audit_keys()');
is($out, 'here', 'keys of the one that is there');
like($err, qr/WARNING:  uncache\.audit_keys\(\) could look at the keys of 1 of 2 Redis servers/,
	'and a warning that others are missing');
$redis->kill9;
ok($node->poll_query_until('postgres', q{SELECT bool_and(NOT ok) FROM uncache.check_redis()
	WHERE "check" = 'reachable'}), 'both are away');
is_deeply([refusal()], [3, 'ERROR'], 'without any Redis there is an error');
$redis->start;

# A cluster: of each master a part.  (A new server is sent the TRUNCATE of users again.)
my $cluster = RedisCluster->new(replicas => 0);
$cluster->fill(map { "member:$_" } 1 .. 300);
$node->safe_psql('postgres', "ALTER SYSTEM SET uncache.redis_url = '" . $cluster->url . "'");
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
ok($node->poll_query_until('postgres', q{SELECT state = 'connected' AND redis LIKE '%cluster%'
	FROM uncache.stat}), 'connected to a cluster');
is($node->safe_psql('postgres', q{SET client_min_messages = error;
	SELECT key_pattern, keys FROM uncache.audit_keys()}), 'member:*|300', 'keys of all masters');

done_testing();
