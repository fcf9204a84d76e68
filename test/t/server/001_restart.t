# What is committed while Redis is away outlives a shutdown and a crash of the
# server; what is not committed does not.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new_durable;
$redis->start;
my $node = new_node('main', $redis, 'uncache.wait_timeout = 100ms');

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 9) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'the rows that were inserted are delivered');

foreach my $mode ('fast', 'immediate')
{
	my $id = $mode eq 'fast' ? 1 : 2;

	$redis->fill('item:1', 'item:2', 'item:3');
	$redis->stop;
	$node->safe_psql('postgres', "UPDATE item SET n = n + 1 WHERE id = $id");

	my $open = $node->background_psql('postgres');
	$open->query_safe('BEGIN; UPDATE item SET n = n + 1 WHERE id = 3');
	$node->stop($mode);
	eval { $open->quit };
	$node->start;
	$redis->start;

	ok(gone($redis, "item:$id"), "after a $mode stop the committed change is delivered");
	ok(delivered($node), 'and everything else is');
	ok($redis->has('item:3'), 'the key of the transaction that was cut off is still there');
}

is($node->safe_psql('postgres', 'SELECT sum(n) FROM item'), '2', 'both commits had succeeded');
ok(poll_until(sub { outbox_is_empty($node) }), 'nothing is left to deliver');

$node->stop;
done_testing();
