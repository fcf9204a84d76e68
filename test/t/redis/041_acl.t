# The smallest rights that docs/redis.md names are enough, and no one of them is
# too many, of those that are needed for keys and patterns.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

# The ACL lines, as the documentation has them.
my $docs = slurp_file("$ENV{TESTDIR}/docs/redis.md");
my ($plain, $fenced) = $docs =~ /^ACL SETUSER pg_uncache (.*)$/mg;
ok($fenced, 'the documentation has two lines');

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', undef,
	'uncache.redis_url = ' . "'unix://pg_uncache:secret\@" . $redis->socket . "'",
	'uncache.delivery = off');

sub sql { return $node->safe_psql('postgres', @_) }
sub last_error { return sql('SELECT last_error FROM uncache.stat') }

# A user with these rights and no others, and a worker that connects as it does.
sub connect_with
{
	my ($rights, $fence_ttl) = @_;

	sql('ALTER SYSTEM SET uncache.delivery = off');
	$node->reload;
	ok(wait_for_state($node, 'paused'), 'paused');
	$redis->cli('acl', 'deluser', 'pg_uncache');
	$redis->cli('acl', 'setuser', 'pg_uncache', split / /, $rights) eq 'OK'
		or die "not an ACL: $rights";
	$redis->cli(qw(function flush));
	sql("ALTER SYSTEM SET uncache.fence_ttl = '$fence_ttl'");
	sql('ALTER SYSTEM SET uncache.delivery = on');
	sql('SELECT uncache.stat_reset()');
	$node->reload;
	return;
}

# Whether keys and patterns get through, and the connection stays.
sub works
{
	my ($name) = @_;
	my $reconnects = sql('SELECT reconnects FROM uncache.stat');
	my $asked = $redis->pings;

	$redis->fill(map { "key:$_" } 1 .. 20);
	sql(q{SELECT uncache.invalidate_keys('key:1', 'key:2')});
	ok(gone($redis, 'key:1'), "$name: keys are deleted");
	sql(q{SELECT uncache.invalidate_pattern('key:*')});
	ok(gone($redis, 'key:20'), "$name: and patterns");
	ok(delivered($node), "$name: nothing is left");
	ok(poll_until(sub { $redis->pings > $asked + 3 }), "$name: pings go on");
	is(sql('SELECT state, reconnects, last_error FROM uncache.stat'),
		"connected|$reconnects|", "$name: no error");
	return;
}

sub without
{
	my ($rights, $right) = @_;

	return $rights =~ s/ \Q+$right\E(?= |$)//r;
}

connect_with($plain, 0);
works('without fence');

connect_with($fenced, '5min');
ok($node->poll_query_until('postgres', q{SELECT fence = 'on' FROM uncache.stat}),
	'the fence is on');
works('with fence');
my $token = $redis->cli(qw(fcall uncache_get 1 new));
my $snapshot = sql("SELECT uncache.snapshot('" . (split /\n/, $token)[-1] . q{')});
is($redis->cli('fcall', 'uncache_set', 1, 'new', $snapshot, 60000, 'value'), '1',
	'a fill is let through');
sql(q{SELECT uncache.invalidate_keys('new')});
ok(gone($redis, 'new'), 'and its key is deleted');

# Each right is needed.
connect_with(without($plain, 'unlink'), 0);
$redis->fill('key:1');
sql(q{SELECT uncache.invalidate_keys('key:1')});
ok(poll_until(sub { last_error() =~ /may not run a command.*NOPERM.*'unlink'/ }),
	'without unlink: the error says so');
connect_with($plain, 0);
ok(delivered($node), 'with it, all that was left goes');

# This one only tells sooner of a Redis that hangs or is loading.
connect_with(without($plain, 'ping'), 0);
$redis->fill('key:1');
sql(q{SELECT uncache.invalidate_keys('key:1')});
ok(gone($redis, 'key:1'), 'without ping: keys are deleted');
unlike(last_error(), qr/'ping'/, 'without ping: no error');

connect_with(without($plain, 'scan'), 0);
$redis->fill('pattern:1', 'key:2');
sql(q{SELECT uncache.invalidate_pattern('pattern:*')});
ok(poll_until(sub { last_error() =~ /NOPERM.*'scan'/ }), 'without scan: the error says so');
sql(q{SELECT uncache.invalidate_keys('key:2')});
ok(gone($redis, 'key:2'), 'and keys are deleted all the same');
ok($redis->has('pattern:1'), 'while the pattern waits');
connect_with($plain, 0);
ok(delivered($node), 'with it, the pattern goes');

foreach my $right ('function|load', 'fcall')
{
	connect_with(without($fenced, $right), '5min');
	ok($node->poll_query_until('postgres', q{SELECT fence = 'not possible' FROM uncache.stat}),
		"without $right: no fence");
	like(last_error(), qr/NOPERM/, 'the error says why');
	$redis->fill('key:1');
	sql(q{SELECT uncache.invalidate_keys('key:1')});
	ok(gone($redis, 'key:1'), 'and keys are deleted all the same');
}

# The right to call them is taken away while readers go on using the fence.
connect_with($fenced, '5min');
ok($node->poll_query_until('postgres', q{SELECT fence = 'on' FROM uncache.stat}),
	'the fence is on');
my %late;
foreach my $key ('late', '{late}:2')
{
	my $miss = (split /\n/, $redis->cli('fcall', 'uncache_get', 1, $key))[-1];
	$late{$key} = sql("SELECT uncache.snapshot('$miss')");
}
$redis->cli(qw(acl setuser pg_uncache -fcall));
ok($node->poll_query_until('postgres', q{SELECT fence = 'not possible' FROM uncache.stat}),
	'it is noticed');
sql(q{SELECT uncache.invalidate_keys('late', '{late}:2', 'key:1')});
ok(delivered($node), 'keys are delivered');
is($redis->cli('fcall', 'uncache_set', 1, $_, $late{$_}, 60000, 'value'), '0',
	"and the late fill of $_ is refused") foreach sort keys %late;

# More rights, and the worker knows its Redis again.
my $more = "$plain +info +role +client|setname +select";
connect_with($more, 0);
ok(poll_until(sub { $redis->cli('client', 'list') =~ /name=pg_uncache/ }),
	'the connection has a name');
$redis->fill('key:1');
sql(q{SELECT uncache.invalidate_keys('key:1')});
ok(delivered($node), 'delivered');
my $sent = $redis->calls('unlink');
$redis->cli(qw(client kill user pg_uncache));
ok($node->poll_query_until('postgres',
	q{SELECT reconnects > 0 AND state = 'connected' FROM uncache.stat}), 'connected again');
ok(delivered($node), 'up to date');
is($redis->calls('unlink'), $sent, 'to the same Redis nothing is sent twice');

# A Redis, or a proxy before it, that has no SCAN at all.
my $scanless = RedisServer->new('--rename-command', 'SCAN', '');
$scanless->start;
$scanless->fill('pattern:1', 'key:1', 'key:2');
sql(q{ALTER SYSTEM SET uncache.redis_url = '} . $scanless->url . q{'});
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT redis LIKE '%} . $scanless->url
	. q{%' AND state = 'connected' FROM uncache.stat}), 'a Redis without SCAN');
my $reconnects = sql('SELECT reconnects FROM uncache.stat');
sql(q{SELECT uncache.invalidate_pattern('pattern:*')});
ok($node->poll_query_until('postgres', q{SELECT max(attempts) > 1 FROM uncache.backlog}),
	'the pattern is tried again and again');
like(last_error(), qr/unknown command/, 'the error says why');
sql(q{SELECT uncache.invalidate_keys('key:1')});
ok(gone($scanless, 'key:1'), 'keys are deleted');
is(sql('SELECT reconnects, state FROM uncache.stat'), "$reconnects|connected",
	'and the connection stays');

$node->stop;
done_testing();
