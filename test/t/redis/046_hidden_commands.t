# A service that hides INFO, ROLE and PING, in words of its own, and knows no functions, is
# served all the same, and the log says once what it does not tell.  What it has to say of
# itself counts.

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
$proxy->error_for('INFO', 'ERR unsupported command info');
$proxy->error_for('ROLE', 'Command is not available');
# Without FUNCTION LIST the worker's pings are plain ones.  This text of a refused delete would
# end the connection.
$proxy->error_for($_, "ERR unknown command $_") foreach qw(PING FCALL FUNCTION);
$proxy->error_for('CLIENT', 'ERR no such thing');
my $node = new_node('main', $proxy);

sub sql { return $node->safe_psql('postgres', @_) }

sub times_logged
{
	my ($what) = @_;
	my $found = () = slurp_file($node->logfile) =~ /$what/g;

	return $found;
}

sub deletes
{
	my ($name) = @_;

	$redis->fill('key');
	sql(q{SELECT uncache.invalidate_keys('key')});
	ok(gone($redis, 'key'), "$name: a key is deleted");
	return;
}

ok(wait_for_state($node, 'connected'), 'the service is connected to');
deletes('at first');

# Its connection stays, although each ping is refused.
my ($connections, $refused) = ($proxy->connections, $redis->calls('eval'));
ok(poll_until(sub { $redis->calls('eval') >= $refused + 6 }), 'some pings are refused');
is($proxy->connections, $connections, 'pings that are refused do not end the connection');
is(sql('SELECT last_error IS NULL AND reconnects = 0 FROM uncache.stat'), 't',
	'nor are they an error');

$proxy->reset;
ok($node->poll_query_until('postgres',
	q{SELECT reconnects > 0 AND state = 'connected' FROM uncache.stat}), 'connected again');
deletes('with the next connection');
is(times_logged(
	qr/does not answer INFO \(.*unsupported command info.*\), PING, ROLE, INFO replication, and is used without/),
	1,
	'the log says once what is hidden');

# A state of Redis is none of its words for what it hides.
$proxy->error_for('INFO', 'BUSY Redis is busy running a script');
$proxy->reset;
ok($node->poll_query_until('postgres',
	q{SELECT last_error LIKE '%is busy with a script%' AND state = 'down' FROM uncache.stat}),
	'a Redis that is busy is waited for');
$proxy->behave;
ok(wait_for_state($node, 'connected'), 'and is connected to again');
deletes('at last');

$node->stop;
done_testing();
