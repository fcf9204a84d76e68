# A stream that can't be written holds up no delete, says so, and counts what is lost; a Redis
# that goes away and comes back, and a worker that dies, lose no entry.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisProxy;
use RedisServer;
use Stream;
use Uncache;

my $redis = RedisServer->new_durable;
$redis->start;

sub acl
{
	$redis->cli(qw(acl setuser limited), @_) eq 'OK' or die "not an ACL: @_";
	return;
}

acl(qw(on >secret ~* &* +@all));
my $node = new_node('main', undef,
	"uncache.redis_url = 'unix://limited:secret@" . $redis->socket . "'",
	q{uncache.stream = 'news'}, 'uncache.wait_timeout = 60s', 'restart_after_crash = on');

my $keys = 0;
my $maxmemory = 0;

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }
sub new_key { return "key:" . ++$keys }
sub log_lines { my ($like) = @_; my $n = () = slurp_file($node->logfile) =~ /$like/g; return $n }

# Commit a new key; what the session is told, and whether the key is gone.
sub deletes
{
	my ($name) = @_;
	my $key = new_key();

	$redis->cli(qw(config set maxmemory 0));
	$redis->fill($key);
	$redis->cli(qw(config set maxmemory), $maxmemory);
	my (undef, undef, $err) = $node->psql('postgres', "SELECT uncache.invalidate_keys('$key')");
	is($err, '', "$name: no warning");
	is($redis->cli('exists', $key), '0', "$name: the key is deleted");
	ok(delivered($node), "$name: its row is delivered");
	return $key;
}

# For each trouble: last_error says what it is and what to do, the log once, and it is counted.
sub is_told
{
	my ($name, $like) = @_;
	my $lost = stat_of('stream_entries_lost');
	my $in_log = log_lines(qr/does not take entries of stream/);

	deletes($name) foreach 1 .. 3;
	is(stat_of('stream_entries_lost'), $lost + 3, "$name: each entry is counted");
	like(stat_of('last_error'), $like, "$name: last_error says so");
	cmp_ok(log_lines(qr/does not take entries of stream/), '<=', $in_log + 1,
		"$name: the log at most once");
	is(stat_of('state'), 'connected', "$name: the worker stays connected");
	return;
}

sub is_well
{
	my ($name) = @_;
	my $lost = stat_of('stream_entries_lost');
	my $key = deletes($name);

	ok(are_named($redis, 'news', $key), "$name: the key is named");
	is(stat_of('stream_entries_lost'), $lost, "$name: nothing is lost");
	return;
}

is_well('at first');

# --- what can't be written ---

$redis->cli(qw(set news text));
is_told('another type', qr/"news".*WRONGTYPE.*give uncache.stream another name/);
cmp_ok(log_lines(qr/does not take entries of stream/), '==', 1, 'the log says it once');
$redis->cli(qw(del news));
is_well('with the type mended');
is(log_lines(qr/takes entries of the stream again\n.*\n?.*3 entries were lost/), 1,
	'the log says how many were lost');

acl('-xadd');
is_told('no right to the command', qr/"news".*NOPERM.*right to XADD/);
acl('+xadd');
is_well('with the right to the command');
acl(qw(resetkeys ~key:*));
is_told('no right to the key', qr/"news".*NOPERM.*right to XADD/);
acl(qw(resetkeys ~*));
is_well('with the right to the key');

$maxmemory = 1;
is_told('no memory', qr/"news".*OOM.*raise maxmemory/);
$maxmemory = 0;
is_well('with memory');

# --- refused keys are not named, and are when they are deleted ---

acl(qw(resetkeys ~key:* ~news));
$redis->fill('other:1', 'other:2');
$node->psql('postgres', q{SELECT uncache.invalidate_keys('other:1', 'other:2', 'key:between')});
ok(are_named($redis, 'news', 'key:between'), 'of a row with refused keys the others are named');
ok($node->poll_query_until('postgres', 'SELECT keys_refused_now = 2 FROM uncache.stat'),
	'the refused ones wait');
ok(!grep({ /^other/ } keys %{ { named_in($redis, 'news') } }), 'and are not named');
acl(qw(resetkeys ~*));
ok(are_named($redis, 'news', 'other:1', 'other:2'), 'they are when they are deleted');
is(join(' ', $redis->keys('other:*')), '', 'as they are then');

# --- Redis away and back ---

my @away;
$redis->kill9;
foreach (1 .. 20)
{
	push @away, new_key();
	sql("SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('$away[-1]')");
}
$redis->start;
acl(qw(on >secret ~* &* +@all));
ok(delivered($node), 'what was committed while Redis was away is delivered');
ok(are_named($redis, 'news', @away), 'and named');

# It comes back without what it was told last: the window is sent, and announced, again.
my $last = deletes('before it forgets');
$redis->cli('del', 'news');
$redis->kill9;
$redis->start;
acl(qw(on >secret ~* &* +@all));
ok(are_named($redis, 'news', $last),
	'a Redis that was restarted is told of the last deletes again');

# --- the answer to the delete arrives, that to the entry does not ---

my $proxy = RedisProxy->new($redis);
sql(q{ALTER SYSTEM SET uncache.redis_url = '} . $proxy->url . q{'});
$node->reload;
ok($node->poll_query_until('postgres',
	q{SELECT state = 'connected' AND redis NOT LIKE '%limited%' FROM uncache.stat}),
	'through a proxy');
ok(is_quiet($node, $redis), 'the worker is at rest');
$proxy->hold_word('XADD');
my $key = deletes_without_entry();
is($proxy->held, 1, 'the entry is held back');
$redis->cli('del', 'news');
$proxy->reset;
$proxy->hold_word('');
ok(delivered($node), 'its row is delivered with the next connection');
ok(are_named($redis, 'news', $key), 'and named');

sub deletes_without_entry
{
	my $key = new_key();

	$redis->fill($key);
	my (undef, undef, $err) = $node->psql('postgres', "SELECT uncache.invalidate_keys('$key')");
	is("$err" . $redis->cli('exists', $key), '0', 'a key is deleted while XADD is held back');
	return $key;
}

# The worker dies instead.
$proxy->hold_word('XADD');
$key = deletes_without_entry();
kill 'KILL', stat_of('worker_pid');
$proxy->reset;
$proxy->hold_word('');
ok(comes_true($node, q{SELECT state = 'connected' FROM uncache.stat}), 'the server is back');
ok(are_named($redis, 'news', $key), 'after the worker was killed the key is named');

$node->stop;
done_testing();
