# The runbook of docs/operations.md for a logical switch-over to a new server, at the same
# Redis, step by step: while both run each delete is there, a reader of the old server that
# comes late is refused, and afterwards the new server alone fills and deletes.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my @conf = ('wal_level = logical', 'max_wal_senders = 5', 'max_replication_slots = 5',
	'max_worker_processes = 16', q{uncache.fence_ttl = '5min'});
my $old = new_fenced_node('old', $redis, @conf);

ok(becomes_cacheable($redis, $old, $_), "readers of the old server fill item:$_") foreach 1 .. 3;

# 1. The new server has the library, the address of Redis and the schema with its rules, which
#    record nothing yet: the first copy would delete all keys.
my $new = new_node('new', $redis, @conf);
my $schema = $new->basedir . '/schema.sql';

# The dump has the extension in it.
$new->safe_psql('postgres', 'DROP EXTENSION pg_uncache; DROP SCHEMA uncache');
command_ok([ 'pg_dump', '--schema-only', '-f', $schema, '-h', $old->host, '-p', $old->port,
	'postgres' ], 'the schema is dumped');
$new->safe_psql('postgres', 'ALTER DATABASE postgres SET uncache.enabled = off');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-h', $new->host, '-p', $new->port, '-f',
	$schema, 'postgres' ], 'and restored');
is($new->safe_psql('postgres', 'SELECT count(*) FROM uncache.rules WHERE problem IS NULL'), '2',
	'with its rules');

# 2. It copies and follows.
$old->safe_psql('postgres', 'CREATE PUBLICATION move FOR TABLES IN SCHEMA public');
$new->safe_psql('postgres', "CREATE SUBSCRIPTION move CONNECTION '" . $old->connstr
	. " dbname=postgres' PUBLICATION move");
ok($new->poll_query_until('postgres',
	q{SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'}), 'the copy is made');
ok($redis->has('item:1') && $redis->has('item:3'), 'and the cache is as warm as before');
is($new->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog'), '0',
	'the new server owes nothing');
$old->safe_psql('postgres', 'UPDATE item SET v = 2 WHERE id = 2');
ok(!$redis->has('item:2'), 'the old server deletes');

# 3. No more writes to the old server; all of it is delivered, and applied.
my ($value, $snapshot) = look($old, miss($redis, 'item:2'), 2);
$old->safe_psql('postgres', 'ALTER DATABASE postgres SET default_transaction_read_only = on');
my (undef, undef, $err) = $old->psql('postgres', 'UPDATE item SET v = 3 WHERE id = 3');
like($err, qr/read-only/, 'the old server takes no more writes');
ok(delivered($old), 'all of the old server is delivered');
$old->wait_for_catchup('move');
is($new->safe_psql('postgres', 'SELECT v FROM item WHERE id = 2'), '2', 'and applied');

# 4. The new server takes over.
$new->safe_psql('postgres', 'ALTER DATABASE postgres RESET uncache.enabled');
is($new->safe_psql('postgres', 'SELECT uncache.reclaim_fence()'), 't', 'the fence is its own');
ok(fence_is_on($new), 'and on');
$new->safe_psql('postgres', 'ALTER SUBSCRIPTION move DISABLE');
$new->safe_psql('postgres', 'ALTER SUBSCRIPTION move SET (slot_name = NONE)');
$new->safe_psql('postgres', 'DROP SUBSCRIPTION move');
$new->safe_psql('postgres', 'UPDATE item SET v = 4 WHERE id = 2');
is(fill($redis, 'item:2', $snapshot, $value), '0', 'a late reader of the old server is refused');
ok(becomes_cacheable($redis, $new, $_), "readers of the new server fill item:$_") foreach 1 .. 3;
is(cached($redis, 'item:2'), '4', 'with what it has');
$new->safe_psql('postgres', 'UPDATE item SET v = 5 WHERE id = 1');
ok(!$redis->has('item:1'), 'and its COMMIT deletes');

# 5. A reader that was forgotten on the old server can't fill, before it is stopped and after.
ok($old->poll_query_until('postgres', q{SELECT fence = 'superseded' FROM uncache.stat}),
	'the old server is superseded');
my $token = miss($redis, 'item:1');
($value, $snapshot) = look($old, $token, 1);
isnt(fill($redis, 'item:1', $snapshot, $value), '1', 'a reader of the old server fills nothing');
$old->stop;
ok(becomes_cacheable($redis, $new, 1), 'without the old server readers go on');
is(cached($redis, 'item:1'), '5', 'with the new value');

$new->stop;
done_testing();
