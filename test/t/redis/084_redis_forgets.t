# Redis comes back with an image from before a delete: within redeliver_window
# that heals by itself; an older image is healed by uncache.invalidate_table().

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;	# no saving but on request
$redis->start;
my $node = new_node('main', $redis);

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 3) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'the worker is up to date');

# Delete a key, then let Redis be killed and forget that.
sub forget
{
	my ($id, $meanwhile) = @_;

	$redis->fill("item:$id", 'other');
	is($redis->cli('save'), 'OK', 'Redis saves an image');
	$node->safe_psql('postgres', "UPDATE item SET n = n + 1 WHERE id = $id");
	ok(!$redis->has("item:$id"), 'a key is deleted after that');
	$meanwhile->() if $meanwhile;
	$redis->kill9;
	$redis->start;
	return;
}

forget(1);
ok(gone($redis, 'item:1'), 'the image comes back: the key is deleted again');
ok(delivered($node), 'everything is delivered');
ok($redis->has('other'), 'and another key is there');

$node->safe_psql('postgres', q{ALTER SYSTEM SET uncache.redeliver_window = '1s'});
$node->reload;
forget(2, sub {
	ok($node->poll_query_until('postgres', 'SELECT outbox_bytes = 0 FROM uncache.stat'),
		'an image from before redeliver_window: the outbox is emptied');
});
ok($node->poll_query_until('postgres',
	q{SELECT state = 'connected' AND reconnects >= 2 FROM uncache.stat}), 'the image is back');
ok(delivered($node), 'all that the outbox holds is delivered');
ok($redis->has('item:2'), 'so nobody knows of the key');
$node->safe_psql('postgres', q{SELECT uncache.invalidate_table('item')});
ok(gone($redis, 'item:2'), 'uncache.invalidate_table() deletes it');
ok($redis->has('other'), 'and no other');

$node->stop;
done_testing();
