# Redis is killed, hung, or comes back empty: commits go on, nobody waits more
# than once, the log is not flooded, and afterwards everything is delivered.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use RedisServer;
use Uncache;

my $redis = RedisServer->new_durable;
$redis->start;
my $node = new_node('main', $redis, 'uncache.wait_timeout = 1s', 'uncache.command_timeout = 3s');

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 1000) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(wait_for_state($node, 'connected'), 'the worker is connected');
ok(delivered($node), 'and up to date');

# One session, 50 commits: how long they take, and how many warnings it gets.
sub commits
{
	my ($first) = @_;
	my $sql = join '', map { "UPDATE item SET n = n + 1 WHERE id = $_;\n" } $first .. $first + 49;
	my $started = time;
	my ($status, $out, $warnings) = $node->psql('postgres', $sql);
	my $taken = time - $started;
	my $count = () = $warnings =~ /WARNING/g;

	is($status, 0, 'the commits succeed');
	return ($taken, $count, $warnings);
}

# All is well: each wakes the worker and gets its answer, long before the worker
# looks by itself, which it does once a second.
{
	local $ENV{PGOPTIONS} = '-c uncache.wait_timeout=30s';
	my $waits = $node->safe_psql('postgres', 'SELECT waits FROM uncache.stat');
	my ($taken, $warnings) = commits(1);

	is($warnings, 0, 'Redis is there: 50 commits wait in vain for nothing');
	cmp_ok($taken, '<', 20, 'nor for the worker to look by itself');
	is($node->safe_psql('postgres', 'SELECT waits FROM uncache.stat') - $waits,
		50, 'each has waited');
}

# Killed: the worker sees its connection end, so that hardly anybody waits.
$redis->fill(map { "item:$_" } 1 .. 1000);
my $log_from = -s $node->logfile;
$redis->kill9;
my ($taken, $warnings) = commits(1);
cmp_ok($taken, '<', 4, 'Redis killed: 50 commits wait for one timeout at most');
cmp_ok($warnings, '<=', 1, 'with at most one warning');
ok($node->poll_query_until('postgres', "SELECT state = 'down' FROM uncache.stat"),
	'the state is down');
isnt($node->safe_psql('postgres', 'SELECT last_error FROM uncache.stat'), '', 'with the reason');
is($node->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog'), '50',
	'the backlog has the 50 transactions');

$redis->start;
ok(gone($redis, "item:50"), 'Redis is back: the keys go');
ok(delivered($node), 'all of them');
is($redis->cli('dbsize'), '950', 'and no other');
ok(outbox_is_empty($node), 'the backlog is empty');

my $log = slurp_file($node->logfile, $log_from);
my @lines = grep { /pg_uncache|uncache worker|Redis/i && !/STATEMENT|ERROR|statement:/ } split /\n/,
	$log;
cmp_ok(scalar @lines, '<=', 8, 'a few lines in the server log for the whole outage')
	or diag join "\n", @lines;
like($log, qr/LOG: .*Redis/, 'but some');

# Hung: the connection stays, so one wait is in vain, and says so.
$redis->freeze;
($taken, $warnings, my $text) = commits(101);
cmp_ok($taken, '>', 0.9, 'Redis hung: the first commit waits');
cmp_ok($taken, '<', 4, 'the others do not');
is($warnings, 1, 'there is one warning');
like($text, qr/committed/, 'that says that the data is committed');
$redis->thaw;
ok(gone($redis, 'item:150'), 'Redis answers again: the keys go');
ok(delivered($node), 'all of them');
is($redis->cli('dbsize'), '900', 'and no other');

# Once it answers, commits wait again: the key is gone when COMMIT returns.
ok(poll_until(sub {
	$redis->fill('item:900');
	$node->safe_psql('postgres', 'UPDATE item SET n = n + 1 WHERE id = 900');
	return !$redis->has('item:900');
}), 'commits wait for delivery again');

# Empty: nothing to delete, and nothing to complain about.
$redis->cli('flushall');
$node->safe_psql('postgres', 'UPDATE item SET n = n + 1');
ok(delivered($node), 'an empty Redis is as good as any');
is($node->safe_psql('postgres', 'SELECT sum(n) >= 1101 FROM item'), 't',
	'every commit had succeeded');

$node->stop;
done_testing();
