# A step of SCAN that breaks its connection is repeated smaller, down to one key, which is
# then set aside and shown.  Nobody waits in vain meanwhile, and all other keys are deleted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', undef, "uncache.redis_url = '" . $proxy->url . "'",
	'uncache.wait_timeout = 20s',
	'uncache.command_timeout = 5s');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

# Keys that begin with PREFIX and are as long as that, numbered.
sub fill_long
{
	my ($prefix, $n, $bytes) = @_;
	my $script = q{local long = string.rep(string.rep("x", 1000), ARGV[3] / 1000)
		for i = 1, ARGV[2] do redis.call("set", ARGV[1] .. string.format("%d", i) .. long, 1) end};

	$redis->cli('eval', $script, 0, $prefix, $n, $bytes);
	return;
}

sql(q{
	CREATE TABLE users (id int PRIMARY KEY, n int);
	CREATE TABLE orgs (id int PRIMARY KEY);
	SELECT uncache.attach('users', 'user:{id}');
	SELECT uncache.attach('orgs', 'org:{id}')});
ok(wait_for_state($node, 'connected'), 'connected');
ok(is_quiet($node, $redis), 'and quiet');

# TRUNCATE both tables; while that is being delivered commit single rows, which wait.
my $reconnects = stat_of('reconnects');

sub truncate_and_commit
{
	my ($name) = @_;

	$redis->fill_range('user:', 1000000, 1002000);
	$redis->fill_range('org:', 1, 300);
	sql('TRUNCATE users; TRUNCATE orgs');
	foreach my $id (1 .. 20)
	{
		$redis->fill("user:$id");
		sql("INSERT INTO users VALUES ($id)");
		$redis->has("user:$id") and fail("$name: a commit has not waited");
	}
	return;
}

sub commits_were_answered
{
	my ($name) = @_;

	is(stat_of('wait_timeouts'), 0, "$name: no commit has waited in vain");
	is(stat_of('reconnects'), $reconnects, "$name: the connection for keys has stayed");
	return;
}

# ---------------------------------------------------------------------------
# Answers that are too large
# ---------------------------------------------------------------------------

# Of others: no rule makes them, but they match the glob.
fill_long('user:', 1000, 17_000);
fill_long('user:', 150, 200_000);
my $others = $redis->cli('dbsize');

truncate_and_commit('17 kB and 200 kB');
ok(delivered($node), 'patterns are delivered where long keys match their glob');
is($redis->cli('dbsize'), $others, 'the keys of the rules are gone, and no other');
commits_were_answered('17 kB and 200 kB');

$redis->cli('config', 'set', 'client-output-buffer-limit', 'normal 1mb 1mb 0');
truncate_and_commit('client-output-buffer-limit');
ok(delivered($node), 'patterns are delivered where Redis keeps little for a client');
is($redis->cli('dbsize'), $others, 'the keys of the rules are gone, and no other');
commits_were_answered('client-output-buffer-limit');
is(stat_of('last_error'), '', 'none of this is an error');

# ---------------------------------------------------------------------------
# One key that is too large
# ---------------------------------------------------------------------------

sub stays_aside
{
	my ($name) = @_;
	my $log = -s $node->logfile;

	truncate_and_commit($name);
	ok(poll_until(sub { !$redis->has('org:300') && !$redis->has('user:1002000') }),
		"$name: all other keys of the patterns are deleted");
	ok(comes_true($node,
		q{SELECT last_error LIKE 'a SCAN for one key at a time breaks%' FROM uncache.stat}),
		"$name: last_error says so");
	ok(comes_true($node, q{SELECT max(attempts) >= 2 FROM uncache.backlog}),
		"$name: it is shown, and tried again");
	is(sql('SELECT count(*) FROM uncache.backlog'), 1, "$name: the other pattern is delivered");
	commits_were_answered($name);
	return slurp_file($node->logfile, $log);
}

$redis->cli('config', 'set', 'client-output-buffer-limit', 'normal 0 0 0');
fill_long('user:', 1, 20_000_000);
my $log = stays_aside('20 MB');
my @said = $log =~ /(LOG: .*patterns are set aside)/g;
is(scalar @said, 1, '20 MB: the log says it once');
like($log, qr/answer that is too large/, '20 MB: and why');
like($log, qr/HINT: .*discard_backlog/, '20 MB: and names the way out');

$redis->cli('eval', q{redis.call("del", ARGV[1] .. string.rep(string.rep("x", 1000), 20000))}, 0,
	'user:1');
ok(delivered($node), '20 MB: when it is gone the pattern is delivered');

$redis->cli('config', 'set', 'client-output-buffer-limit', 'normal 1mb 1mb 0');
fill_long('user:', 1, 2_000_000);
stays_aside('2 MB and client-output-buffer-limit');
$redis->cli('config', 'set', 'client-output-buffer-limit', 'normal 0 0 0');
ok(delivered($node), 'when the limit is gone the pattern is delivered');

# ---------------------------------------------------------------------------
# A step that is too slow
# ---------------------------------------------------------------------------

$redis->cli('flushall');
sql(q{ALTER SYSTEM SET uncache.command_timeout = '500ms'});
my $asked = $proxy->connections;
$node->reload;
ok(poll_until(sub { $proxy->connections > $asked }), 'connected with another command_timeout');
ok(wait_for_state($node, 'connected'), 'connected again');
ok(is_quiet($node, $redis), 'and quiet');
$reconnects = stat_of('reconnects');

$proxy->slow_scan(8);
$redis->fill_range('user:', 1, 200);
$redis->fill_range('org:', 1, 200);
sql('TRUNCATE users; TRUNCATE orgs');
foreach my $id (501 .. 510)
{
	$redis->fill("user:$id");
	sql("INSERT INTO users VALUES ($id)");
	$redis->has("user:$id") and fail('slow: a commit has not waited');
}
ok(delivered($node),
	'patterns are delivered where Redis is slower for a large step than command_timeout');
is($redis->cli('dbsize'), 0, 'their keys are gone');
commits_were_answered('slow');

# ---------------------------------------------------------------------------
# A second connection that can't be made
# ---------------------------------------------------------------------------

$proxy->behave;
$proxy->refuse;
$redis->fill('user:1', 'user:2');
sql('TRUNCATE users');
ok(comes_true($node, q{SELECT last_error LIKE
	'patterns have to wait for a second connection, for SCAN: %' FROM uncache.stat}),
	'last_error says why patterns wait');
sql('INSERT INTO users VALUES (2)');
ok(!$redis->has('user:2'), 'keys are deleted meanwhile');
ok($redis->has('user:1'), 'patterns wait');
$proxy->behave;
ok(delivered($node), 'and are delivered when it can be made');
ok(!$redis->has('user:1'), 'with their keys');
commits_were_answered('refused');

$node->stop;
$proxy->stop;
done_testing();
