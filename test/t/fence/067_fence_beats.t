# Beats: the right server makes them, and they commit after they were announced; and
# epochs come after what the node is owed.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_fenced_node('main', $redis, 'autovacuum = off', 'uncache.command_timeout = 60s');
my $reader = $node->background_psql('postgres');
my ($value, $snapshot, $token);

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub next_xid
{
	return $_[0]->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
}

# --- two servers with one Redis: who is asked for a beat makes it ---

my $second = new_node('second', $redis, "uncache.fence_ttl = '5min'", 'autovacuum = off');
$second->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v int);
	INSERT INTO item SELECT i, 1 FROM generate_series(1, 9) i;
	SELECT uncache.attach('item', 'second:item:{id}')});
ok(fence_is_on($_), 'the fence is on') foreach $second, $node;
my $session = $second->background_psql('postgres');
my $xid = next_xid($node);
foreach my $id (1 .. 5)
{
	my $tries = 0;

	ok(poll_until(sub {
		$tries++;
		my $of_token = miss($redis, "second:item:$id");
		$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
		($value, $snapshot) = look($session, $of_token, $id);
		$session->query_safe('COMMIT');
		return fill($redis, "second:item:$id", $snapshot, $value);
	}), "key $id of the second server is stored after a beat");
	cmp_ok($tries, '>', 1, 'not before');
}
is(next_xid($node), $xid, 'the first server has made none');
$session->quit;
$second->stop;

# --- a beat commits after its announcement was answered ---
#
# The worker of this database speaks to Redis through the proxy, that of the other
# does not.  While the announcement is on its way the beat must look uncommitted: a
# snapshot that saw it, and not what the other database delivers meanwhile, would
# pass for one that saw everything.

sql('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION pg_uncache');
ok($node->poll_query_until('other', q{SELECT fence = 'on' FROM uncache.stat}), 'another database');
sql("ALTER DATABASE other SET uncache.fence_ttl = 0");	# so that it makes no beats
$node->safe_psql('other', 'SELECT pg_terminate_backend(worker_pid) FROM uncache.stat');
set_conf($node, 'uncache.redis_url', $proxy->url);
sql(q{ALTER DATABASE other SET uncache.redis_url = '} . $redis->url . q{'});
$node->restart;
$reader = $node->background_psql('postgres');
ok(fence_is_on($node), 'the fence is on');
ok(wait_for_state($node, 'connected', 'other'), 'the other database is served');
is($node->safe_psql('other', 'SELECT redis FROM uncache.stat'), $redis->url, 'directly');

$proxy->hold_word('uncache_beat');
my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
is(read_item($redis, $old, 1), '0', 'a fill that asks for a beat');
$old->query_safe('COMMIT');
ok(poll_until(sub { $proxy->held }), 'its announcement is on the way');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$node->safe_psql('other', q{SELECT uncache.invalidate_keys('item:1')});
ok($node->safe_psql('other', q{SELECT uncache.wait('60 s')}) eq 't',
	'what commits now is delivered');
$redis->cli('del', 'uncache:{item:1}');
$token = miss($redis, 'item:1');
my $beats = (split /:/, $redis->cli('get', 'uncache:{item:1}'))[2];
$proxy->behave;
ok(poll_until(sub {
	# The confirmation follows the announcement; let a fill that waits for it say so.
	my $probe = miss($redis, 'item:2');
	my ($of_probe, $its_snapshot) = look($reader, $probe, 2);
	$its_snapshot =~ s/:1:/:0:/;
	return fill($redis, 'item:2', $its_snapshot, $of_probe)
		|| fence_stat($node, 'beats') > $beats + 1;
}), 'the beat is announced and confirmed');
($value, $snapshot) = look($old, $token, 1);
is(fill($redis, 'item:1', $snapshot, $value), '0',
	'who has not seen what was delivered before the announcement is refused');
$old->query_safe('COMMIT');
$old->quit;

# --- an epoch is set when all that the node is owed was delivered ---

change_and_forget();
ok(fence_is_on($node), 'the fence is on');

sub change_and_forget
{
	sql('UPDATE item SET v = v + 1 WHERE id = 3');
	ok(delivered($node), 'a delivery');
	put($redis, 3, 'as if it had been forgotten');
	$proxy->hold_word('uncache_invalidate');
	$redis->cli('function', 'flush');
	ok(poll_until(sub { $proxy->held }), 'a node without an epoch: it is delivered again');
	my $tokens = 0;
	my $until = time + 4;
	while (time < $until) { $tokens++
		if miss($redis, 'item:4') ne ''; select undef, undef, undef, 0.1 }
	is($tokens, 0, 'as long as it is under way no token is given');
	ok($redis->has('item:3'), 'and the old value is there');
	$proxy->behave;
	ok(poll_until(sub { (eval { miss($redis, 'item:4') } // '') ne '' }), 'then there is an epoch');
	ok(!$redis->has('item:3'), 'and the old value is not');
	return;
}

$reader->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
