# Functions that somebody flushes, loads again, or replaces: commits go on waiting for their
# deletes.  A library of the same name that is not ours is left alone, and said.

use strict;
use warnings;

use FindBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_fenced_node('main', $redis, q{uncache.wait_timeout = '20s'});

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub is_fenced
{
	return $node->poll_query_until('postgres', "SELECT fence = '$_[0]' FROM uncache.stat");
}

sub library { return $redis->cli(qw(function list libraryname uncache withcode)) }

sub source_of
{
	my ($version) = @_;
	my $text = slurp_file("$FindBin::Bin/../../../src/fence/uncache.lua");

	$text =~ s/^local VERSION = \K\d+$/$version/m or die 'no version';
	return $text;
}

my ($version) = slurp_file("$FindBin::Bin/../../../src/fence/uncache.lua")
	=~ /^local VERSION = (\d+)$/m;

# --- commits while the functions come and go ---

# Put an old value into the cache, change the row, and look, again and again.
my $session = $node->background_psql('postgres');
my ($stale, $commits) = (0, 0);

sub change_and_look
{
	my ($id) = @_;

	put($redis, $id, 'old');
	$session->query_safe("UPDATE item SET v = v + 1 WHERE id = $id");
	$commits++;
	$stale++ if $redis->has("item:$id");
	return;
}

my %disturb = (
	'FUNCTION FLUSH' => sub { $redis->cli(qw(function flush)) },
	'FUNCTION DELETE' => sub { $redis->cli(qw(function delete uncache)) },
	'LOAD REPLACE of the same library' => sub { $redis->cli(qw(function load replace),
		source_of($version)) });

foreach my $what (sort keys %disturb)
{
	my ($before, $reconnects) = ($stale, fence_stat($node, 'reconnects'));

	for my $round (1 .. 20)
	{
		$disturb{$what}->();
		change_and_look($_) foreach 1 .. 3;
	}
	is($stale - $before, 0, "$what: no commit returns before its key is deleted");
	is(fence_stat($node, 'reconnects'), $reconnects, 'over the same link');
	ok(is_fenced('on'), 'the fence comes on again');
	ok(becomes_cacheable($redis, $node), 'and keys are cacheable');
}
is(fence_stat($node, 'wait_timeouts || $$ $$ || waits_skipped'), '0 0',
	'no wait was cut short or left out');

# A fill that began before is refused.
my ($value, $snapshot) = look($node, miss($redis, 'item:5'), 5);
$redis->cli(qw(function flush));
change_and_look(5);
is(fill($redis, 'item:5', $snapshot, $value), '0', 'a fill of before is refused');
ok(is_fenced('on'), 'the fence is on');
is(fill($redis, 'item:5', $snapshot, $value), '0', 'also then');

# --- versions ---

$redis->cli(qw(function load replace), source_of($version + 1));
change_and_look(1);
ok(is_fenced('on'), 'a newer library serves this worker');
ok(becomes_cacheable($redis, $node), 'its readers fill');
like(library(), qr/^local VERSION = ${\($version + 1)}$/m, 'and it is not replaced');
$node->restart;
ok(is_fenced('on'), 'after a restart, too');
like(library(), qr/^local VERSION = ${\($version + 1)}$/m, '...');
$session = $node->background_psql('postgres');
$redis->cli(qw(function load replace), source_of($version - 1));
change_and_look(1);
ok(poll_until(sub { library() =~ /^local VERSION = $version$/m }), 'an older one is');
ok(is_fenced('on'), 'and the fence comes on');
is($stale, 0, 'no stale value in all that');

# --- a library of others ---

my $foreign =
	"#!lua name=uncache\nredis.register_function('greet', function() return 'hello' end)\n";
$redis->cli(qw(function load replace), $foreign);
change_and_look($_) foreach 1 .. 3;
is($stale, 0, 'a foreign library in the place of ours: keys are deleted without it');
ok(is_fenced('not possible'), 'the fence is not possible');
like(fence_stat($node, 'last_error'),
	qr/function library "uncache".*not of pg_uncache.*FUNCTION DELETE/,
	'last_error says why, and the way out');
my $pings = $redis->pings;
ok(poll_until(sub { $redis->pings >= $pings + 5 }), 'for some pings');
like(library(), qr/greet/, 'it is left alone');
$node->restart;
ok(is_fenced('not possible'), 'after a restart, too');
like(fence_stat($node, 'last_error'), qr/function library "uncache"/, 'as last_error says');
$session = $node->background_psql('postgres');
change_and_look($_) foreach 1 .. 3;
is($stale, 0, 'keys are deleted');
is($redis->cli('fcall', 'greet', 0), 'hello', 'and it works');
my @said = slurp_file($node->logfile) =~ /LOG: .*function library "uncache"/g;
is(scalar @said, 2, 'the log has said it once for each start');
$redis->cli(qw(function delete uncache));
ok(is_fenced('on'), 'when it is gone the fence comes on');
ok(becomes_cacheable($redis, $node), 'and keys are cacheable');

# Functions of our names in a library of another one.
$redis->cli(qw(function flush));
$node->stop;
$redis->cli(qw(function load),
	"#!lua name=other\nredis.register_function('uncache_get', function() return 1 end)\n");
$node->start;
ok(is_fenced('not possible'), 'a function of others with one of our names: not possible');
like(fence_stat($node, 'last_error'), qr/functions of its names/, 'as last_error says');
like($redis->cli(qw(function list)), qr/other/, 'it is left alone');

# A library of others that has even uncache_status: the worker calls it again, after pauses that
# grow, and sends nothing again for that.
$node->stop;
$redis->cli(qw(function flush));
$redis->cli(qw(function load), "#!lua name=uncache\n"
	. "redis.register_function('uncache_status', function() return 7 end)\n");
my $offset = -s $node->logfile;
$node->start;
ok(is_fenced('not possible'), 'uncache_status of others: not possible');
like(fence_stat($node, 'last_error'), qr/uncache_status.*not of pg_uncache.*FUNCTION DELETE/,
	'last_error says why, and the way out');
sql(q{SELECT uncache.invalidate_keys('item:1')});
ok(is_quiet($node, $redis), 'nothing is sent again and again');
my ($lists, $calls) = map { $redis->calls($_) } 'function|list', 'fcall';
my $retries = fence_stat($node, 'retries');
ok(poll_until(sub { $redis->calls('function|list') >= $lists + 5 }), 'for some pings');
cmp_ok($redis->calls('fcall') - $calls, '<=', 3, 'it is not called with each of them');
is(fence_stat($node, 'retries'), $retries, 'and nothing is sent again');
@said = slurp_file($node->logfile, $offset) =~ /LOG: .*fenced fills are not possible/g;
is(scalar @said, 1, 'the log says it once');
$redis->cli(qw(function delete uncache));
ok(is_fenced('on'), 'when it is gone the fence comes on');
ok(becomes_cacheable($redis, $node), 'and keys are cacheable');

$node->stop;
done_testing();
