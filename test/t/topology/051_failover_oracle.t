# Failovers of all kinds under load: nothing that a committed transaction touched
# is left in the master of the end, and nothing else is gone from it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use Load;
use RedisSentinel;
use Uncache;

my $rows = 20000;
my $redis = RedisSentinel->new(replicas => 1);
my $master = $redis->master_port;
my $node = new_node('main', $redis, 'uncache.command_timeout = 500ms',
	'uncache.wait_timeout = 100ms');

sub sql { return $node->safe_psql('postgres', @_) }

sub is_at
{
	my ($port) = @_;

	return $node->poll_query_until('postgres',
		"SELECT state = 'connected' AND redis LIKE '%:$port/0' FROM uncache.stat");
}

my $load = Load->new($node, $rows);
ok(is_at($master), 'the worker is connected');
ok(delivered($node), 'and up to date');
$redis->server($master)->fill_range('item:', 1, $rows);
$redis->wait_for_replica(grep { $_ ne $master } $redis->ports);

$load->start;
$load->go_on('at first');
foreach my $round (1, 2)
{
	my $old = $master;

	$redis->fail_over(($redis->sentinels)[0]);
	$load->go_on("failover $round");
	$master = $redis->wait_for_other_master($old);
	ok(is_at($master), "failover $round: followed");
	$redis->wait_for_replica($old);
	$load->go_on("after failover $round");

	# What the master has taken last never reaches the replica: not even what was on
	# its way, since the link is cut.
	$redis->server($old)->freeze;
	$redis->server($master)->cli(qw(client kill type replica));
	$load->go_on("replica stopped $round");
	$redis->server($master)->kill9;
	$redis->server($old)->thaw;
	$load->go_on("master killed $round");
	my $killed = $master;
	$master = $redis->wait_for_other_master($killed);
	ok(is_at($master), "master killed $round: followed");
	$redis->server($killed)->start;
	$redis->wait_for_replica($killed);
	$load->go_on("after the kill $round");
}
$load->end;
ok(is_at($master), 'the worker is connected');
ok(delivered($node), 'everything is delivered');

$load->check([ $redis->server($master)->keys ], 1000);

$node->stop;
done_testing();
