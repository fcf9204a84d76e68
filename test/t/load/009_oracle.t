# 100 clients with savepoints and random rollbacks leave Redis with exactly the
# keys that no committed transaction touched.
#
# The oracle is the table "touched": every change notes, in the same
# (sub)transaction and by plain SQL, which keys it should delete.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $rows = 40000;
my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'max_connections = 130', 'deadlock_timeout = 20ms');

$node->safe_psql('postgres', qq{
	CREATE TABLE item (id int PRIMARY KEY, name int, n int);
	INSERT INTO item SELECT i, i, 0 FROM generate_series(1, $rows) i;
	CREATE TABLE touched (key text);
	CREATE FUNCTION change(i int, how int) RETURNS void LANGUAGE plpgsql AS \$\$
	DECLARE
		was int;
	BEGIN
		IF how = 0 THEN
			DELETE FROM item WHERE id = i RETURNING name INTO was;
			INSERT INTO touched SELECT 'item:' || was WHERE was IS NOT NULL;
		ELSIF how = 1 THEN
			SELECT name INTO was FROM item WHERE id = i FOR UPDATE;
			UPDATE item SET name = name + 1000000 WHERE id = i;
			INSERT INTO touched SELECT 'item:' || was WHERE was IS NOT NULL;
			INSERT INTO touched SELECT 'item:' || was + 1000000 WHERE was IS NOT NULL;
		ELSE
			UPDATE item SET n = n + 1 WHERE id = i RETURNING name INTO was;
			INSERT INTO touched SELECT 'item:' || was WHERE was IS NOT NULL;
		END IF;
		IF how = 2 THEN
			RAISE EXCEPTION 'this one fails';
		END IF;
	END \$\$;
	CREATE FUNCTION change_and_catch(i int, how int) RETURNS void LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM change(i, how);
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END \$\$;
	SELECT uncache.attach('item', 'item:{name}')});
ok(delivered($node), 'the worker is up to date');
$redis->fill_range('item:', 1, $rows);
$redis->fill_range('item:', 1000001, 1000000 + $rows);
is($redis->cli('dbsize'), 2 * $rows, 'Redis is full of keys');

my $script = $node->basedir . '/oracle.sql';
append_to_file($script, qq{
\\set a random(1, $rows)
\\set b random(1, $rows)
\\set c random(1, $rows)
\\set how random(0, 9)
\\set inner random(0, 2)
\\set end random(0, 3)
BEGIN;
SELECT change_and_catch(:a, :how);
SAVEPOINT s1;
SELECT change_and_catch(:b, :how);
SAVEPOINT s2;
SELECT change_and_catch(:c, 9 - :how);
\\if :inner = 0
ROLLBACK TO s2;
\\elif :inner = 1
ROLLBACK TO s1;
SELECT change_and_catch(:c, 5);
\\else
RELEASE s1;
\\endif
\\if :end = 0
ROLLBACK;
\\else
COMMIT;
\\endif
});
my ($out, $err);
my $ran = IPC::Run::run([ 'pgbench', '-n', '-c', 100, '-j', 2, '-t', 60,
	'--max-tries', 100, '-f', $script,
		'-p', $node->port, '-h', $node->host, 'postgres' ], '>', \$out, '2>', \$err);
ok($ran, '100 clients have run') or diag $err;
like($out, qr{number of transactions actually processed: 6000/6000}, 'all their transactions');
ok(delivered($node), 'everything is delivered');

my %touched = map { $_ => 1 } split /\n/,
	$node->safe_psql('postgres', 'SELECT DISTINCT key FROM touched');
cmp_ok(scalar keys %touched, '>', 5000, 'thousands of keys were touched');
my %left = map { $_ => 1 } split /\n/, $redis->cli('keys', '*');
my @early = grep { !$left{$_}
	&& !$touched{$_} } map { ("item:$_", 'item:' . ($_ + 1000000)) } 1 .. $rows;
my @stale = grep { $left{$_} } keys %touched;
is(scalar @stale, 0, 'no key that a committed transaction touched is left')
	or diag "@stale[0 .. 9]";
is(scalar @early, 0, 'no other key was deleted') or diag "@early[0 .. 9]";

$node->stop;
done_testing();
