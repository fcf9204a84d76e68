# uncache.wait_replicas: delivered is only what enough replicas have as well.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisCluster;
use RedisServer;
use Uncache;

# A master and two replicas, on ports, since a replica has to find its master.
my ($master, @replicas) = map {
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $server = RedisServer->new('--port', $port, '--bind', '127.0.0.1',
		'--repl-diskless-sync-delay', 0,
		'--repl-ping-replica-period', 1);

	$server->start;
	$server->{tcp} = $port;
	$server;
} 1 .. 3;
foreach my $replica (@replicas)
{
	$replica->cli('replicaof', '127.0.0.1', $master->{tcp});
	ok(poll_until(sub { $replica->info('replication', 'master_link_status') eq 'up' }),
		'a replica');
}

my $node = new_node('main', $master, 'uncache.wait_replicas = 1',
	q{uncache.wait_replicas_timeout = '300ms'},
	'uncache.wait_timeout = 60s');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }
sub invalidate { return 'SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @_) . ');' }

sub set_conf_now
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	ok($node->poll_query_until('postgres',
		"SELECT setting = '$value' FROM pg_settings WHERE name = '$name'"), "$name = $value");
	return;
}

# Give the master keys, and see them at the replicas.
sub fill
{
	my @keys = @_;

	$master->fill(@keys);
	foreach my $replica (@replicas)
	{
		poll_until(sub { $replica->cli('exists', @keys) eq @keys })
			or die 'the replica has not got them';
	}
	return;
}

ok(wait_for_state($node, 'connected'), 'connected');

# --- enough of them ---

fill(map { "key:$_" } 1 .. 9);
$replicas[1]->freeze;
foreach my $n (1 .. 9)
{
	sql(invalidate("key:$n"));
	is($replicas[0]->cli('exists', "key:$n"), '0',
		'after COMMIT the key is gone from one replica at least');
}
cmp_ok($master->calls('wait'), '>', 0, 'Redis was asked to wait');
my ($waits, $batches) = ($master->calls('wait'), $master->calls('unlink'));
$replicas[1]->thaw;
sql('SET uncache.consistency = eventual;' . join '', map { invalidate("key:$_") } 1 .. 500);
ok(delivered($node), 'many more');
cmp_ok($master->calls('wait') - $waits, '<=', $master->calls('unlink') - $batches,
	'WAIT is sent for a batch, not for a key');

# Both must have it.
set_conf_now('uncache.wait_replicas', 2);
fill('key:1');
sql(invalidate('key:1'));
is(join(' ', map { $_->cli('exists', 'key:1') } @replicas), '0 0', 'two replicas: gone from both');

# --- too few ---

foreach my $case ([ 2, $replicas[1] ], [ 1, @replicas ])
{
	my ($wanted, @away) = @$case;

	set_conf_now('uncache.wait_replicas', $wanted);
	fill('key:1', 'key:2', 'pattern:1');
	$_->freeze foreach @away;
	my ($status, undef, $err) = $node->psql('postgres',
		q{SET uncache.wait_timeout = '1s';} . invalidate('key:1'));
	is($status, 0, "$wanted wanted, too few there: the commit goes on");
	like($err, qr/WARNING/, 'with a warning');
	ok(gone($master, 'key:1'), 'the key is gone from the master');
	($status, undef, $err) = $node->psql('postgres',
		q{SET uncache.wait_timeout = 0;} . invalidate('key:2')
		. q{SELECT uncache.invalidate_pattern('pattern:*')});
	ok(gone($master, 'key:2'), 'and so are others');
	ok(gone($master, 'pattern:1'), 'and those of patterns');
	is(sql(q{SELECT uncache.wait('500 ms')}), 'f', 'but it is not delivered');
	is(sql('SELECT count(*) >= 2 FROM uncache.backlog'), 't', 'and kept');
	ok(poll_until(sub { stat_of('last_error') =~ /replica/ }), 'the error says why')
		or diag stat_of('last_error');

	# The replica that is promoted now would have the key; the row is still there to delete it.
	$_->thaw foreach @away;
	ok(delivered($node), 'enough of them again: delivered');
	foreach my $replica (@replicas)
	{
		ok(gone($replica, $_), 'and gone from a replica') foreach 'key:1', 'key:2', 'pattern:1';
	}
	ok(wait_for_state($node, 'connected'), 'connected');
	ok(poll_until(sub { $node->psql('postgres', invalidate('key:3'),
		stderr => \$err); $err eq '' }), 'sessions wait without warnings again');
}

# --- off ---

set_conf_now('uncache.wait_replicas', 0);
fill('key:1');
$_->freeze foreach @replicas;
my $asked = $master->calls('wait');
my (undef, undef, $err) = $node->psql('postgres', invalidate('key:1'));
is($err, '', 'off: nobody waits for replicas');
ok(delivered($node), 'delivered without them');
is($master->calls('wait'), $asked, 'and Redis is not asked to wait');
ok(!$master->has('key:1'), 'the key is gone');

# Asked for again, what comes next waits for them.
set_conf_now('uncache.wait_replicas', 1);
sql('SET uncache.wait_timeout = 0;' . invalidate('key:2'));
is(sql(q{SELECT uncache.wait('500 ms')}), 'f', 'on again: not delivered without them');
set_conf_now('uncache.wait_replicas', 0);
ok(delivered($node), 'and off again: delivered');
$_->thaw foreach @replicas;

# --- in a cluster each master has its own ---

my $cluster = RedisCluster->new(options => [ '--cluster-replica-no-failover', 'yes' ]);
sql(q{ALTER SYSTEM SET uncache.redis_url = '} . $cluster->url . q{'});
set_conf_now('uncache.wait_replicas', 1);
ok($node->poll_query_until('postgres',
	q{SELECT redis LIKE '%cluster%' AND state = 'connected' FROM uncache.stat}), 'a cluster');
my @masters = $cluster->masters;
my @keys = map { ($cluster->keys_at($_, 'key:', 1))[0] } @masters;
$cluster->fill(@keys);
sql(invalidate(@keys));
foreach my $i (0 .. 2)
{
	my ($replica) = $cluster->replicas_of($masters[$i]);

	is(join(' ', $cluster->server($replica)->keys('key:*')), '',
		'after COMMIT the key is gone from the replica of its master');
}
# A replica that was slow just now would keep its master short of replicas for a second.
ok(delivered($node), 'all of them have acknowledged');
my ($lonely) = $cluster->replicas_of($masters[0]);
$cluster->fill($keys[0]);		# a delete of nothing has nothing to be acknowledged
ok(poll_until(sub { $cluster->server($lonely)->cli('keys', 'key:*') ne '' }),
	'whose replica has it');
$cluster->freeze($lonely);
(undef, undef, $err) = $node->psql('postgres', invalidate(@keys[ 1, 2 ]));
is($err, '', 'a replica hangs: the keys of other masters are delivered');
sql('SET uncache.wait_timeout = 0;' . invalidate($keys[0]));
is(sql(q{SELECT uncache.wait('500 ms')}), 'f', 'those of its master are not');
(undef, undef, $err) = $node->psql('postgres', invalidate(@keys[ 1, 2 ]));
is($err, '', 'which others do not notice');
$cluster->thaw($lonely);
ok(delivered($node), 'until it is back');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
