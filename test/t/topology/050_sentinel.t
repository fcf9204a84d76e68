# Sentinel: the master is found, followed through failovers of all kinds, and
# nothing goes to one that was demoted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisSentinel;
use RedisServer;
use Uncache;

my $redis = RedisSentinel->new(replicas => 1);
my $master = $redis->master_port;
my $node = new_node('main', $redis, 'uncache.command_timeout = 500ms');

sub sql { return $node->safe_psql('postgres', @_) }

sub is_at
{
	my ($port, $db) = @_;

	$db //= 0;
	return $node->poll_query_until('postgres',
		"SELECT state = 'connected' AND redis = 'redis://127.0.0.1:$port/$db' FROM uncache.stat");
}

my $keys = 0;

sub deletes
{
	my ($name, $port) = @_;
	my $key = 'key' . ++$keys;

	$redis->server($port)->fill($key);
	sql("SELECT uncache.invalidate_keys('$key')");
	ok(gone($redis->server($port), $key), "$name: keys are deleted");
	return;
}

ok(is_at($master), 'the master is found');
deletes('at first', $master);

# The worker asks one Sentinel after the other, and is at rest otherwise.
my $pid = sql('SELECT worker_pid FROM uncache.stat');
sub cpu { my @stat = split / /, slurp_file("/proc/$pid/stat"); return $stat[13] + $stat[14] }
my $before = cpu();
my %asked;
ok(poll_until(sub {
	foreach my $sentinel ($redis->sentinels)
	{
		$asked{$sentinel} = 1
			if $sentinel->cli(qw(client list)) =~ /name=pg_uncache .*cmd=sentinel/;
	}
	return keys %asked >= 2;
}), 'the Sentinels are asked again, in turn');
cmp_ok(cpu() - $before, '<', 60, 'without a busy loop');
my ($sentinel) = $redis->sentinels;

# A failover in good order: the old master lives on as a replica.
$redis->fail_over($sentinel);
my $old = $master;
$master = $redis->wait_for_other_master($old);
ok(is_at($master), 'a failover is followed');
$redis->wait_for_replica($old);
deletes('after it', $master);

# A master that is gone; meanwhile commits go on.
$redis->server($master)->kill9;
sql(q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('meanwhile')});
$old = $master;
$master = $redis->wait_for_other_master($old);
ok(is_at($master), 'a killed master is left');
ok(delivered($node), 'what was committed meanwhile is delivered');
deletes('after that', $master);
$redis->server($old)->start;
$redis->wait_for_replica($old);
deletes('with the old one back as a replica', $master);
ok(is_at($master), 'the worker stays where it is');

# A master that hangs, and wakes up believing that it is one.
$redis->server($master)->freeze;
$old = $master;
$master = $redis->wait_for_other_master($old);
ok(is_at($master), 'a hung master is left');
$redis->server($old)->thaw;
deletes('with the old one awake', $master);
$redis->wait_for_replica($old);
ok(is_at($master), 'the worker stays where it is');

# A Sentinel that was away during a failover names the master of before.
{
	my ($behind, @others) = $redis->sentinels;

	$behind->kill9;
	my $old = $master;
	$redis->fail_over($others[0]);
	foreach my $sentinel (@others)
	{
		ok(poll_until(sub {
			my (undef, $port) = split /\n/,
				$sentinel->cli('sentinel', 'get-master-addr-by-name', $redis->name);

			$master = $port;
			return $port ne $old;
		}), 'a failover without one of the Sentinels');
	}
	ok(is_at($master), 'is followed');
	$redis->wait_for_replica($old);
	my $reconnects = sql('SELECT reconnects FROM uncache.stat');

	$_->freeze foreach @others;
	$behind->start;
	# Whoever connects to it now is the worker, or this test.
	my $connections = $behind->info('stats', 'total_connections_received');
	my $own = 0;
	ok(poll_until(sub { $behind->info('stats',
		'total_connections_received') - $connections > ++$own }),
		'the one that was away is asked');
	my $asked = () = $behind->cli(qw(sentinel get-master-addr-by-name), $redis->name) =~ /\n$old$/;
	is($asked, 1, 'it names the old master');
	my $pings = $redis->server($master)->pings;
	ok(poll_until(sub { $redis->server($master)->pings > $pings + 3 }), 'time goes by');
	is(sql('SELECT reconnects, redis FROM uncache.stat'), "$reconnects|redis://127.0.0.1:$master/0",
		'and nobody listens to it');
	$_->thaw foreach @others;
	is($redis->wait_for_other_master($old), $master, 'the Sentinels agree again');
}

# Sentinels come and go: of no interest while the master is there.
$_->freeze foreach $redis->sentinels;
deletes('without Sentinels', $master);
$redis->server($master)->cli(qw(client kill type normal));
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat')
	=~ /Sentinel cannot be asked: .*no answer/ }),
	'without them the master is not found again, and the error says so');
$_->thaw foreach $redis->sentinels;
ok(is_at($master = $redis->wait_for_other_master('none')), 'with them it is');

# A master that was replaced and can't be told: here it was never asked to step down.
my $elsewhere = PostgreSQL::Test::Cluster::get_free_port();
my $second = RedisServer->new('--port', $elsewhere);
$second->start;
# One that still had the old master would talk the others back to it.
$_->cli('sentinel', 'remove', $redis->name) foreach $redis->sentinels;
$_->cli('sentinel', 'monitor', $redis->name, '127.0.0.1', $elsewhere, 2) foreach $redis->sentinels;
ok(is_at($elsewhere),
	'another answer of the Sentinels is followed, though the master still answers');
$second->fill('last');
sql(q{SELECT uncache.invalidate_keys('last')});
ok(gone($second, 'last'), 'and there keys are deleted');

# What can be wrong.
sub fails
{
	my ($name, $message, $url) = @_;

	sql("ALTER SYSTEM SET uncache.redis_url = '$url'");
	$node->reload;
	ok(poll_until(sub {
		sql(q{SELECT last_error FROM uncache.stat WHERE state = 'down'}) =~ $message }),
		"$name: the error says so") or diag sql('SELECT last_error FROM uncache.stat');
	return;
}

my $unused = PostgreSQL::Test::Cluster::get_free_port();
fails('no such name', qr/Sentinel at 127.0.0.1:\d+ does not know a master named "other"/,
	$redis->url =~ s/mymaster/other/r);
fails('a Redis instead', qr/Redis at 127.0.0.1:$elsewhere is not a Sentinel/,
	"redis+sentinel://127.0.0.1:$elsewhere/mymaster");
fails('nobody',
	qr/Sentinel cannot be asked: could not connect to Redis at 127.0.0.1:$unused: Connection refused/,
	"redis+sentinel://127.0.0.1:$unused/mymaster");
fails('a Sentinel as a Redis', qr/is a Sentinel, which holds no keys/,
	'redis://127.0.0.1:' . ($redis->url =~ m{//127.0.0.1:(\d+)})[0]);

# One of several is enough, and the database counts.
sql(q{ALTER SYSTEM SET uncache.redis_url = '}
	. ($redis->url('/3') =~ s{//}{//127.0.0.1:$unused,127.0.0.1:$elsewhere,}r) . q{'});
$node->reload;
ok(is_at($elsewhere, 3), 'Sentinels that are none are passed over');
$second->cli('-n', 3, 'set', 'three', 1);
sql(q{SELECT uncache.invalidate_keys('three')});
ok(poll_until(sub { $second->cli('-n', 3, 'exists', 'three') eq '0' }),
	'the database of the address is used');

# With passwords: that of the address is for the Sentinels, too.
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $locked = RedisServer->new_sentinel($port, "port $port", 'bind 127.0.0.1', 'requirepass sesame',
	"sentinel monitor locked 127.0.0.1 $elsewhere 1", 'sentinel auth-pass locked sesame');
$second->cli(qw(config set requirepass sesame));
foreach my $server ($second, $locked)
{
	$server->cli_options('--no-auth-warning', '-a', 'sesame');
}
$locked->start;
fails('no password', qr/requires a password/, "redis+sentinel://127.0.0.1:$port/locked");
sql("ALTER SYSTEM SET uncache.redis_url = 'redis+sentinel://:sesame\@127.0.0.1:$port/locked'");
$node->reload;
ok(is_at($elsewhere), 'with a password');
$second->fill('secret');
sql(q{SELECT uncache.invalidate_keys('secret')});
ok(gone($second, 'secret'), 'keys are deleted');

$node->stop;
done_testing();
