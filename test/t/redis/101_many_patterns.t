# Many patterns cost a key no more than few, and never hold up the worker for long: a turn
# does a bounded piece of the work.  A storm of them makes one pass a second.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use RedisServer;
use Uncache;

my $patterns = 5000;
my $keys_of_each = 6;
my $bystanders = 20_000;

# As in pattern_sweep.c: the work of a slice may be exceeded by that of one key and pattern.
my $slice_work = 10_000;
# Keys that a step of the pass looks at, where half of Redis's buckets have one.
my $keys_of_step = 128 / 2;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.wait_timeout = 20s', 'log_min_messages = debug1');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

# The passes that the log tells of from this offset on: each a hash.
sub passes_since
{
	my ($offset) = @_;
	my @passes;

	foreach (split /\n/, slurp_file($node->logfile, $offset))
	{
		/pass for (\d+) patterns: (\d+) scans, (\d+) breaks, (\d+) keys, (\d+) tried, (\d+) slices, most work (\d+)/ or next;
		my %pass;
		@pass{qw(patterns scans breaks keys tried slices most)} = ($1, $2, $3, $4, $5, $6, $7);
		push @passes, \%pass;
	}
	return @passes;
}

sub sum { my ($what, @passes) = @_; my $sum = 0; $sum += $_->{$what} foreach @passes; return $sum }

sub most
{
	my ($what, @passes) = @_;
	my ($most) = sort { $b <=> $a } map { $_->{$what} } @passes;
	return $most;
}

ok(wait_for_state($node, 'connected'), 'connected');
ok(is_quiet($node, $redis), 'and quiet');
my $reconnects = stat_of('reconnects');

# ---------------------------------------------------------------------------
# Many patterns
# ---------------------------------------------------------------------------

my $fill = q{for i = 1, ARGV[1] do for j = 1, ARGV[2] do
	redis.call("set", string.format("p%d:%d", i, j), 1) end end};

$redis->cli('eval', $fill, 0, $patterns, $keys_of_each);
$redis->fill_range('other:', 1, $bystanders);
$redis->fill('p0:1', 'p1', "p$patterns-1", 'p' . ($patterns + 1) . ':1', 'q1:1');

my $log = -s $node->logfile;
# Some by themselves, the rest in one transaction; some of them twice.
sql("SELECT uncache.invalidate_pattern('p$_:*')") foreach 1 .. 5, 3;
sql("SELECT uncache.invalidate_pattern('p' || i || ':*') FROM generate_series(6, $patterns) i");
ok(delivered($node), 'many patterns are delivered');
is($redis->cli('dbsize'), $bystanders + 5, 'their keys are gone, and no others');
is(scalar(grep { /^p/ } $redis->keys('p*')), 4, 'not those that only look like them');

my @passes = passes_since($log);
my $seen = sum('keys', @passes);
cmp_ok(sum('patterns', @passes), '>=', $patterns, 'all patterns were in a pass');
cmp_ok(scalar @passes, '<=', 8, 'a few passes');
cmp_ok(sum('tried', @passes), '<=', $seen, 'of all patterns at most one is tried for a key');
cmp_ok(most('most', @passes), '<=', $slice_work + 1000, 'a turn does no more work than a slice');
cmp_ok(sum('slices', @passes), '>=', $seen * 16 / ($slice_work + 1000),
	'the work is done in many turns');
cmp_ok(sum('scans', @passes), '<=', $seen / ($keys_of_step / 2) + 30 * @passes,
	'with few calls of SCAN');
is(sum('breaks', @passes), 0, 'none of which broke');

# ---------------------------------------------------------------------------
# Patterns of many parts, and long keys
# ---------------------------------------------------------------------------

my $parts = 200;
my $long_keys = 300;

sql('CREATE TABLE wide (id int PRIMARY KEY)');
sql(qq{DO \$\$ BEGIN
	EXECUTE format('SELECT uncache.attach(''wide'', %s)', (
		SELECT string_agg(quote_literal('w' || i || ':' || repeat('{id}', $parts)), ', ')
			FROM generate_series(1, 4) i));
	END \$\$});
$redis->cli('eval', q{for i = 1, ARGV[1] do for t = 1, 4 do
	redis.call("set", "w" .. t .. ":" .. string.rep("7", ARGV[2]) .. i, 1) end end}, 0,
		$long_keys, $parts);
$log = -s $node->logfile;
sql('TRUNCATE wide');
ok(delivered($node), 'patterns of many parts are delivered');
is($redis->cli('dbsize'), $bystanders + 5, 'their keys are gone, and no others');
@passes = passes_since($log);
cmp_ok(sum('tried', @passes), '<=', 4 * $long_keys, 'each key is held against one pattern');
cmp_ok(most('most', @passes), '<=', $slice_work + ($parts + 1) * ($parts + 10),
	'a turn tries no second one');
cmp_ok(sum('slices', @passes), '>=', 4 * $long_keys, 'so there are as many turns as keys');

# ---------------------------------------------------------------------------
# A storm
# ---------------------------------------------------------------------------

sql(q{CREATE TABLE empty (id int PRIMARY KEY); SELECT uncache.attach('empty', 'empty:{id}')});
ok(delivered($node), 'delivered');
my $before = stat_of('pattern_passes');
my $start = time;
my $truncates = 0;
while (time < $start + 4)
{
	sql('TRUNCATE empty; TRUNCATE empty; TRUNCATE empty');
	$truncates++;
}
ok(delivered($node), 'a role that truncates all the time is served');
my $seconds = time - $start;
my $made = stat_of('pattern_passes') - $before;
note "$made passes for $truncates transactions in $seconds s";
cmp_ok($made, '<=', $seconds + 1, 'by one pass a second at the most');
cmp_ok($made, '>=', 1, 'but not by none');

is(stat_of('reconnects'), $reconnects, 'the connection has stayed all the time');
unlike(slurp_file($node->logfile), qr/gave no answer/, 'and answers were never missed');

$node->stop;
done_testing();
