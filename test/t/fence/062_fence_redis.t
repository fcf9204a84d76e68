# What Redis loses between a miss and its fill: the fill is refused, and the key
# becomes cacheable again.

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

my $redis = RedisServer->new('--dbfilename', 'dump.rdb');
$redis->start;
my $node = new_fenced_node('main', $redis, 'uncache.on_truncate = pattern');
my $reader = $node->background_psql('postgres');

my $library;

sub sql { return $node->safe_psql('postgres', $_[0]) }

# between(WHAT, CODE, ID): a reader misses and reads, CODE happens, a writer
# changes the row, the reader stores.
sub between
{
	my ($what, $code, $id) = @_;
	my $key = "item:$id";
	my $token = miss($redis, $key);

	isnt($token, '', "$what: a token is given");
	my ($value, $snapshot) = look($reader, $token, $id);
	my ($value_of_next, $snapshot_of_next) = look($reader, miss($redis, 'item:9'), 9);
	isnt($snapshot, '', 'and a snapshot');
	$code->();
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(delivered($node), 'a writer is delivered');
	is(fill($redis, $key, $snapshot, $value), '0', 'the fill is refused');
	is(fill($redis, 'item:9', $snapshot_of_next, $value_of_next), '0',
		'that of a key without a writer as well')
	  unless $what =~ /record/;
	my $began = time;
	ok(becomes_cacheable($redis, $node, $id), 'and the key becomes cacheable again');
	cmp_ok(time - $began, '<', 60, 'long before fence_ttl is over');
	is(fill($redis, $key, $snapshot, 'stale'), '0', 'which does not help the late fill');
	is(cached($redis, $key), $node->safe_psql('postgres', "SELECT v FROM item WHERE id = $id"),
		'the cached value is the latest');
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	is($redis->cli('exists', $key), '0', 'until the next write');
	return;
}


# Redis evicts it by itself: keys that are asked for again push it out.
sub evict
{
	my ($key) = @_;
	my $used = $redis->info('memory', 'used_memory');
	my $n = 0;

	$redis->cli('config', 'set', 'maxmemory', $used + 500_000, 'maxmemory-policy', 'allkeys-lru');
	ok(poll_until(sub {
		$redis->cli('mset', map { ('junk:' . ++$n, 'x' x 1000) } 1 .. 100);
		return !$redis->has($key);
	}), 'Redis evicts the record, at maxmemory');
	cmp_ok($redis->info('stats', 'evicted_keys'), '>', 0, 'by its own choice');
	return;
}

between('deletion of the record', sub { $redis->cli('del', 'uncache:{item:1}') }, 1);
between('eviction of the record', sub { evict('uncache:{item:7}') }, 7);
is($redis->cli('fcall', 'uncache_invalidate', 1, 'junk:1', 1000, 'x', 1) =~ /UNREGISTERED/, 1,
	'functions run at maxmemory');
$redis->cli('config', 'set', 'maxmemory', 0, 'maxmemory-policy', 'noeviction');
$redis->cli('flushall');
between('FUNCTION FLUSH', sub {
	is($redis->cli('function', 'flush'), 'OK', 'the functions are gone');
	ok(poll_until(sub { $redis->cli('function', 'list') =~ /uncache_get/ }, 8), 'and loaded again');
}, 2);
between('FUNCTION LOAD REPLACE', sub {
	my $code = $redis->cli('function', 'list', 'withcode');
	$code =~ s/\A.*?(?=#!lua)//s;
	$library = $code;
	is($redis->cli('function', 'load', 'replace', $code), 'uncache',
		'the functions are loaded anew');
}, 3);

# Before it gets an epoch again the node is sent all that the outbox still has.
put($redis, 3, 'an old value');
is($redis->cli('function', 'flush'), 'OK', 'a node without an epoch');
ok(gone($redis, 'item:3'), 'what was deleted of late is deleted again');
ok(fence_is_on($node), 'and the fence comes on');
unlike(fence_stat($node, q{coalesce(last_error, '')}), qr/refused/, 'no key was taken for refused');
between('restart of an empty Redis', sub {
	$redis->kill9;
	$redis->start;
	ok(wait_for_state($node, 'connected'), 'connected again');
}, 4);

# An image of before: the record, and the value, come back.
between('restart with an old image', sub {
	$redis->cli('save');
	sql('UPDATE item SET v = v + 1 WHERE id = 6');
	$redis->kill9;
	$redis->start;
	ok($redis->has('uncache:{item:5}'), 'the record is there again');
	ok(wait_for_state($node, 'connected'), 'connected again');
}, 5);
is(read_item($redis, $reader, 6), '1', 'a key is cached');
$redis->cli('save');
sql('UPDATE item SET v = v + 1 WHERE id = 6');
$redis->kill9;
$redis->start;
ok(gone($redis, 'item:6'), 'a value that came back with the image is deleted again');

# The epoch that such a node gets stays: later looks at it void no token.
ok(fence_is_on($node), 'the fence is on again');
my ($read, $seen) = look($reader, miss($redis, 'item:7'), 7);
my $pings = $redis->pings;
ok(poll_until(sub { $redis->pings > $pings + 5 }), 'the worker has asked how the node is');
is(fill($redis, 'item:7', $seen, $read), '1', 'what was read after the restart may be stored');

# TRUNCATE: patterns void all tokens.
ok(fence_is_on($node), 'the fence is on');
foreach my $sql (
	q{BEGIN; CREATE TABLE keep AS SELECT * FROM item; TRUNCATE item; SET LOCAL uncache.enabled =
		off; INSERT INTO item SELECT id, v + 1 FROM keep; DROP TABLE keep; COMMIT},
	q{SET session_replication_role = replica; ALTER TABLE item DISABLE TRIGGER ALL;
		UPDATE item SET v = v + 1; ALTER TABLE item ENABLE TRIGGER ALL;
		ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_row;
		ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_truncate;
		SELECT uncache.invalidate_table('item')},
	q{SELECT uncache.invalidate_pattern('item:*')})
{
	my ($command) = $sql =~ /(TRUNCATE|invalidate_\w+)/;
	my $token = miss($redis, 'item:8');
	my ($value, $snapshot) = look($reader, $token, 8);
	$node->psql('postgres', $sql);
	ok(delivered($node), "$command is delivered");
	is(fill($redis, 'item:8', $snapshot, $value), '0', 'a late fill is refused');
	is(read_item($redis, $reader, 8), '1', 'a new one is stored at once');
	sql('UPDATE item SET v = v + 1 WHERE id = 8');
}

# Many tokens, one FLUSHALL: epochs live on, records do not.
{
	my $token = miss($redis, 'item:1');
	my ($value, $snapshot) = look($reader, $token, 1);
	$redis->cli('flushall');
	is(fill($redis, 'item:1', $snapshot, $value), '0', 'FLUSHALL: the fill is refused');
	is(read_item($redis, $reader, 1), '1', 'and the next is stored at once');
}

# --- the fence is switched off, and on again ---

my $token = miss($redis, 'item:2');
my ($value, $snapshot) = look($reader, $token, 2);
set_conf($node, 'uncache.fence_ttl', '0');
$node->reload;
ok(poll_until(sub { miss($redis, 'item:3') eq '' }, 5), 'fence_ttl = 0: no tokens any more');
is($node->safe_psql('postgres', "SELECT uncache.snapshot('$token') IS NULL"), 't',
	'and no snapshots');
sql('UPDATE item SET v = v + 1 WHERE id = 2');
is(fill($redis, 'item:2', $snapshot, $value), '0', 'the fill is refused');
set_conf($node, 'uncache.fence_ttl', '5min');
$node->reload;
ok(becomes_cacheable($redis, $node, 2), 'on again: cacheable again');
is(fill($redis, 'item:2', $snapshot, $value), '0', 'but not by what was read before');

# --- another database, with the fence off, feeds the same keys ---

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('postgres', 'ALTER DATABASE other SET uncache.fence_ttl = 0');
$node->safe_psql('other', 'CREATE EXTENSION pg_uncache');
ok(wait_for_state($node, 'connected', 'other'), 'another database has its fence off');

sub refused_by_other
{
	my ($what) = @_;
	my $old = miss($redis, 'item:4');
	my ($old_value, $old_snapshot) = look($reader, $old, 4);

	$node->safe_psql('other', q{SELECT uncache.invalidate_keys('item:4')});
	ok(delivered($node, 'other'), "$what: its invalidation is delivered");
	return is(fill($redis, 'item:4', $old_snapshot, $old_value), '0',
		'and counts for fenced fills');
}

refused_by_other('a database without the fence');
ok(becomes_cacheable($redis, $node, 4), 'the key is cacheable again');
sql('UPDATE item SET v = v + 1 WHERE id = 4');

# It was there first, before any functions were.
sub without_functions
{
	$redis->cli('function', 'flush');
	foreach my $database ('postgres', 'other')
	{
		$node->safe_psql($database, 'SELECT pg_terminate_backend(worker_pid) FROM uncache.stat');
		ok(wait_for_state($node, 'connected', $database), "$database without functions");
		ok($node->poll_query_until($database, q{SELECT fence = 'off' FROM uncache.stat}),
			'has no fence');
		ok(delivered($node, $database), 'and nothing to deliver');
	}
	return;
}

set_conf($node, 'uncache.fence_ttl', '0');
$node->reload;
without_functions();

# What is deleted until the functions are found is deleted again by them.
$node->safe_psql('other', q{SELECT uncache.invalidate_keys('item:5')});
ok(delivered($node, 'other'), 'deleted without the functions');
put($redis, 5, 'by a late reader');
is($redis->cli('function', 'load', $library), 'uncache', 'somebody loads them');
ok(gone($redis, 'item:5'), 'deleted again');

without_functions();
set_conf($node, 'uncache.fence_ttl', '5min');
$node->reload;
ok(poll_until(sub { (eval { miss($redis, 'item:4') } // '') ne '' }),
	'the first database gives tokens out');
refused_by_other('the other one, connected before, has taken notice by then');

# --- out of memory ---

$redis->cli('config', 'set', 'maxmemory', 1, 'maxmemory-policy', 'noeviction');
ok(poll_until(sub { $redis->cli('set', 'x', 1) =~ /OOM/ }, 5), 'Redis is out of memory');
sql('UPDATE item SET v = v + 1 WHERE id = 5');
ok(delivered($node), 'deletes go on');
like($redis->cli('fcall', 'uncache_set', 1, 'item:5', '', 1000, 'x'), qr/OOM/, 'fills do not');
$redis->cli('config', 'set', 'maxmemory', 0);
ok(becomes_cacheable($redis, $node, 5), 'and afterwards they do');

$reader->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|ERROR:  unexpected|StartTransaction/, 'no PANIC');
$node->stop;
done_testing();
