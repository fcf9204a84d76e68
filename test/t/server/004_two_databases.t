# Two databases of one server, each with its own Redis; and one that has no
# extension.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis_one = RedisServer->new;
my $redis_two = RedisServer->new;
$_->start foreach $redis_one, $redis_two;
my $node = new_node('main', $redis_one);

$node->safe_psql('postgres', 'CREATE DATABASE two');
$node->safe_psql('postgres', 'CREATE DATABASE without');
$node->safe_psql('postgres',
	q{ALTER DATABASE two SET uncache.redis_url = '} . $redis_two->url(3) . q{'});
$node->safe_psql('postgres', q{ALTER DATABASE two SET uncache.key_prefix = 'two:'});
$node->safe_psql('two', 'CREATE EXTENSION pg_uncache');
foreach my $database ('postgres', 'two')
{
	$node->safe_psql($database, q{
		CREATE TABLE item (id int PRIMARY KEY, n int);
		INSERT INTO item VALUES (1, 0), (2, 0);
		SELECT uncache.attach('item', 'item:{id}')});
	ok(wait_for_state($node, 'connected', $database), "the worker of $database is connected");
	ok(delivered($node, $database), 'and up to date');
}

sub fill_both
{
	$redis_one->cli('mset', 'item:1', 1, 'two:item:1', 1);
	$redis_two->cli('-n', 3, 'mset', 'item:1', 1, 'two:item:1', 1);
	return;
}

sub left
{
	return join ' ', 'one:', $redis_one->keys, 'two:', sort split /\n/,
		$redis_two->cli('-n', 3, 'keys', '*');
}

fill_both();
$node->safe_psql('two', 'UPDATE item SET n = n + 1 WHERE id = 1');
ok(delivered($node, 'two'), 'a change in the database two is delivered');
is(left(), 'one: item:1 two:item:1 two: item:1', 'to its Redis, with its prefix');

fill_both();
$node->safe_psql('postgres', 'UPDATE item SET n = n + 1 WHERE id = 1');
ok(delivered($node), 'a change in the first database is delivered');
is(left(), 'one: two:item:1 two: item:1 two:item:1', 'to the other one');

# One Redis being away does not hold up the other database.
fill_both();
$redis_two->kill9;
$node->safe_psql('two', 'SET uncache.wait_timeout = 0; UPDATE item SET n = n + 1 WHERE id = 1');
$node->safe_psql('postgres', 'UPDATE item SET n = n + 1 WHERE id = 1');
ok(!$redis_one->has('item:1'),
	'the first database does not mind that the Redis of the second is down');
ok(wait_for_state($node, 'down', 'two'), 'which the second one knows');

is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE datname IN ('postgres', 'two') AND backend_type LIKE '%uncache%'}), '2',
		'there is a worker for each of the two');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE datname = 'without' AND backend_type LIKE '%uncache%'}), '0',
		'and none where the extension is not');

$node->stop;
done_testing();
