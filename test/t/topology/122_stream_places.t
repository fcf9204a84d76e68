# The stream in a Redis Cluster, where its name hashes to, and behind Sentinel: failovers, slots
# that move, and a node of the stream that is away, which holds up no delete at the others.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisCluster;
use RedisSentinel;
use Stream;
use Uncache;

my $redis = RedisCluster->new;
my $node = new_node('main', $redis, q{uncache.stream = 'news'}, 'uncache.command_timeout = 500ms',
	'uncache.wait_timeout = 10s');
my $keys = 0;

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }
sub some_keys { my ($n) = @_; return map { 'key:' . ++$keys } 1 .. $n }

# commit(SQL, KEY...): a transaction with these keys; what its session is warned of.
sub commit
{
	my ($more, @keys) = @_;
	my $list = join ', ', map { "'$_'" } @keys;
	my (undef, undef, $err) = $node->psql('postgres',
		"$more SELECT uncache.invalidate_keys(VARIADIC ARRAY[$list])");

	return $err;
}

# --- at rest ---

my @all = some_keys(50);
$redis->fill(@all);
is(commit('', @all), '', 'a transaction with keys at all masters');
is(scalar(grep { $redis->has($_) } @all), 0, 'its keys are deleted');
ok(are_named($redis, 'news', @all), 'and named');
my $home = $redis->master_of('news');
is($redis->server($home)->cli(qw(exists news)), '1', 'the stream is where its name hashes to');
is(scalar(grep { $_ != $home && $redis->server($_)->keys('news') } $redis->masters), 0,
	'and nowhere else');
sql(q{SELECT uncache.invalidate_pattern('page:*')});
ok(delivered($node), 'a pattern is delivered');
is({ patterns_in($redis, 'news') }->{'page:*'}, 1, 'and announced once, for all masters');

# --- the node of the stream is away ---

my @others = grep { $_ != $home } $redis->masters;
my @elsewhere = grep { $redis->master_of($_) != $home } some_keys(40);
ok(is_quiet($node, $redis->server($others[0])), 'the worker is at rest');
$redis->fill(@elsewhere);
$redis->server($home)->kill9;
my $unlinks = sub {
	my $n = 0;
	$n += $redis->server($_)->calls('unlink') foreach @others;
	return $n;
};
my $before = $unlinks->();
is(commit(q{SET uncache.wait_timeout = '30s';}, @elsewhere), '',
	'without the stream a COMMIT waits for its keys, and gets its answer');
is(scalar(grep { $redis->server($redis->master_of($_))->has($_) } @elsewhere), 0,
	'which are deleted');
$redis->wait_for_failover($home);
$redis->wait_until_ok;
ok(delivered($node), 'with a new master of the stream the row is delivered');
ok(are_named($redis, 'news', @elsewhere), 'and its keys are named');
note 'UNLINKs at the other masters: ', $unlinks->() - $before;
cmp_ok($unlinks->() - $before, '<=', scalar @elsewhere,
	'for which they were not deleted a second time');
is(scalar(grep { !{ named_in($redis, 'news') }->{$_} } @all), 0,
	'the new master has the entries of before');
$redis->start($home);
$redis->wait_until_ok;

# The same with a node that hangs, and a transaction of many rows.
$home = $redis->master_of('news');
my @many = grep { $redis->master_of($_) != $home } some_keys(100);
ok(delivered($node), 'all is delivered');
$redis->freeze($home);
is(commit(q{SET uncache.wait_timeout = '60s';}, map { ($_, "{$_}" . 'x' x 1000) } @many), '',
	'a COMMIT of many rows gets its answer while the node of the stream hangs');
is(scalar(grep { $redis->server($redis->master_of($_))->has($_) } @many), 0,
	'and its keys are deleted');
$redis->thaw($home);
$redis->wait_until_ok;
ok(delivered($node), 'all is delivered with that node');
ok(are_named($redis, 'news', @many), 'and named');

# --- its slot moves ---

my $from = $redis->master_of('news');
my ($to) = grep { $_ != $from } $redis->masters;
my $slot = $redis->slot('news');
ok(delivered($node), 'all is delivered');
$redis->begin_move($slot, $to);
my @moving = some_keys(20);
is(commit('', @moving), '', 'keys while the slot of the stream is about to move');
$redis->move_keys($slot);
my @moved = some_keys(20);
is(commit('', @moved), '', 'and when the stream has moved and its slot has not');
$redis->end_move($slot);
my @after = some_keys(20);
is(commit('', @after), '', 'and after that');
ok(delivered($node), 'all is delivered');
ok(are_named($redis, 'news', @moving, @moved, @after), 'all are named, in one stream');
is($redis->master_of('news'), $to, 'at the new master');
is(stat_of('stream_entries_lost'), '0', 'no entry is lost');
$node->stop;

# --- Sentinel ---

my $sentinel = RedisSentinel->new(replicas => 1);
my $master = $sentinel->master_port;
$node = new_node('second', $sentinel, q{uncache.stream = 'news'},
	'uncache.command_timeout = 500ms', 'uncache.wait_timeout = 10s');
my @first = some_keys(20);
is(commit('', @first), '', 'keys at a master that Sentinel names');
ok(are_named($sentinel->server($master), 'news', @first), 'are named there');
$sentinel->server($master)->kill9;
my @meanwhile = some_keys(20);
commit(q{SET uncache.wait_timeout = 0;}, $_) foreach @meanwhile;
$master = $sentinel->wait_for_other_master($master);
ok(delivered($node), 'with a new master all is delivered');
ok(are_named($sentinel->server($master), 'news', @first, @meanwhile),
	'which is told of all, also of what its predecessor knew');
$node->stop;

done_testing();
