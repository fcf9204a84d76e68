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
	is(fill($redis, 'item:9', $snapshot_of_next, $value_of_next), '0', 'that of a key without a writer as well')
	  unless $what =~ /eviction/;
	my $began = time;
	ok(becomes_cacheable($redis, $node, $id), 'and the key becomes cacheable again');
	cmp_ok(time - $began, '<', 5, 'soon');
	is(fill($redis, $key, $snapshot, 'stale'), '0', 'which does not help the late fill');
	is(cached($redis, $key), $node->safe_psql('postgres', "SELECT v FROM item WHERE id = $id"), 'the cached value is the latest');
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	is($redis->cli('exists', $key), '0', 'until the next write');
	return;
}


between('eviction of the record', sub { $redis->cli('del', 'uncache:{item:1}') }, 1);
between('FUNCTION FLUSH', sub {
	is($redis->cli('function', 'flush'), 'OK', 'the functions are gone');
	ok(poll_until(sub { $redis->cli('function', 'list') =~ /uncache_get/ }, 8), 'and loaded again');
}, 2);
between('FUNCTION LOAD REPLACE', sub {
	my $code = $redis->cli('function', 'list', 'withcode');
	$code =~ s/\A.*?(?=#!lua)//s;
	is($redis->cli('function', 'load', 'replace', $code), 'uncache', 'the functions are loaded anew');
}, 3);
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
foreach my $sql (
	q{BEGIN; CREATE TABLE keep AS SELECT * FROM item; TRUNCATE item; SET LOCAL uncache.enabled = off; INSERT INTO item SELECT id, v + 1 FROM keep; DROP TABLE keep; COMMIT},
	q{SET session_replication_role = replica; ALTER TABLE item DISABLE TRIGGER ALL; UPDATE item SET v = v + 1; ALTER TABLE item ENABLE TRIGGER ALL; ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_row; ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_truncate; SELECT uncache.invalidate_table('item')},
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
is($node->safe_psql('postgres', "SELECT uncache.snapshot('$token') IS NULL"), 't', 'and no snapshots');
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
	return is(fill($redis, 'item:4', $old_snapshot, $old_value), '0', 'and counts for fenced fills');
}

refused_by_other('a database without the fence');
ok(becomes_cacheable($redis, $node, 4), 'the key is cacheable again');
sql('UPDATE item SET v = v + 1 WHERE id = 4');

# It was there first, before any functions were.
set_conf($node, 'uncache.fence_ttl', '0');
$node->reload;
$redis->cli('function', 'flush');
$node->safe_psql('other', 'SELECT pg_terminate_backend(worker_pid) FROM uncache.stat');
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(worker_pid) FROM uncache.stat');
ok(wait_for_state($node, 'connected', 'other'), 'without functions');
ok($node->poll_query_until($_, q{SELECT fence = 'off' FROM uncache.stat}), "$_ has no fence") foreach 'postgres', 'other';
set_conf($node, 'uncache.fence_ttl', '5min');
$node->reload;
ok(fence_is_on($node), 'the fence comes on in the first database');
my $noticed = 0;
poll_until(sub {
	$redis->cli('del', 'item:4');
	my $old = miss($redis, 'item:4');
	my ($old_value, $old_snapshot) = look($reader, $old, 4);
	$node->safe_psql('other', q{SELECT uncache.invalidate_keys('item:4')});
	$noticed = fill($redis, 'item:4', $old_snapshot, $old_value) eq '0';
	return $noticed;
}, 5);
ok($noticed, 'the other one, already connected, takes notice');
refused_by_other('the other database');

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
