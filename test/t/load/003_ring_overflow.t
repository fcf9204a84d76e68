# With a ring that holds next to nothing everything is delivered all the same,
# from the outbox, and commits that wait are answered.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.ring_size = 1kB');

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 20000) i;
	SELECT uncache.attach('item', 'item:{id}:and-a-name-that-takes-some-room-in-the-ring')});
ok(delivered($node), 'the worker is up to date');

$redis->cli('eval', 'for i = 1, 20000 do
	redis.call("set", "item:" .. i .. ":and-a-name-that-takes-some-room-in-the-ring", 1) end', 0);
is($redis->cli('dbsize'), '20000', 'Redis is full of keys');

my $script = $node->basedir . '/overflow.sql';
append_to_file($script, q{
\set first random(1, 10000)
UPDATE item SET n = n + 1 WHERE id BETWEEN :first AND :first + 3;
});
foreach my $consistency ('eventual', 'read_your_writes')
{
	local $ENV{PGOPTIONS} = "-c uncache.consistency=$consistency";
	my ($out, $err);

	ok(IPC::Run::run([ 'pgbench', '-n', '-c', 16, '-t', 50, '-f', $script, '-p', $node->port,
				'-h', $node->host, 'postgres' ], '>', \$out, '2>', \$err),
					"pgbench with $consistency");
	unlike($err, qr/WARNING/, 'no commit waited in vain');
}
# One transaction that is larger than the ring by far.
$node->safe_psql('postgres', 'UPDATE item SET n = n + 1 WHERE id > 15000');

ok(delivered($node), 'everything is delivered');
my $touched = $node->safe_psql('postgres', 'SELECT count(*) FROM item WHERE n > 0');
is($redis->cli('dbsize'), 20000 - $touched,
	'and exactly the keys of the rows that changed are gone');
cmp_ok($node->safe_psql('postgres', 'SELECT ring_overflows FROM uncache.stat'), '>', 0,
	'the ring did overflow');

$node->stop;
done_testing();
