# rediss://: what is sent through TLS arrives; a server that can't prove who it is
# gets nothing, and the error says why.  A build without TLS says so.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Certificates;
use RedisServer;
use Uncache;

my $certs = Certificates->new;
my $others = Certificates->new;
$certs->make('server', 'DNS:localhost,IP:127.0.0.1,DNS:cache.test');
$certs->make('client', 'DNS:client');
$certs->make('elsewhere', 'DNS:elsewhere.test,IP:127.0.0.9');
$certs->make('expired', 'DNS:localhost,IP:127.0.0.1', 0);
$others->make('client', 'DNS:client');

# A server for TLS on a port, with a certificate.
sub tls_server
{
	my ($name, @options) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $redis = RedisServer->new('--tls-port', $port, '--tls-ca-cert-file', $certs->ca,
		'--tls-cert-file', $certs->cert($name), '--tls-key-file', $certs->key($name), @options);

	$redis->start;
	return ($redis, $port);
}

my ($redis, $port) = tls_server('server', '--tls-auth-clients', 'no');
my $node = new_node('main', $redis, 'uncache.connect_timeout = 5s', 'uncache.command_timeout = 5s');

sub sql { return $node->safe_psql('postgres', @_) }

my ($status, undef, $error) = $node->psql('postgres',
	"ALTER SYSTEM SET uncache.redis_url = 'rediss://localhost:$port'");

if ($status != 0)
{
	like($error, qr/TLS is not supported by this build/, 'this build has no TLS, and says so');
	is(sql('SHOW uncache.redis_url'), $redis->url, 'the address stays');
	$node->stop;
	done_testing();
	exit;
}

# Take settings, and wait for the error or a connection.
sub reach
{
	my ($url, %tls) = @_;

	sql('SELECT uncache.stat_reset()');
	sql("ALTER SYSTEM SET uncache.redis_url = '$url'");
	foreach (qw(ca_file cert_file key_file server_name))
	{
		sql("ALTER SYSTEM SET uncache.redis_tls_$_ = '" . ($tls{$_} // '') . q{'});
	}
	$node->reload;
	return;
}

sub reaches
{
	my ($server, $name, @settings) = @_;

	reach(@settings);
	ok(poll_until(sub { $server->cli('client', 'list') =~ /name=pg_uncache/ }), "$name: connected");
	$server->fill('key');
	sql(q{SELECT uncache.invalidate_keys('key')});
	ok(gone($server, 'key'), "$name: a key is deleted");
	return;
}

sub fails
{
	my ($name, $message, @settings) = @_;

	reach(@settings);
	ok(poll_until(sub {
		sql(q{SELECT last_error FROM uncache.stat WHERE state = 'down'}) =~ $message }),
		"$name: the error says so") or diag sql('SELECT last_error FROM uncache.stat');
	return;
}

my @ca = (ca_file => $certs->ca);

reaches($redis, 'the name', "rediss://localhost:$port", @ca);
reaches($redis, 'the address', "rediss://127.0.0.1:$port", @ca);
reaches($redis, 'another name', "rediss://127.0.0.1:$port", @ca, server_name => 'cache.test');

# Much at once, in both directions.
$redis->fill_range('much:', 1, 50000);
sql(q{SELECT uncache.invalidate_keys(VARIADIC array_agg('much:' || i))
	FROM generate_series(1, 50000) i});
ok(delivered($node), 'many keys');
is($redis->cli('dbsize'), '0', 'are all deleted');
$redis->fill_range('long:' . ('x' x 1000) . ':', 1, 3000);
sql(q{SELECT uncache.invalidate_pattern('long:*')});
ok(delivered($node), 'long answers');
is($redis->cli('dbsize'), '0', 'are all understood');

# Idle, the worker is idle.
my $pid = sql('SELECT worker_pid FROM uncache.stat');
sub cpu { my @stat = split / /, slurp_file("/proc/$pid/stat"); return $stat[13] + $stat[14] }
my $before = cpu();
my $pings = $redis->pings;
ok(poll_until(sub { $redis->pings >= $pings + 3 }), 'pings go on');
cmp_ok(cpu() - $before, '<', 30, 'without a busy loop');

# A server that hangs: known by its silence, with bytes waiting to be written.
sql(q{ALTER SYSTEM SET uncache.command_timeout = '500ms'});
$node->reload;
ok(wait_for_state($node, 'connected'), 'connected');
$redis->fill_range('much:', 1, 20000);
$redis->freeze;
sql(q{SET uncache.wait_timeout = 0;
	SELECT uncache.invalidate_keys(VARIADIC array_agg('much:' || i || repeat('x', 500)))
		FROM generate_series(1, 20000) i;
	SELECT uncache.invalidate_keys(VARIADIC array_agg('much:' || i))
		FROM generate_series(1, 20000) i});
$pid = sql('SELECT worker_pid FROM uncache.stat');
$before = cpu();
ok(wait_for_state($node, 'down'), 'Redis hangs: down');
cmp_ok(cpu() - $before, '<', 100, 'without a busy loop');
$redis->thaw;
ok(delivered($node), 'back: all is delivered');
is($redis->cli('dbsize'), '0', 'all');

# What is not accepted.
fails('another CA', qr/certificate is not accepted: (unable|self.signed)/,
	"rediss://localhost:$port", ca_file => $others->ca);
fails('the CAs of the system', qr/certificate is not accepted/, "rediss://localhost:$port");
fails('another name than expected', qr/certificate is not for "other.test"/,
	"rediss://localhost:$port", @ca, server_name => 'other.test');
fails('no CA file', qr/could not load the CA file "\/nowhere"/, "rediss://localhost:$port",
	ca_file => '/nowhere');
fails('no key', qr/needs both/, "rediss://localhost:$port", @ca,
	cert_file => $certs->cert('client'));
fails('a key that does not fit', qr/could not load the key file/, "rediss://localhost:$port", @ca,
	cert_file => $certs->cert('client'), key_file => $certs->key('server'));

my ($elsewhere, $elsewhere_port) = tls_server('elsewhere', '--tls-auth-clients', 'no');
fails('a certificate for another name', qr/certificate is not for "localhost"/,
	"rediss://localhost:$elsewhere_port", @ca);
fails('a certificate for another address', qr/certificate is not for "127.0.0.1"/,
	"rediss://127.0.0.1:$elsewhere_port", @ca);
is($elsewhere->calls('ping') + $elsewhere->calls('role'), 1,
	'and nothing was sent there, but for the ping of this test');

my (undef, $expired_port) = tls_server('expired', '--tls-auth-clients', 'no');
fails('an expired certificate', qr/certificate is not accepted: certificate has expired/,
	"rediss://localhost:$expired_port", @ca);

my $plain_port = PostgreSQL::Test::Cluster::get_free_port();
my $plain = RedisServer->new('--port', $plain_port);
$plain->start;
# It answers as soon as there is what looks like the end of a line in our greeting.
fails('a server without TLS',
	qr/Redis at localhost:$plain_port (did not take up TLS within \d+ ms|failed: wrong version number)/,
	"rediss://localhost:$plain_port", @ca);

# A server that wants to know who we are.
my ($strict, $strict_port) = tls_server('server');
fails('no client certificate',
	qr/TLS with Redis at .* failed: .*(certificate required|handshake failure|decrypt error)/,
	"rediss://localhost:$strict_port", @ca);
fails('a client certificate of another CA',
	qr/TLS with Redis at .* failed: .*(unknown ca|decrypt error)/,
	"rediss://localhost:$strict_port", @ca, cert_file => $others->cert('client'),
		key_file => $others->key('client'));
reaches($strict, 'a client certificate', "rediss://localhost:$strict_port", @ca,
	cert_file => $certs->cert('client'), key_file => $certs->key('client'));

$node->stop;
done_testing();
