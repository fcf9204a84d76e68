# uncache.discard_backlog() forgets what was there when it was called, for who waits
# for it: not what comes after a caller has given up, nor what another database has.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;
use Workers;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.max_database_workers = 2');
ok(wait_for_worker($node, 'postgres'), 'a database with a worker');

sub commit
{
	my ($database, $key) = @_;

	$redis->fill($key);
	$node->safe_psql($database,
		"SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('$key')");
	return;
}

is($node->safe_psql('postgres', 'SELECT uncache.discard_backlog()'), '0',
	'there is nothing to be discarded');

# --- a caller that gives up ---

my $worker = worker_of($node, 'postgres');
kill 'STOP', $worker;
ok(is_stopped($worker), 'its worker is busy for long');
my ($status, undef, $err) = $node->psql('postgres',
	q{SET statement_timeout = '300ms'; SELECT uncache.discard_backlog()});
like($err, qr/statement timeout/, 'who wanted to discard the backlog has given up');
commit('postgres', 'after');
kill 'CONT', $worker;
ok(delivered($node), 'the worker goes on');
ok(!$redis->has('after'), 'what was committed after that is delivered');

# --- another database in the place of the one that was asked ---

my $offset = -s $node->logfile;

$node->safe_psql('postgres', 'CREATE DATABASE first');
$node->safe_psql('first', 'CREATE EXTENSION pg_uncache');
ok($worker = wait_for_worker($node, 'first'), 'a second database has the other worker');
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION pg_uncache');
commit('second', 'of the second');
kill 'STOP', $worker;
ok(is_stopped($worker), 'its worker is busy for long');
my $caller = start_psql($node, 'SELECT uncache.discard_backlog()', 'first');
ok($node->poll_query_until('postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE datname = 'first' AND query LIKE '%discard%' AND wait_event_type = 'Extension'}),
		'a caller waits for it');
my $next = start_psql($node, 'SELECT uncache.discard_backlog()', 'first');
ok($node->poll_query_until('postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE datname = 'first' AND query LIKE '%discard%' AND wait_event_type = 'Lock'}),
		'and another one for that caller');
$node->safe_psql('postgres', 'ALTER DATABASE first IS_TEMPLATE true');
kill 'CONT', $worker;
ok(wait_for_worker($node, 'second'), 'that database is served no more, and a third one is');
ok(gone($redis, 'of the second') && delivered($node, 'second'), 'whose backlog is delivered');
isnt($caller->finish, 0, 'the caller is told');
like($caller->err, qr/has not discarded/, 'that it was not done');
isnt($next->finish, 0, 'and so is the one behind it,');
like($next->err, qr/has not discarded/, 'which has not asked the worker of the third database');
unlike(slurp_file($node->logfile, $offset), qr/backlog of \d+ transactions? discarded/,
	'nothing of it was discarded');

$node->stop;
done_testing();
