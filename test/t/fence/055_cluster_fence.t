# Fenced fills in a Redis Cluster: each master has an epoch of its own, and each
# key its record beside it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisCluster;
use Uncache;

my $redis = RedisCluster->new;
# Nobody commits for good without asking for it: see "strict" below.
my $node = new_fenced_node('main', $redis, q{synchronous_standby_names = 'nobody'},
	'synchronous_commit = local',
	'wal_level = replica', 'max_wal_senders = 1');
my $reader = $node->background_psql('postgres');
# It stays for the whole test, however long that takes.
$reader->set_query_timer_restart;

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub value_of { return sql("SELECT v FROM item WHERE id = $_[0]") }

# One row at each master.
my %row_at;
$row_at{ $redis->master_of("item:$_") } = $_ foreach 1 .. 9;
my @rows = map { $row_at{$_} } $redis->masters;
is(scalar(grep { defined } @rows), 3, 'there is a row at each master');

# --- late fills ---

my %epochs;
foreach my $id (@rows)
{
	my $key = "item:$id";
	my $token = miss($redis, $key);
	my ($value, $snapshot) = look($reader, $token, $id);

	isnt($token, '', 'a token is given');
	$epochs{ $token =~ s/:[^:]*$//r } = 1;
	is($redis->slot("uncache:{$key}"), $redis->slot($key), 'the record is in the slot of its key');
	ok($redis->server($redis->master_of($key))->has("uncache:{$key}"), 'and at its master');
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	is(fill($redis, $key, $snapshot, $value), '0', 'a late fill is refused');
	is(read_item($redis, $reader, $id), '1', 'a fresh one is stored');
	is(cached($redis, $key), '2', 'with the new value');
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	is(cached($redis, $key), '', 'until the next write');
}
is(scalar keys %epochs, 3, 'each master has an epoch of its own');
ok(poll_until(sub { fence_stat($node, 'fills_stored = 3 AND fills_refused = 3') eq 't' }),
	'uncache.stat adds up what all masters have counted')
  or diag fence_stat($node, q{fills_stored || ' ' || fills_refused});

# One transaction, keys at all masters; a token of one is of no use at another.
{
	my @looks = map { [ $_, look($reader, miss($redis, "item:$_"), $_) ] } @rows;

	is(fill($redis, "item:$rows[0]", $looks[1][2], 'x'), '0',
		'the snapshot for a key at another master is refused');
	sql('UPDATE item SET v = v + 1');
	is(fill($redis, "item:$_->[0]", $_->[2], $_->[1]), '0',
		'a late fill is refused, all keys in one transaction') foreach @looks;
	ok(becomes_cacheable($redis, $node, $_), 'the key is cacheable again') foreach @rows;
}

# --- beats ---

sql('UPDATE item SET v = v + 1');
foreach my $id (@rows)
{
	my $old = $node->background_psql('postgres');
	my $stored = 0;

	$redis->cli('del', "uncache:{item:$id}");
	$old->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM item WHERE id = $id");
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	$redis->cli('del', "uncache:{item:$id}");	# so that no xid is in the way
	is(read_item($redis, $old, $id), '0', 'REPEATABLE READ: a miss after the delete is refused');
	ok(poll_until(sub { $stored ||= read_item($redis, $old, $id); was_beaten($redis, $node,
		"item:$id") }), 'a beat is made');
	is($stored, '0', 'which it does not see: refused all the while');
	$old->query_safe('COMMIT');
	ok(poll_until(sub {
		$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
		my $answer = read_item($redis, $old, $id);
		$old->query_safe('COMMIT');
		return $answer;
	}), 'after a beat it is stored');
	is(cached($redis, "item:$id"), value_of($id), 'the latest value');
	$old->quit;
}

# --- patterns: a new epoch on every master ---

{
	my @looks;

	sql('UPDATE item SET v = v + 1');
	@looks = map { [ $_, look($reader, miss($redis, "item:$_"), $_) ] } @rows;
	# The tokens must be void on the masters that the TRUNCATE finds nothing at, too.
	sql(q{SET session_replication_role = replica; ALTER TABLE item DISABLE TRIGGER ALL;
		UPDATE item SET v = v + 1;
		ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_row;
			ALTER TABLE item ENABLE ALWAYS TRIGGER uncache_truncate;
		SELECT uncache.invalidate_table('item')});
	ok(delivered($node), 'a pattern is delivered');
	is(fill($redis, "item:$_->[0]", $_->[2], $_->[1]), '0',
		'a late fill is refused, on each master') foreach @looks;
	is(read_item($redis, $reader, $_), '1', 'a new one is stored at once') foreach @rows;
}

# --- strict: fenced on all masters before the commit ---

{
	my ($writer, $pid);

	sql('UPDATE item SET v = v + 1');
	my @looks = map { [ $_, look($reader, miss($redis, "item:$_"), $_) ] } @rows;
	$redis->cli('set', "item:$_", 'old', 'ex', 300) foreach @rows;
	$writer = start_psql($node, q{SET application_name = 'strict'; SET uncache.consistency = strict;
		SET uncache.wait_timeout = '20s'; SET synchronous_commit = on; UPDATE item SET v = v + 1;});
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name = 'strict' AND wait_event = 'SyncRep'}),
		'a strict transaction is about to become visible');
	foreach (@looks)
	{
		my ($id, $value, $snapshot) = @$_;

		like($redis->cli('get', "uncache:{item:$id}"), qr{:[0-9a-f]+/\d+\@\d+$},
			'it is noted as in doubt');
		ok(!$redis->has("item:$id"), 'and the value is gone');
		is(fill($redis, "item:$id", $snapshot, $value), '0', 'who read before is refused');
		is(read_item($redis, $reader, $id), '0', 'and so is who reads now');
	}
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'strict'});
	is($writer->finish, 0, 'it commits');
	ok(delivered($node), 'and is delivered');
	foreach my $id (@rows)
	{
		unlike($redis->cli('get', "uncache:{item:$id}"), qr/\@/, 'not in doubt any more');
		ok(becomes_cacheable($redis, $node, $id), 'cacheable again');
	}
}

# With one master away it fails before the commit, if it has a key there.
{
	my ($lost, $here) = @rows;
	my $away = $redis->master_of("item:$lost");
	my $before = value_of($lost);
	my $strict = q{SET uncache.consistency = strict; SET uncache.wait_timeout = '400ms';};

	$redis->server($_)->cli(qw(config set cluster-node-timeout 60000)) foreach $redis->ports;
	$redis->freeze($away);
	my ($status, undef, $err) = $node->psql('postgres',
		"$strict UPDATE item SET v = v + 1 WHERE id IN ($lost, $here)");
	isnt($status, 0, 'a master hangs: a strict transaction with a key there fails');
	like($err, qr/ERROR/, 'with an error');
	is(value_of($lost), $before, 'nothing is committed');
	($status, undef, $err) = $node->psql('postgres',
		"$strict UPDATE item SET v = v + 1 WHERE id = $here");
	is("$status$err", '0', 'one without a key there commits');
	is(cached($redis, "item:$here"), '', 'and its key is gone');
	$redis->thaw($away);
	ok(becomes_cacheable($redis, $node, $_), 'all become cacheable again') foreach $lost, $here;
	$redis->server($_)->cli(qw(config set cluster-node-timeout 2000)) foreach $redis->ports;
}

# A fence that is not on keeps those from committing who have keys there, and nobody
# else: one master that may not be given the functions.
{
	my ($lost, $here) = @rows;
	my $without = $redis->server($redis->master_of("item:$lost"));
	my $strict = 'SET uncache.consistency = strict;';
	my $before = value_of($lost);

	$without->cli(qw(acl setuser default -function|load));
	$without->cli(qw(function flush));
	$without->cli(qw(client kill type normal));
	ok($node->poll_query_until('postgres', q{SELECT fence = 'not possible' AND state = 'connected'
		FROM uncache.stat}), 'a master without the functions');
	my ($status, undef, $err) = $node->psql('postgres',
		"$strict UPDATE item SET v = v + 1 WHERE id IN ($lost, $here)");
	isnt($status, 0, 'a strict transaction with a key there fails');
	like($err, qr/ERROR:.*could not be fenced.*\n.*or has its fence off/, 'and is told why');
	is(value_of($lost), $before, 'nothing is committed');
	($status, undef, $err) = $node->psql('postgres',
		"$strict UPDATE item SET v = v + 1 WHERE id = $here");
	is("$status$err", '0', 'one without a key there commits');
	is(cached($redis, "item:$here"), '', 'and its key is gone');
	$without->cli(qw(acl setuser default +function|load));
	$without->cli(qw(client kill type normal));
	ok(becomes_cacheable($redis, $node, $_), 'all become cacheable again') foreach $lost, $here;
}

# --- a master hangs while a beat is announced: the others are delivered to ---

{
	my ($lost, $here) = @rows;
	my $away = $redis->master_of("item:$lost");
	my $worker = q{FROM pg_stat_activity WHERE backend_type = 'pg_uncache worker'};
	my $holds = "SELECT count(backend_xid) = 1 $worker";

	$redis->server($_)->cli(qw(config set cluster-node-timeout 60000)) foreach $redis->ports;
	set_conf($node, 'uncache.command_timeout', '60s');
	set_conf($node, 'uncache.wait_timeout', '30s');
	$node->reload;
	$redis->server($redis->master_of("item:$here"))->cli('set', "{item:$here}:$_", 1)
		foreach 1, 1000, 'prepared';
	# A new worker has these settings for sure.
	my $pid = sql('SELECT worker_pid FROM uncache.stat');
	sql("SELECT pg_terminate_backend($pid)");
	ok($node->poll_query_until('postgres', "SELECT fence = 'on' AND worker_pid <> $pid
		FROM uncache.stat"), 'the fence is on everywhere');
	$redis->freeze($away);

	# A fill that asks for a beat: it has not seen one since the record was born.
	my $old = $node->background_psql('postgres');
	ok(poll_until(sub {
		$redis->cli('del', "item:$here", "uncache:{item:$here}");
		$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
		read_item($redis, $old, $here);
		$old->query_safe('COMMIT');
		return sql($holds) eq 't';
	}), 'one hangs: a beat is announced, and its transaction is open');
	$old->quit;
	my (undef, undef, $err) = $node->psql('postgres',
		"SELECT uncache.invalidate_keys(VARIADIC array_agg('{item:$here}:' || i))
			FROM generate_series(1, 2000) i");
	is($err, '', 'a transaction that is too large for the ring is answered');
	sql("BEGIN; SELECT uncache.invalidate_keys('{item:$here}:prepared'); PREPARE TRANSACTION 'p';
		COMMIT PREPARED 'p'");
	ok(poll_until(sub {
		!(my @left = $redis->server($redis->master_of("item:$here"))->keys("{item:$here}:*")) }),
		'and so is one that was prepared');
	is(sql($holds), 't', 'while the beat still waits');
	$redis->thaw($away);
	ok(poll_until(sub { sql($holds) eq 'f' }), 'it hangs no more, and the beat is over');
	ok(delivered($node), 'all is delivered');
	set_conf($node, 'uncache.command_timeout', '1s');
	set_conf($node, 'uncache.wait_timeout', '5s');
	$node->reload;
	ok(becomes_cacheable($redis, $node, $_), 'all become cacheable again') foreach $lost, $here;
	$redis->server($_)->cli(qw(config set cluster-node-timeout 2000)) foreach $redis->ports;
}

# --- a slot moves, and its records with it: another master, another epoch ---

{
	my ($id) = @rows;
	my $key = "item:$id";

	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	my $token = miss($redis, $key);
	my ($value, $snapshot) = look($reader, $token, $id);
	$redis->move_slots($redis->master_of("item:$rows[1]"), $redis->slot($key));
	ok($redis->server($redis->master_of($key))->has("uncache:{$key}"),
		'a slot has moved with its records');
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(delivered($node), 'a change is delivered');
	is(fill($redis, $key, $snapshot, $value), '0', 'the late fill is refused');
	ok(becomes_cacheable($redis, $node, $id), 'the key is cacheable again');
	is(fill($redis, $key, $snapshot, 'stale'), '0', 'but not by what was read before');
}

# --- a slot half on the way: the value, its record, both or none have moved ---

foreach my $moved ([], ['value'], ['record'], ['value', 'record'])
{
	my $id = $rows[1];
	my %name = (value => "item:$id", record => "uncache:{item:$id}");
	my $slot = $redis->slot($name{value});
	my ($to) = grep { $_ ne $redis->master_of_slot($slot) } $redis->masters;

	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(becomes_cacheable($redis, $node, $id, 20), 'a value is cached');
	$redis->begin_move($slot, $to);
	$redis->move_keys($slot, map { $name{$_} } @$moved) if @$moved;
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(delivered($node),
		'delivered, ' . (@$moved ? "when @$moved had moved" : 'when nothing had moved'));
	is(join(' ', $redis->keys($name{value})), '', 'the value is gone');
	$redis->move_keys($slot);
	$redis->end_move($slot);
	$redis->wait_until_ok;
}

# --- a slot that was to move and stays: its records know what was delivered meanwhile ---

foreach my $moved ('nothing', 'value')
{
	my $id = $rows[1];
	my $key = "item:$id";
	my $slot = $redis->slot($key);
	my ($to) = grep { $_ ne $redis->master_of_slot($slot) } $redis->masters;

	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	my $token = miss($redis, $key);
	my ($value, $snapshot) = look($reader, $token, $id);
	$redis->cli('set', $key, 'old', 'ex', 300) if $moved eq 'value';
	$redis->begin_move($slot, $to);
	$redis->move_keys($slot, $key) if $moved eq 'value';
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(delivered($node), "delivered, when $moved had moved");
	$redis->cancel_move($slot);
	is(fill($redis, $key, $snapshot, $value), '0', 'the slot stays: the late fill is refused');
	ok(becomes_cacheable($redis, $node, $id, 20), 'and the key is cacheable');
}

# --- a promoted replica ---

foreach my $how ('in good order', 'after a kill')
{
	my $id = $rows[2];
	my $key = "item:$id";
	my $master = $redis->master_of($key);

	$redis->wait_until_ok;
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	my $token = miss($redis, $key);
	my ($value, $snapshot) = look($reader, $token, $id);
	poll_until(sub { $redis->server(($redis->replicas_of($master))[0])->cli(
		qw(keys uncache:*)) =~ /\Q{$key}/ })
	  or die 'the record does not reach the replica';
	if ($how eq 'in good order')
	{
		$redis->fail_over($master);
	}
	else
	{
		$redis->kill9($master);
		$redis->wait_for_failover($master);
	}
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(delivered($node), "promoted $how: a change is delivered");
	is(fill($redis, $key, $snapshot, $value), '0', 'the late fill is refused');
	ok(becomes_cacheable($redis, $node, $id, 20), 'the key becomes cacheable again');
	isnt(miss_epoch($id), $token =~ s/:[^:]*$//r, 'with a new epoch');
	is(fill($redis, $key, $snapshot, 'stale'), '0', 'what was read before is refused then, too');
	if ($how eq 'after a kill')
	{
		$redis->start($master);
		$redis->wait_until_ok;
	}
}

sub miss_epoch
{
	my ($id) = @_;

	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	return miss($redis, "item:$id") =~ s/:[^:]*$//r;
}

# --- switched off ---

set_conf($node, 'uncache.fence_ttl', '0');
$node->reload;
foreach my $id (@rows)
{
	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	ok(poll_until(sub { miss($redis, "item:$id") eq '' }), 'switched off: no tokens any more');
}

$reader->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
