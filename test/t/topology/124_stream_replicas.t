# The stream beside uncache.wait_replicas, which keeps rows until replicas have their deletes; and
# of two targets one is away, whose stream gets its entries later.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Stream;
use Uncache;

# On ports, since a replica has to find its master.
my ($master, $replica) = map {
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $server = RedisServer->new('--port', $port, '--bind', '127.0.0.1',
		'--repl-diskless-sync-delay', 0, '--repl-ping-replica-period', 1);

	$server->start;
	$server->{tcp} = $port;
	$server;
} 1 .. 2;
$replica->cli('replicaof', '127.0.0.1', $master->{tcp});
ok(poll_until(sub { $replica->info('replication', 'master_link_status') eq 'up' }), 'a replica');

my $node = new_node('main', $master, q{uncache.stream = 'news'}, 'uncache.wait_replicas = 1',
	q{uncache.wait_replicas_timeout = '300ms'}, 'uncache.wait_timeout = 60s',
	'uncache.command_timeout = 60s');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

# --- replicas ---

sql(q{SELECT uncache.invalidate_keys('with:1', 'with:2')});
ok(delivered($node), 'what a replica has is delivered');
is({ named_in($master, 'news') }->{$_}, 1, "$_ is named once") foreach qw(with:1 with:2);

$replica->freeze;
$master->fill('without:1');
my (undef, undef, $err) =
	$node->psql('postgres', q{SELECT uncache.invalidate_keys('without:1')});
like($err, qr/WARNING/, 'where no replica has the delete the COMMIT says so');
is($master->cli('exists', 'without:1'), '0', 'the key is deleted');
ok(are_named($master, 'news', 'without:1'), 'and named');
is(sql(q{SELECT uncache.wait('0')}), 'f', 'but its row is not delivered');
my $before = { named_in($master, 'news') }->{'without:1'};
$replica->thaw;
ok(delivered($node), 'it is when a replica is back');
cmp_ok({ named_in($master, 'news') }->{'without:1'}, '>', $before, 'and named once more');

# Rows of prepared transactions are sent again each second: they are named once while no replica
# has their deletes.  Keys that are not UTF-8 are patterns here, too.
ok(is_quiet($node, $master), 'the worker is at rest');
$replica->freeze;
$master->fill('prepared', 'other');		# a delete of nothing has nothing to be acknowledged
sql(q{BEGIN; SELECT uncache.invalidate_keys('prepared', E'latin:\\xfc', 'other');
	PREPARE TRANSACTION 'p'});
sql(q{SET uncache.wait_timeout = 0; COMMIT PREPARED 'p'});
ok(are_named($master, 'news', 'prepared', 'other'), 'the keys of a prepared transaction are named');
my $unlinks = $master->calls('unlink');
ok(poll_until(sub { $master->calls('unlink') >= $unlinks + 3 }), 'and deleted again');
is(sql(q{SELECT uncache.wait('0')}), 'f', 'while it is not delivered');
is({ named_in($master, 'news') }->{prepared}, 1, 'it is named once');
is({ patterns_in($master, 'news') }->{'latin:?'}, 1, 'the one that is not UTF-8 as a pattern');
$replica->thaw;
ok(delivered($node), 'it is delivered when a replica is back');
is({ named_in($master, 'news') }->{prepared}, 2, 'and named once more');
is({ patterns_in($master, 'news') }->{'latin:?'}, 2, 'as is the pattern');
is(stat_of('stream_entries_lost'), '0', 'no entry is lost');

# --- several targets, one of them away ---

my $other = RedisServer->new_durable;
$other->start;
sql(q{ALTER SYSTEM SET uncache.wait_replicas = 0});
sql(q{ALTER SYSTEM SET uncache.redis_url = '} . $master->url . ' ' . $other->url . q{'});
$node->reload;
ok(poll_until(sub {
	sql(q{SELECT uncache.invalidate_keys('both')});
	return $other->has('news');
}), 'two targets');
ok(is_quiet($node, $master), 'the worker is at rest');
$other->kill9;
my @keys = map { "away:$_" } 1 .. 10;
$master->fill(@keys);
sql("SELECT uncache.invalidate_keys('$_')") foreach @keys;
is(join(' ', $master->keys('away:*')), '', 'the keys are deleted at the one that is there');
ok(are_named($master, 'news', @keys), 'and named in its stream');
my %once = named_in($master, 'news');
$other->start;
ok(delivered($node), 'with the other one all is delivered');
ok(are_named($other, 'news', @keys), 'and named in its stream');
my %now = named_in($master, 'news');
is(scalar(grep { $now{$_} != $once{$_} } @keys), 0,
	'the first one, which needed nothing again, is told nothing again');

$node->stop;
done_testing();
