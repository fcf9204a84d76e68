# Fence.pm: a reader that fills the cache through the fence, step by step.
#
#	my $token = miss($redis, 'item:1');
#	my ($value, $snapshot) = look($session, $token);
#	fill($redis, 'item:1', $snapshot, $value);		# 1 stored, 0 refused
#
# The table is always item(id, v), with the rule 'item:{id}'.

package Fence;

use strict;
use warnings;

use Exporter 'import';

use Uncache;

our @EXPORT = qw(new_fenced_node make_item fence_is_on miss look read_item fill cached
  becomes_cacheable put fence_stat
  was_beaten);

# new_fenced_node(NAME, REDIS, LINE...): as new_node, with the fence on and item
# filled with 1..9, each with v = 1.
sub new_fenced_node
{
	my ($name, $redis, @conf) = @_;
	my $node = new_node($name, $redis, "uncache.fence_ttl = '5min'", @conf);

	make_item($node);
	fence_is_on($node) or die 'the fence does not come on';
	return $node;
}

sub make_item
{
	my ($node, $database) = @_;

	$node->safe_psql($database // 'postgres', q{
		CREATE TABLE item (id int PRIMARY KEY, v int);
		INSERT INTO item SELECT i, 1 FROM generate_series(1, 9) i;
		SELECT uncache.attach('item', 'item:{id}')});
	return;
}

sub fence_stat
{
	my ($node, $column) = @_;

	return $node->safe_psql('postgres', "SELECT $column FROM uncache.stat");
}

sub fence_is_on
{
	my ($node, $database) = @_;

	return $node->poll_query_until($database // 'postgres',
		"SELECT fence = 'on' FROM uncache.stat");
}

# miss(REDIS, KEY): the token; '' where there is none.  Dies on a hit.
sub miss
{
	my ($redis, $key) = @_;
	my @reply = split /\n/, $redis->cli('fcall', 'uncache_get', 1, $key), -1;

	die "no miss of $key: @reply" unless @reply == 2 && $reply[0] eq '';
	return $reply[1];
}

# What uncache_get finds; '' for nothing.
sub cached
{
	my ($redis, $key) = @_;
	my @reply = split /\n/, $redis->cli('fcall', 'uncache_get', 1, $key), -1;

	return $reply[0] // '';
}

# look(WHERE, TOKEN, ID): read the row and the snapshot in one statement.  WHERE
# is a session of background_psql, or a node.  Returns value and snapshot.
sub look
{
	my ($where, $token, $id) = @_;
	$id //= 1;
	my $sql = "SELECT v, uncache.snapshot('$token') FROM item WHERE id = $id";
	my $row = $where->isa('PostgreSQL::Test::Cluster') ?
	  $where->safe_psql('postgres', $sql) : $where->query_safe($sql);

	return split /\|/, $row, 2;
}

# read_item(REDIS, WHERE, ID): the whole of a reader; what the fill said, or
# 'hit'.
sub read_item
{
	my ($redis, $where, $id) = @_;
	my $key = 'item:' . ($id // 1);

	return 'hit' if cached($redis, $key) ne '';
	my ($value, $snapshot) = look($where, miss($redis, $key), $id);
	return fill($redis, $key, $snapshot, $value);
}

sub fill
{
	my ($redis, $key, $snapshot, $value) = @_;

	return $redis->cli('fcall', 'uncache_set', 1, $key, $snapshot, 60000, $value);
}

# Whether a beat has come by since the record of the key was born.  One that
# somebody else has asked for may come before.
sub was_beaten
{
	my ($redis, $node, $key) = @_;
	my $at_birth = (split /:/, $redis->cli('get', "uncache:{$key}"))[2];

	return fence_stat($node, 'beats') > $at_birth;
}

# put(REDIS, ID, VALUE): without the fence, as a plain reader does.
sub put
{
	my ($redis, $id, $value) = @_;

	$redis->cli('set', "item:$id", $value, 'ex', 300);
	return;
}

# Whether readers get the key into the cache again, with the value that the
# database has.  A worker that has just started may delete it once more.
sub becomes_cacheable
{
	my ($redis, $node, $id, $seconds) = @_;
	$id //= 1;
	my $session = $node->background_psql('postgres');
	my $value = $session->query_safe("SELECT v FROM item WHERE id = $id");
	my $done = poll_until(sub {
		read_item($redis, $session, $id);
		return cached($redis, "item:$id") eq $value;
	}, $seconds // 60);

	$session->quit;
	return $done;
}

1;
