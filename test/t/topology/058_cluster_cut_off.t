# A master of a Redis Cluster is cut off from all other nodes, but not from the
# worker.  For a while it takes deletes that its replica, which is about to take its
# place, never hears of; and it goes on to say that it is the master.  Those deletes
# are sent again to the new master, and to no other.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisCluster;
use Uncache;

my $redis = RedisCluster->new(cables => 1);
my ($cut, $other) = $redis->masters;
my ($heir) = $redis->replicas_of($cut);
my $node = new_node('main', $redis);

sub sql { return $node->safe_psql('postgres', @_) }

# invalidate(KEY...): without a warning.
sub invalidate
{
	my (@keys) = @_;
	my ($status, undef, $err) = $node->psql('postgres',
		'SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @keys) . ')');

	is("$status$err", '0', "@keys: Redis has answered");
	return;
}

# Those of its keys that a server has, whatever its role.
sub has { my ($port, $glob) = @_; return join ' ', $redis->server($port)->keys($glob) }

# The worker asks one node for the map; in turn, so it will be this one.
sub is_asked
{
	return $redis->server($_[0])->cli(qw(client list)) =~ /name=pg_uncache .*cmd=cluster\|slots/;
}

ok(wait_for_state($node, 'connected'), 'the worker is connected');
my ($before, $lost, $later, $kept) = $redis->keys_at($cut, 'cut:', 4);
my ($elsewhere) = $redis->keys_at($other, 'elsewhere:', 1);
my @pattern = $redis->keys_at($cut, 'pattern:', 3);
$redis->fill($before, $lost, $later, $kept, $elsewhere, @pattern);

# What readers have stored since is not to be deleted again.
invalidate($before, $elsewhere);
$redis->fill($elsewhere);
$redis->wait_until_ok;
ok(poll_until(sub { is_asked($cut) }),
	'the worker has the map from the master that is going to be cut off');

$redis->cut_off($cut);
invalidate($lost);
sql(q{SELECT uncache.invalidate_pattern('pattern:*')});
ok(delivered($node), 'the master that is cut off takes deletes');
is(has($cut, 'cut:*') . has($cut, 'pattern:*'), join(' ', sort $later, $kept),
	'and its keys are gone');
like(has($heir, 'cut:*'), qr/\b$lost\b/, 'while its replica has them');

ok(poll_until(sub { grep { $_ eq $heir } $redis->masters($other) }),
	'the others make the replica a master');
$node->psql('postgres', "SELECT uncache.invalidate_keys('$later')");
ok(poll_until(sub { has($heir, 'cut:*') eq $kept }),
	'what the old one was sent is sent to the new one')
  or diag has($heir, 'cut:*');
ok(poll_until(sub { has($heir, 'pattern:*') eq '' }), 'patterns, too');
ok(delivered($node), 'all is delivered');
is(has($heir, 'cut:*'), $kept, 'nothing else is deleted there');
is(has($other, 'elsewhere:*'), $elsewhere, 'and at a master that has lacked nothing, nothing is');

# Who is cut off has an older epoch than the others, and is not believed any more.
my $cut_off = $redis->server($cut);
my $asked = $cut_off->calls('cluster|slots');
my $others = $cut_off->calls('fcall') + $cut_off->calls('unlink');
ok(poll_until(sub {
	$redis->server($other)->cli(qw(client kill type normal));
	return $cut_off->calls('cluster|slots') > $asked;
}), 'the one that is cut off is asked for its map again');
$redis->server($heir)->cli('set', $lost, 1);
invalidate($lost);
is(has($heir, 'cut:*'), $kept, 'keys go to the new master');
is($cut_off->calls('fcall') + $cut_off->calls('unlink'), $others,
	'and the old one is asked for nothing else');

$redis->heal;
$redis->wait_until_ok;
is(join(' ', grep { $_ eq $cut || $_ eq $heir } $redis->masters), $heir,
	'the old master is a replica now');
$redis->fill($lost);
invalidate($lost);
ok(gone($redis, $lost), 'and keys are deleted at the new one');
ok(wait_for_state($node, 'connected'), 'the worker is connected');

$node->stop;
done_testing();
