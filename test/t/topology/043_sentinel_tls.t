# rediss+sentinel://: Sentinels and servers are reached through TLS alone, also
# after a failover, and only those that can prove who they are.

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
$certs->make('server', 'DNS:localhost,IP:127.0.0.1');

my $node = new_node('main', undef, 'uncache.command_timeout = 5s', 'uncache.connect_timeout = 5s');

sub sql { return $node->safe_psql('postgres', @_) }

# No server is asked before the setting is taken.
my ($status, undef, $error) = $node->psql('postgres',
	"ALTER SYSTEM SET uncache.redis_url = 'rediss+sentinel://localhost/mymaster'");
if ($status != 0)
{
	like($error, qr/TLS is not supported by this build/, 'this build has no TLS, and says so');
	$node->stop;
	done_testing();
	exit;
}

# What all of them have in common, as in a configuration file.
my %tls = (
	'tls-ca-cert-file' => $certs->ca,
	'tls-cert-file' => $certs->cert('server'),
	'tls-key-file' => $certs->key('server'),
	'tls-auth-clients' => 'no',
	'tls-replication' => 'yes',
	'bind' => '127.0.0.1');

# Servers that listen for TLS only, but for their sockets.
my %servers;
my ($master, $replica) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
foreach my $port ($master, $replica)
{
	$servers{$port} = RedisServer->new('--tls-port', $port, '--repl-diskless-sync-delay', 0,
		map { ("--$_", $tls{$_}) } keys %tls);
	$servers{$port}->start;
}
$servers{$replica}->cli('replicaof', '127.0.0.1', $master);
ok(poll_until(sub { $servers{$replica}->info('replication', 'master_link_status') eq 'up' }),
	'the replica follows');

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $sentinel = RedisServer->new_sentinel($port, 'port 0', "tls-port $port",
	(map { "$_ $tls{$_}" } keys %tls),
	"sentinel monitor mymaster 127.0.0.1 $master 1",
	'sentinel down-after-milliseconds mymaster 1000', 'sentinel failover-timeout mymaster 3000');
$sentinel->cli_options('--tls', '--cacert', $certs->ca);
$sentinel->start;
ok(poll_until(sub {
	my %seen = split /\n/, $sentinel->cli('sentinel', 'master', 'mymaster');

	return ($seen{'num-slaves'} // 0) == 1;
}), 'Sentinel knows both');

# Take an address, and believe this authority.
sub reach
{
	my ($url, $authority) = @_;

	sql("ALTER SYSTEM SET uncache.redis_tls_ca_file = '" . $authority->ca . q{'});
	sql("ALTER SYSTEM SET uncache.redis_url = '$url'");
	$node->reload;
	return;
}

sub is_at
{
	my ($port) = @_;

	return poll_until(sub {
		sql('SELECT state, redis FROM uncache.stat') eq "connected|rediss://127.0.0.1:$port/0";
	});
}

sub deletes
{
	my ($name, $server) = @_;

	$server->fill($name);
	sql("SELECT uncache.invalidate_keys('$name')");
	ok(gone($server, $name), "a key is deleted $name");
	return;
}

sub fails
{
	my ($name, $message) = @_;

	ok(poll_until(sub {
		sql(q{SELECT last_error FROM uncache.stat WHERE state = 'down'}) =~ $message }),
		"$name: the error says so") or diag sql('SELECT last_error FROM uncache.stat');
	return;
}

my $url = "rediss+sentinel://localhost:$port/mymaster";

reach($url, $certs);
ok(is_at($master), 'the master is found, through TLS');
deletes('at first', $servers{$master});

$servers{$master}->kill9;
ok(is_at($replica), 'a failover is followed');
deletes('after it', $servers{$replica});

reach($url, $others);
fails('another CA', qr/Sentinel cannot be asked: .*certificate is not accepted/);
reach("redis+sentinel://localhost:$port/mymaster", $certs);
fails('without TLS', qr/Sentinel cannot be asked: /);
sql(q{SELECT uncache.invalidate_keys('meanwhile')});
$servers{$replica}->fill('meanwhile');
reach($url, $certs);
ok(is_at($replica), 'with the right one again');
ok(gone($servers{$replica}, 'meanwhile'), 'what was committed meanwhile is deleted');

$node->stop;
done_testing();
