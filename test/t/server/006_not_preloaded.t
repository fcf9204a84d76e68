# A server that was started without the library in shared_preload_libraries:
# writes go on, what they owe is kept, and whoever asks is told why.

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

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item VALUES (1, 0), (2, 0), (3, 0);
	SELECT uncache.attach('item', 'item:{id}');
	CREATE DATABASE other});
ok(delivered($node), 'the worker is up to date');
$redis->fill('item:1', 'item:2', 'item:3');

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->restart;

my ($status, $out, $err) = $node->psql('postgres', q{
	UPDATE item SET n = 1 WHERE id = 1;
	UPDATE item SET n = 1 WHERE id = 2});
is($status, 0, 'writes go on');
my $warnings = () = $err =~ /WARNING/g;
is($warnings, 1, 'with one warning a session');
like($err, qr/shared_preload_libraries/, 'that says what is missing');

foreach my $statement (q{SELECT uncache.attach('item', 'item:{id}')}, 'SELECT uncache.wait()')
{
	($status, $out, $err) = $node->psql('postgres', $statement);
	isnt($status, 0, "$statement fails");
	like($err, qr/ERROR.*shared_preload_libraries/s, 'and says why');
}
($status, $out, $err) = $node->psql('other', 'CREATE EXTENSION pg_uncache');
isnt($status, 0, 'CREATE EXTENSION fails');
like($err, qr/ERROR.*shared_preload_libraries/s, 'and says why');
is($node->safe_psql('postgres', 'SELECT state FROM uncache.stat'), 'no worker',
	'the view says that nothing is delivered');

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{'pg_uncache'});
$node->restart;
ok(gone($redis, 'item:1') && gone($redis, 'item:2'), 'preloaded again: what was owed is delivered');
ok(delivered($node), 'all of it');
ok($redis->has('item:3'), 'and nothing else');

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->restart;
# Without a worker the session itself empties the outbox, and must not make others queue.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM uncache.outbox_0');
($status, $out, $err) = $node->psql('postgres', 'SELECT uncache.discard_backlog()');
isnt($status, 0, 'discard_backlog fails beside a transaction that has read the outbox');
like($err, qr/ERROR.*could not lock the outbox/, 'and does not wait for it');
$reader->quit;
is($node->safe_psql('postgres', q{
		UPDATE item SET n = 3 WHERE id = 3;
		SELECT uncache.discard_backlog() > 0;
		SELECT count(*) FROM uncache.backlog}), "t\n0", 'then it works without a worker');
is($node->safe_psql('postgres', q{
		UPDATE item SET n = 4 WHERE id = 3;
		SELECT uncache.invalidate_keys(VARIADIC array_agg('a long key of many:' || i))
			FROM generate_series(1, 5000) i;
		SELECT count(*) > 10 FROM uncache.outbox_0;
		SELECT uncache.discard_backlog()}), "5000\nt\n2", 'and counts transactions, not rows');

$node->stop;
done_testing();
