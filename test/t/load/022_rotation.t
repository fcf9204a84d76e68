# Partitions that rotate: an empty one costs nothing when it is attached or detached, one of
# few rows the keys of these, one of many a pass over Redis.  Also with CONCURRENTLY.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);

sub keys_left
{
	ok(delivered($node), 'all is delivered');
	return join ' ', sort $redis->keys('ev:*');
}

sub passes
{
	return $node->safe_psql('postgres', 'SELECT pattern_passes FROM uncache.stat');
}

$node->safe_psql('postgres', q{
	CREATE TABLE ev (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
	SELECT uncache.attach('ev', 'ev:{id}');
	CREATE TABLE ev_1 PARTITION OF ev FOR VALUES IN (1);
	CREATE TABLE ev_2 PARTITION OF ev FOR VALUES IN (2);
	CREATE TABLE ev_3 PARTITION OF ev FOR VALUES IN (3);
	INSERT INTO ev VALUES (1, 1), (2, 1), (3, 2);
	INSERT INTO ev SELECT g, 3 FROM generate_series(1, 5000) g});
ok(delivered($node), 'the worker is up to date');

# Every night: a new one, and the oldest goes.
$redis->fill(map { "ev:$_" } 1 .. 5);
my $before = passes();
$node->safe_psql('postgres', q{
	CREATE TABLE ev_4 (LIKE ev INCLUDING ALL);
	ALTER TABLE ev ATTACH PARTITION ev_4 FOR VALUES IN (4);
	ALTER TABLE ev DETACH PARTITION ev_4});
is(keys_left(), 'ev:1 ev:2 ev:3 ev:4 ev:5', 'an empty partition deletes nothing');
$node->safe_psql('postgres', 'ALTER TABLE ev DETACH PARTITION ev_1');
is(keys_left(), 'ev:3 ev:4 ev:5', 'one of few rows deletes their keys');
$node->safe_psql('postgres', 'ALTER TABLE ev DETACH PARTITION ev_2 CONCURRENTLY');
is(keys_left(), 'ev:4 ev:5', 'also with CONCURRENTLY');
$redis->fill('ev:1', 'ev:2');
$node->safe_psql('postgres', 'ALTER TABLE ev ATTACH PARTITION ev_1 FOR VALUES IN (1)');
is(keys_left(), 'ev:4 ev:5', 'and when it is attached');
is(passes(), $before, 'all that without looking through Redis');

# Nobody sees the rows of a writer that comes later: the lock keeps it out.
$redis->fill('ev:7');
$node->safe_psql('postgres', 'ALTER TABLE ev DETACH PARTITION ev_3');
is(keys_left(), '', 'one of many rows deletes all that the rule can give');
cmp_ok(passes(), '>', $before, '... by a pass over Redis');

# A DETACH that was interrupted is finished later.
$redis->fill('ev:1', 'ev:7');
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM ev;');
my ($rc, undef, $stderr) = $node->psql('postgres',
	"SET statement_timeout = '500ms'; ALTER TABLE ev DETACH PARTITION ev_1 CONCURRENTLY");
like($stderr, qr/statement timeout/, 'DETACH CONCURRENTLY waits for a reader');
$reader->quit;
$node->safe_psql('postgres', 'ALTER TABLE ev DETACH PARTITION ev_1 FINALIZE');
is(keys_left(), 'ev:7', 'FINALIZE deletes the keys of the rows');

# One that has a rule of its own.
$node->safe_psql('postgres', q{SELECT uncache.attach('ev_1', 'old:{id}')});
($rc, undef, $stderr) = $node->psql('postgres',
	'ALTER TABLE ev ATTACH PARTITION ev_1 FOR VALUES IN (1)');
isnt($rc, 0, 'a partition with a rule of its own cannot be attached');
like($stderr, qr/HINT: .*uncache\.detach\('ev_1'\)/, 'and the hint says what to do');

$node->stop;
done_testing();
