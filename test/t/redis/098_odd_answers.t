# Answers that are late, or that no Redis of today gives: the worker goes on delivering, keeps its
# link, and does not take one answer for another.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Faults;
use Fence;
use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', $proxy, "uncache.wait_timeout = '0'", "uncache.connect_timeout = '60s'",
	"uncache.command_timeout = '60s'", 'uncache.delivery = off');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { my ($column) = @_; return sql("SELECT $column FROM uncache.stat") }

# Connect with these settings.
sub connect_with
{
	my (%settings) = @_;

	sql("ALTER SYSTEM SET uncache.$_ = '$settings{$_}'") foreach keys %settings;
	sql('ALTER SYSTEM SET uncache.delivery = off');
	$node->reload;
	ok(wait_for_state($node, 'paused'), 'paused');
	sql('ALTER SYSTEM SET uncache.delivery = on');
	sql('SELECT uncache.stat_reset()');
	$node->reload;
	return;
}

# Whether a key is deleted.
sub delivers
{
	my ($server, $key) = @_;

	$server->fill($key);
	sql("SELECT uncache.invalidate_keys('$key')");
	return gone($server, $key);
}

# Seconds of processor time that the worker has taken.
sub worker_seconds
{
	my (undef, @fields) = split /\) /, slurp_file('/proc/' . worker_pid($node) . '/stat');
	my @words = split / /, $fields[0];

	return ($words[11] + $words[12]) / 100;
}

# Whether the worker waits for an answer without spinning.
sub is_idle
{
	my ($name) = @_;
	my $before = worker_seconds();

	sleep 3;
	cmp_ok(worker_seconds() - $before, '<', 0.5, "the worker is idle $name");
	return;
}

# Pings go out before it is known what to ask with them.
$proxy->delay(800);
connect_with(fence_ttl => '5min');
ok(fence_is_on($node), 'far away: the fence comes on');
sleep 4;
is(stat_of('fence, last_error'), 'on|', 'the answer to a ping is not taken for another');
$proxy->behave;
ok(delivers($redis, 'far'), 'and keys are deleted');

# A transaction that was to be fenced is rolled back, while Redis does not answer.
sql('CREATE TABLE item (id int PRIMARY KEY, v int)');
sql(q{SELECT uncache.attach('item', 'item:{id}')});
$proxy->hold_word('uncache_invalidate');
my (undef, undef, $error) = $node->psql('postgres',
	q{SET uncache.wait_timeout = '300ms'; SET uncache.consistency = 'strict';
		INSERT INTO item VALUES (1, 1)});
like($error, qr/could not be fenced/, 'strict: Redis does not answer');
is($proxy->held, 1, 'the fence is under way');
sleep 1.5;
is_idle('with a doubt to be released');
$proxy->hold_word('');
ok(delivers($redis, 'strict'), 'then the worker goes on');

# What is not known by name is no reason not to deliver.
$proxy->error_for('FCALL', 'WEIRD no such thing');
connect_with(fence_ttl => 0);
ok(delivers($redis, 'weird'), 'functions refused for an unknown reason: keys are deleted');
$proxy->behave;

# It is connected, but not known yet by which command to delete.
$proxy->hold_word('uncache_status');
connect_with(fence_ttl => 0);
ok(poll_until(sub { $proxy->held > 0 }), 'the first question is under way');
ok(wait_for_state($node, 'connected'), 'connected');
$redis->fill('held');
sql(q{SELECT uncache.invalidate_keys('held')});
is_idle('before it is known how to delete');
$proxy->hold_word('');
ok(gone($redis, 'held'), 'then the key is deleted');

# Functions that could not be loaded are loaded when that is possible again.
$redis->cli(qw(function flush));
$redis->cli(qw(config set maxmemory-policy noeviction));
$redis->fill('oom');
$redis->cli(qw(config set maxmemory 1));
connect_with(fence_ttl => '5min');
ok($node->poll_query_until('postgres', q{SELECT fence = 'not possible' FROM uncache.stat}),
	'out of memory: no functions');
sql(q{SELECT uncache.invalidate_keys('oom')});
ok(gone($redis, 'oom'), 'keys are deleted all the same');
$redis->cli(qw(config set maxmemory 0));
ok(fence_is_on($node), 'with memory the fence comes on by itself');

# A server without functions that does not say so by its version.
my $old = RedisServer->new('--rename-command', 'FCALL', '', '--rename-command', 'FUNCTION', '');
$old->start;
foreach my $ttl (0, '5min')
{
	connect_with(redis_url => $old->url, fence_ttl => $ttl);
	ok(delivers($old, 'old'), "without functions, fence_ttl $ttl: keys are deleted");
	my $reconnects = stat_of('reconnects');
	my $pings = $old->pings;
	ok(poll_until(sub { $old->pings >= $pings + 3 }), 'pings go on');
	is(stat_of('state, reconnects'), "connected|$reconnects", 'and the connection stays');
}

$node->stop;
done_testing();
