# Failovers of all kinds under load: nothing that a committed transaction touched
# is left in the master of the end, and nothing else is gone from it.
#
# The oracle is the table "touched": every change notes, in the same transaction
# and by plain SQL, which key it should delete.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use RedisSentinel;
use Uncache;

my $rows = 20000;
my $redis = RedisSentinel->new(replicas => 1);
my $master = $redis->master_port;
my $node = new_node('main', $redis, 'uncache.command_timeout = 500ms', 'uncache.wait_timeout = 100ms');

sub sql { return $node->safe_psql('postgres', @_) }

sub is_at
{
	my ($port) = @_;

	return $node->poll_query_until('postgres',
		"SELECT state = 'connected' AND redis LIKE '%:$port/0' FROM uncache.stat");
}

sql(qq{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, $rows) i;
	CREATE TABLE touched (key text);
	SELECT uncache.attach('item', 'item:{id}')});
ok(is_at($master), 'the worker is connected');
ok(delivered($node), 'and up to date');
$redis->server($master)->fill_range('item:', 1, $rows);
$redis->wait_for_replica(grep { $_ ne $master } $redis->ports);

my $script = $node->basedir . '/change.sql';
append_to_file($script, qq{
\\set id random(1, $rows)
\\set end random(0, 4)
\\set pause random(1, 20)
BEGIN;
UPDATE item SET n = n + 1 WHERE id = :id;
INSERT INTO touched VALUES ('item:' || :id);
\\if :end = 0
ROLLBACK;
\\else
COMMIT;
\\endif
\\sleep :pause ms
});
my ($out, $err) = ('', '');
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 8, '-T', 300, '-f', $script,
		'-p', $node->port, '-h', $node->host, 'postgres' ], '>', \$out, '2>', \$err);

sub commits { return sql('SELECT count(*) FROM touched') }

# A hundred commits more, whatever Redis does.
sub go_on
{
	my ($when) = @_;
	my $count = commits();

	ok(poll_until(sub { commits() >= $count + 100 }), "$when: commits go on");
	return;
}

go_on('at first');
foreach my $round (1, 2)
{
	my $old = $master;

	($redis->sentinels)[0]->cli('sentinel', 'failover', $redis->name);
	go_on("failover $round");
	$master = $redis->wait_for_other_master($old);
	ok(is_at($master), "failover $round: followed");
	$redis->wait_for_replica($old);
	go_on("after failover $round");

	# What the master has taken last never reaches the replica: not even what was on
	# its way, since the link is cut.
	$redis->server($old)->freeze;
	$redis->server($master)->cli(qw(client kill type replica));
	go_on("replica stopped $round");
	$redis->server($master)->kill9;
	$redis->server($old)->thaw;
	go_on("master killed $round");
	my $killed = $master;
	$master = $redis->wait_for_other_master($killed);
	ok(is_at($master), "master killed $round: followed");
	$redis->server($killed)->start;
	$redis->wait_for_replica($killed);
	go_on("after the kill $round");
}
$load->signal('INT');
$load->finish;
unlike($err, qr/ERROR|aborted/, 'no transaction has failed') or diag $err;
ok(is_at($master), 'the worker is connected');
ok(delivered($node), 'everything is delivered');

my %touched = map { $_ => 1 } split /\n/, sql('SELECT DISTINCT key FROM touched');
my %left = map { $_ => 1 } $redis->server($master)->keys;
my @stale = grep { $left{$_} } keys %touched;
my @early = grep { !$left{$_} && !$touched{$_} } map { "item:$_" } 1 .. $rows;
cmp_ok(scalar keys %touched, '>', 1000, 'many keys were touched');
is(scalar @stale, 0, 'no key that a committed transaction touched is left') or diag "@stale[0 .. 9]";
is(scalar @early, 0, 'no other key was deleted') or diag "@early[0 .. 9]";

$node->stop;
done_testing();
