# rediss+cluster://: all nodes of a Redis Cluster are reached through TLS alone, also
# those that are found later, and only where they can prove who they are.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Certificates;
use Fence;
use RedisCluster;
use Uncache;

my $certs = Certificates->new;
my $others = Certificates->new;
$certs->make('server', 'DNS:cache.test,IP:127.0.0.1');
$certs->make('named', 'DNS:cache.test');
$certs->make('client', 'DNS:client');

my $node = new_node('main', undef, 'uncache.command_timeout = 5s', 'uncache.connect_timeout = 5s',
	'uncache.wait_timeout = 20s');

sub sql { return $node->safe_psql('postgres', @_) }

# No server is asked before the setting is taken.
my ($status, undef, $error) = $node->psql('postgres',
	"ALTER SYSTEM SET uncache.redis_url = 'rediss+cluster://localhost'");
if ($status != 0)
{
	like($error, qr/TLS is not supported by this build/, 'this build has no TLS, and says so');
	$node->stop;
	done_testing();
	exit;
}

# Nodes that want to see a certificate of everybody.
sub options
{
	my ($name) = @_;

	return ('--tls-ca-cert-file', $certs->ca, '--tls-cert-file', $certs->cert($name),
		'--tls-key-file', $certs->key($name));
}

my @cli = ('--tls', '--cacert', $certs->ca, '--cert', $certs->cert('client'), '--key',
	$certs->key('client'));
my $redis = RedisCluster->new(tls => [ options('server') ], tls_cli => \@cli, password => 'sesame');

# Take an address and these settings.
sub reach
{
	my ($url, %tls) = @_;

	sql("ALTER SYSTEM SET uncache.redis_url = '$url'");
	sql("ALTER SYSTEM SET uncache.redis_tls_$_ = '" . ($tls{$_} // '') . q{'})
		foreach qw(ca_file cert_file key_file server_name);
	sql('SELECT uncache.stat_reset()');
	$node->reload;
	return;
}

my %tls = (ca_file => $certs->ca, cert_file => $certs->cert('client'),
	key_file => $certs->key('client'));

# Whether keys of every master are deleted, by themselves and by a pattern.
my $rounds = 0;

sub works
{
	my ($name) = @_;
	my $prefix = 'round' . ++$rounds . ':';
	my (@keys, @others);

	foreach my $master ($redis->masters)
	{
		my ($key, $other) = $redis->keys_at($master, $prefix, 2);

		push @keys, $key;
		push @others, $other;
	}

	ok(wait_for_state($node, 'connected'), "$name: connected");
	$redis->fill(@keys, @others);
	sql('SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @keys) . ')');
	ok(delivered($node), "$name: delivered");
	is(join(' ', $redis->keys("$prefix*")), join(' ', sort @others),
		"$name: keys of every master are deleted");
	sql("SELECT uncache.invalidate_pattern('$prefix*')");
	ok(delivered($node), "$name: a pattern is delivered");
	is(join(' ', $redis->keys("$prefix*")), '', "$name: everywhere");
	return;
}

sub fails
{
	my ($name, $message) = @_;

	ok(poll_until(sub { sql(q{SELECT last_error FROM uncache.stat
		WHERE state IN ('down', 'connecting')}) =~ $message }),
		"$name: the error says so") or diag sql('SELECT state, last_error FROM uncache.stat');
	return;
}

my ($seed) = $redis->ports;
reach($redis->url($seed), %tls);
works('one seed');
is(sql('SELECT redis FROM uncache.stat'), "rediss+cluster://127.0.0.1:$seed/0 (3 nodes)",
	'uncache.stat shows it, without the password');

my ($killed) = $redis->masters;
$redis->kill9($killed);
$redis->wait_for_failover($killed);
works('after a failover');
$redis->start($killed);
$redis->wait_until_ok;
my $new = $redis->add_master;
my ($from) = grep { $_ ne $new } $redis->masters;
my ($moved) = $redis->keys_at($from, 'moved:', 1);
$redis->move_slots($new, $redis->slot($moved));
$redis->fill($moved);
sql("SELECT uncache.invalidate_keys('$moved')");
ok(gone($redis, $moved), 'a redirection is followed, through TLS');

make_item($node);
sql(q{ALTER SYSTEM SET uncache.fence_ttl = '5min'});
$node->reload;
ok(fence_is_on($node), 'the fence is on');
ok(becomes_cacheable($redis, $node, $_), 'fenced fills are let through') foreach 1 .. 3;
sql(q{SET uncache.consistency = strict; UPDATE item SET v = v + 1 WHERE id < 4});
is(join(' ', map { cached($redis, "item:$_") } 1 .. 3), '  ', 'and a strict commit deletes them');

reach($redis->url($seed), %tls, ca_file => $others->ca);
fails('another CA', qr/certificate is not accepted/);
reach($redis->url($seed), ca_file => $certs->ca);
fails('no certificate of our own', qr/certificate required|tlsv13 alert|closed the connection/);
reach($redis->url($seed) =~ s/rediss/redis/r, %tls);
fails('without TLS', qr/\S/);
reach($redis->url($seed), %tls);
works('with all of it again');

# Nodes tell each other's addresses, not names: all answer to one name.
{
	my $old = $redis;

	$redis = RedisCluster->new(tls => [ options('named') ],
		tls_cli => [ @cli, '--sni', 'cache.test', '--insecure' ], replicas => 0);
	my ($seed) = $redis->ports;
	reach($redis->url($seed), %tls);
	fails('certificates without the address', qr/certificate is not for "127\.0\.0\.1"/);
	reach($redis->url($seed), %tls, server_name => 'cache.test');
	works('redis_tls_server_name');
}

unlike(slurp_file($node->logfile), qr/sesame/, 'the password is not logged');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
