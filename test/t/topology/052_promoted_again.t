# A server that was a replica for a while, and is a master again, has the run id of
# before and the data of another: what was delivered to it is sent again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $redis = RedisServer->new('--repl-diskless-sync-delay', 0);
my $other = RedisServer->new('--port', $port, '--repl-diskless-sync-delay', 0);
$redis->start;
$other->start;
my $node = new_node('main', $redis);

sub sql { return $node->safe_psql('postgres', @_) }

ok(wait_for_state($node, 'connected'), 'connected');
$redis->fill('key', 'live');
sql(q{SELECT uncache.invalidate_keys('key')});
ok(gone($redis, 'key'), 'a key is deleted');
ok(delivered($node), 'and nothing else is to be done');

# To the same server with the same past nothing is sent again.
my $sent = $redis->calls('unlink');
$redis->cli(qw(client kill type normal));
ok($node->poll_query_until('postgres',
	q{SELECT reconnects = 1 AND state = 'connected' FROM uncache.stat}),
	'a connection is made again');
ok(delivered($node), 'up to date');
is($redis->calls('unlink'), $sent, 'and nothing is sent twice');

my $run_id = $redis->info('server', 'run_id');
$other->fill('key', 'live');
$redis->cli('replicaof', '127.0.0.1', $port);
ok(poll_until(sub { $redis->info('replication', 'master_link_status') eq 'up'
	&& $redis->has('key') }),
	'the server has become a replica, and the key is back');
$redis->cli(qw(client kill type normal));
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat')
	=~ /is a replica \(role slave\), not a master/ }),
	'nothing is delivered to a replica');
$redis->cli(qw(replicaof no one));
is($redis->info('server', 'run_id'), $run_id, 'it is the same server');
ok(gone($redis, 'key'), 'the key is deleted again');
ok($redis->has('live'), 'and no other');

# A master that becomes a replica under our connection, without a word.
$redis->cli('replicaof', '127.0.0.1', $port);
ok(poll_until(sub { $redis->info('replication', 'master_link_status') eq 'up'
	&& $redis->has('key') }),
	'the server has become a replica again');
$other->fill('late');
sql(q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('late')});
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat') =~ /replica/ }),
	'its refusal ends the connection');
$redis->cli(qw(replicaof no one));
ok(gone($redis, 'late'), 'what it refused is delivered when it is master');
ok(gone($redis, 'key'), 'and what it has forgotten');

# One that takes writes as a replica, too, and is not sent any.
ok(delivered($node), 'nothing is left');
$redis->cli(qw(config set replica-read-only no));
$redis->cli('replicaof', '127.0.0.1', $port);
ok(poll_until(sub { $redis->info('replication', 'master_link_status') eq 'up'
	&& $redis->has('key') }),
	'the server has become a replica that can be written to');
ok(poll_until(sub {
	sql(q{SELECT state = 'down' AND last_error ~ 'replica' FROM uncache.stat}) eq 't' }),
	'its role ends the connection');
$redis->cli(qw(replicaof no one));
ok(gone($redis, 'key'), 'what it has forgotten is deleted when it is master');

$node->stop;
done_testing();
