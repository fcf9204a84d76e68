# A fill that is under way when a replica of Redis is promoted: refused by the new
# master, whatever that has heard of, and the key becomes cacheable again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisServer;
use Uncache;

my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
my %server = map { $_ => RedisServer->new('--port', $port{$_},
	'--repl-diskless-sync-delay', 0) } 1 .. 2;
$_->start foreach values %server;
my ($master, $replica) = (1, 2);
my $redis = $server{$master};
my $node = new_fenced_node('main', $redis);
my $reader = $node->background_psql('postgres');

sub value_of { return $node->safe_psql('postgres', "SELECT v FROM item WHERE id = $_[0]") }
sub change { $node->safe_psql('postgres', "UPDATE item SET v = v + 1 WHERE id = $_[0]"); return }

sub follow
{
	$server{$replica}->cli('replicaof', '127.0.0.1', $port{$master});
	ok(poll_until(sub { $server{$replica}->info('replication', 'master_link_status') eq 'up' }),
		'a replica follows');
	return;
}

# The replica has all that the master has.
sub is_replicated
{
	return poll_until(sub {
		my $behind = $server{$master}->info('replication',
			'master_repl_offset') - $server{$replica}->info('replication', 'slave_repl_offset');

		return $behind == 0;
	});
}

# The link between the two is cut: what the master acknowledges from now on is lost.
sub cut
{
	$server{$replica}->cli('replicaof', '127.0.0.1', 1);
	return;
}

sub promote
{
	is($server{$replica}->cli(qw(replicaof no one)), 'OK', 'the replica is promoted');
	($master, $replica) = ($replica, $master);
	$redis = $server{$master};
	return;
}

sub tell_worker
{
	set_conf($node, 'uncache.redis_url', $redis->url);
	$node->reload;
	ok($node->poll_query_until('postgres', q{SELECT redis = '} . $redis->url
		. q{' AND state = 'connected' FROM uncache.stat}), 'the worker has followed');
	return;
}

# --- the replica has heard of everything ---

follow();
my $token = miss($redis, 'item:1');
my ($value, $snapshot) = look($reader, $token, 1);
my ($other_value, $other_snapshot) = look($reader, miss($redis, 'item:2'), 2);
change(1);
ok(is_replicated(), 'it has got everything');
promote();
is(cached($redis, 'item:1'), '', 'the key is not there');
is(fill($redis, 'item:1', $snapshot, $value), '0',
	'before the worker comes: the late fill is refused');
is(miss($redis, 'item:1'), '', 'and no token is given');
tell_worker();
ok(fence_is_on($node), 'the fence is on again');
is(fill($redis, 'item:1', $snapshot, $value), '0', 'the late fill is refused');
is(fill($redis, 'item:2', $other_snapshot, $other_value), '0',
	'that of a key without a writer, too');
ok(becomes_cacheable($redis, $node, $_), 'cacheable again') foreach 1, 2;
is(fill($redis, 'item:1', $snapshot, $value), '0', 'which does not help the late fill');

# --- the replica has the value and the record, but has not heard of the delete ---

follow();
ok(becomes_cacheable($redis, $node, 3), 'a value');
$token = miss($redis, 'item:4');
($value, $snapshot) = look($reader, $token, 4);
ok(is_replicated(), 'the replica has the value, and the record of a miss');
cut();
change($_) foreach 3, 4;
ok(delivered($node), 'deletes that the master has acknowledged');
isnt($redis->cli('get', 'uncache:{item:4}'), '', 'and has noted in the record');
$server{$master}->kill9;
promote();
ok($redis->has('item:3'), 'the new master has the old value');
like($redis->cli('get', 'uncache:{item:4}'), qr/:::$/, 'and a record that knows no writer');
is(fill($redis, 'item:4', $snapshot, $value), '0',
	'before the worker comes: the late fill is refused');
tell_worker();
ok(gone($redis, 'item:3'), 'the worker deletes the old value again');
ok(fence_is_on($node), 'the fence is on again');
is(fill($redis, 'item:4', $snapshot, $value), '0',
	'the late fill is refused, although the record has come along');
ok(becomes_cacheable($redis, $node, $_), 'cacheable again') foreach 3, 4;
is(fill($redis, 'item:4', $snapshot, $value), '0', 'which does not help the late fill');

# --- a master that was a replica for a while, and still has its locals ---

$server{$replica}->start;
follow();
$token = miss($redis, 'item:5');
($value, $snapshot) = look($reader, $token, 5);
($other_value, $other_snapshot) = look($reader, miss($redis, 'item:6'), 6);
ok(is_replicated(), 'the replica has the records');
promote();
tell_worker();
ok(fence_is_on($node), 'the fence is on at the new master');
follow();
cut();
change(5);
promote();
tell_worker();
ok(fence_is_on($node), 'the fence is on again');
is(fill($redis, 'item:5', $snapshot, $value), '0', 'the late fill is refused');
is(fill($redis, 'item:6', $other_snapshot, $other_value), '0',
	'all tokens of its former reign are void');
ok(becomes_cacheable($redis, $node, $_), 'cacheable again') foreach 5, 6;

$reader->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
