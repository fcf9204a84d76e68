# consistency = strict: keys are fenced before the commit, or there is none.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Faults;
use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
# A short fence_ttl, so that doubts must be renewed, and expire, before our eyes.
my $node = new_fenced_node('main', $redis, 'uncache.fence_ttl = 3s', 'uncache.ring_size = 40kB',
	"uncache.consistency = 'strict'", 'uncache.wait_timeout = 2s', 'restart_after_crash = on');

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);

my $reader = $node->background_psql('postgres');

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub value_of { return sql("SELECT v FROM item WHERE id = $_[0]") }
sub record { return $redis->cli('get', "uncache:{item:$_[0]}") }

# Start a strict transaction that stops, or whatever, at a fault point.
sub strict_at
{
	my ($fault, $id, $statement) = @_;
	my ($point) = split /:/, $fault;

	arm($node, $point);
	return start_psql($node, qq{
		SET application_name = 'strict';
		SET uncache.fault_point = '$fault';
		@{[ $statement // "UPDATE item SET v = v + 1 WHERE id = $id" ]};});
}

sub strict_pid
{
	return sql(q{SELECT coalesce(max(pid), 0) FROM pg_stat_activity
		WHERE application_name = 'strict'});
}

sub stopped
{
	my $pid;

	poll_until(sub { ($pid = strict_pid()) && process_state($pid) eq 'T' }, 20)
		or die 'it does not stop';
	return $pid;
}

# --- before the commit ---

foreach my $with_record (1, 0)
{
	my ($value, $snapshot) = (0, 'none');

	$redis->cli('del', 'uncache:{item:1}');
	($value, $snapshot) = look($reader, miss($redis, 'item:1'), 1) if $with_record;
	put($redis, 1, 'old');
	my $writer = strict_at('outbox-written:stop', 1);
	my $pid = stopped();
	is(value_of(1), $with_record ? 1 : 2, 'a strict transaction has not committed yet');
	ok(!$redis->has('item:1'), 'the value is gone');
	like(record(1), qr{:[0-9a-f]{16}/\d+\@\d+$}, 'and the transaction is noted as in doubt');
	is(fill($redis, 'item:1', $snapshot, $value), '0',
		'who read before is refused') if $with_record;
	is(read_item($redis, $reader, 1), '0', 'who reads now is refused');
	my $until = time + ($with_record ? 4 : 0);
	my $stored = 0;
	while (time < $until) { $stored ||= read_item($redis, $reader, 1); sleep 0.1 }
	is($stored, '0', 'also when longer than fence_ttl has passed');
	kill 'CONT', $pid;
	is($writer->finish, 0, 'it commits');
	is($writer->err, '', 'without a warning');
	unlike(record(1), qr/\@/, 'it is not in doubt any more');
	is(read_item($redis, $reader, 1), '1', 'who reads then may store');
	is(cached($redis, 'item:1'), $with_record ? 2 : 3, 'the new value');
	$redis->cli('del', 'item:1');
}

# A renewal is not a delivery: COMMIT waits for its own.
{
	my $writer = strict_at('outbox-written:stop', 1);
	my $pid = stopped();

	my $renewed = sub { my $before = record(1); return poll_until(sub { record(1) ne $before }) };
	ok($renewed->() && $renewed->(), 'the doubt is renewed, and again');
	$redis->freeze;
	kill 'CONT', $pid;
	is($writer->finish, 0, 'Redis hangs after the fence: it commits');
	like($writer->err, qr/WARNING:  Redis has not confirmed/, 'and says that it is not delivered');
	$redis->thaw;
	ok(delivered($node), 'it is in the end');
	ok(fence_is_on($node), 'and the fence is on again');
}

# --- rolled back ---

put($redis, 2, 1);
my $writer = strict_at('outbox-written:error', 2);
isnt($writer->finish, 0, 'an error behind the fence');
is(value_of(2), 1, 'nothing has committed');
ok(poll_until(sub { record(2) !~ /\@/ }, 2.5), 'the doubt is taken out, before it could expire');
is(read_item($redis, $reader, 2), '1', 'the key is cacheable again');

# --- Redis is away, or hangs ---

my ($status, $out, $err);
$redis->freeze;
my $began = time;
($status, $out, $err) = $node->psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 3');
isnt($status, 0, 'Redis hangs: the transaction fails');
cmp_ok(time - $began, '<', 4, 'in time');
like($err,
	qr/ERROR:  keys could not be fenced in Redis before the commit\n.*DETAIL: .*rolled back/s,
	'with an error that says so');
is(value_of(3), 1, 'nothing has committed');
$redis->thaw;
ok(becomes_cacheable($redis, $node, 3), 'the key becomes cacheable again');

$redis->kill9;
ok(wait_for_state($node, 'down'), 'Redis is gone');
($status, $out, $err) = $node->psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 3');
like($err, qr/ERROR:  keys could not be fenced .*\n.*cannot be reached/, 'the transaction fails');
is(value_of(3), 1, 'nothing has committed');
sql('BEGIN; SET LOCAL uncache.consistency = read_your_writes;
	UPDATE item SET v = v + 1 WHERE id = 3; COMMIT');
is(value_of(3), 2, 'SET LOCAL of another consistency commits');
$redis->start;
ok(fence_is_on($node), 'Redis is back, and the fence on');
sql('UPDATE item SET v = v + 1 WHERE id = 3');
is(value_of(3), 3, 'strict works again');

# --- PREPARE, SET LOCAL ---

($status, $out, $err) = $node->psql('postgres',
	q{BEGIN; UPDATE item SET v = v + 1 WHERE id = 4; PREPARE TRANSACTION 'strict'});
like($err, qr/ERROR:  cannot PREPARE a transaction with uncache.consistency = strict/,
	'PREPARE is refused');
is(sql('SELECT count(*) FROM pg_prepared_xacts') . value_of(4), '01', 'nothing is prepared');
$reader->query_safe(q{SET uncache.consistency = eventual});
$reader->query_safe(q{SET uncache.fault_point = 'doubts-put:log'});
arm($node, 'doubts-put');
$reader->query_safe('UPDATE item SET v = v + 1 WHERE id = 4');
ok(!struck($node, 'doubts-put'), 'eventual: not fenced');
$reader->query_safe('BEGIN; SET LOCAL uncache.consistency = strict;
	UPDATE item SET v = v + 1 WHERE id = 4; COMMIT');
ok(struck($node, 'doubts-put'), 'SET LOCAL strict: fenced');
is($reader->query_safe('SHOW uncache.consistency'), 'eventual', 'for that transaction only');
is(value_of(4), 3, 'both have committed');
$reader->query_safe(q{RESET uncache.fault_point; RESET uncache.consistency});

# --- many keys, and a ring in which one row of them has room ---

my $many = q{SELECT count(uncache.invalidate_keys('many:' || i)) FROM generate_series(1, 3000) i};
$redis->fill_range('many:', 1, 3000);
$redis->fill('kept');
sql($many);
is($redis->cli('exists', map { "many:$_" } 1 .. 3000), '0',
	'a strict transaction of 3000 keys: all are gone');
unlike($redis->cli('mget', map { "uncache:{many:$_}" } 1 .. 3000), qr/\@/,
	'none is in doubt any more');
$writer = strict_at('outbox-written:error', 0, $many);
isnt($writer->finish, 0, 'rolled back');
ok(poll_until(sub { $redis->cli('mget', map { "uncache:{many:$_}" } 1 .. 3000) !~ /\@/ }, 2.5),
	'all doubts are taken out');
($status, $out, $err) = $node->psql('postgres',
	q{SELECT uncache.invalidate_keys(repeat('x', 20000))});
like($err, qr/ERROR:  a key is too long/, 'a key that does not fit into a row is an error');

# --- patterns are not fenced beforehand ---

put($redis, 9, 1);
sql(q{SELECT uncache.invalidate_pattern('item:*')});
ok(delivered($node), 'a pattern is delivered');
ok(!$redis->has('item:9'), 'the key is gone');

# --- sessions that end in between ---

foreach my $how ('cancel', 'terminate')
{
	my $before = value_of(5);

	$redis->freeze;
	$writer = strict_at('none:log', 5);
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name = 'strict' AND wait_event_type = 'Extension'});
	sql("SELECT pg_${how}_backend(" . strict_pid() . ')');
	isnt($writer->finish, 0, "$how while it waits for the fence: it fails");
	unlike($writer->err, qr/committed/, 'and says nothing of a commit');
	is(value_of(5), $before, 'nothing has committed');
	$redis->thaw;
	ok(becomes_cacheable($redis, $node, 5), 'its key becomes cacheable again');
	$redis->cli('del', 'item:5');
	ok(fence_is_on($node), 'the fence is on');
}

# The worker ends while it is waited for.
my $before = value_of(5);
$writer = strict_at('doubts-put:sleep_700', 5);
poll_until(sub { struck($node, 'doubts-put') }) or die 'not reached';
my $worker = worker_pid($node);
sql("SELECT pg_terminate_backend($worker)");
my $end = $writer->finish;
ok(becomes_cacheable($redis, $node, 5), 'the worker ends: the key becomes cacheable again');
is(value_of(5), $before + ($end == 0), 'the client was told what has happened');
ok(fence_is_on($node), 'the fence is on');

# A backend, or the worker, is killed at each step: the server restarts with another
# incarnation.  What has committed is delivered, what is left in doubt expires: within
# fence_ttl and two seconds the key is cacheable again, and nothing old is stored.
sub survives
{
	my ($point, $committed, $strike) = @_;
	my $old = value_of(6);
	my $worker = worker_pid($node);

	$redis->cli('del', 'item:6', 'uncache:{item:6}');
	my (undef, $snapshot) = look($reader, miss($redis, 'item:6'), 6);
	put($redis, 6, $old);
	isnt($strike->()->finish, 0, "killed at $point");
	ok(comes_true($node,
		"SELECT state = 'connected' AND worker_pid <> $worker FROM uncache.stat"),
			'the server is up again');
	$reader = $node->background_psql('postgres');
	my $value = value_of(6);
	is($value, $old + $committed, $committed ? 'it has committed' : 'it has not committed')
		if defined $committed;
	ok(delivered($node), 'what has is delivered');
	isnt(cached($redis, 'item:6'), $old, 'the old value is not there') if $value ne $old;
	$redis->cli('del', 'item:6');
	is(fill($redis, 'item:6', $snapshot, $old), '0', 'who has read before is refused');
	my $read = '';
	my $began = time;
	ok(poll_until(sub {
		($read, $snapshot) = look($reader, miss($redis, 'item:6'), 6);
		return fill($redis, 'item:6', $snapshot, $read);
	}), 'the key becomes cacheable again');
	note sprintf '%s: cacheable %.1f s after the server was up', $point, time - $began;
	is(cached($redis, 'item:6'), $value, 'with what has been committed');
	ok(fence_is_on($node), 'and the fence is on');
	return;
}

foreach my $step (['doubts-put', 0], ['outbox-written', 0], ['commit-visible', 1],
	['handed-over', 1], ['waiting', 1])
{
	my ($point, $committed) = @$step;

	survives("$point, the backend", $committed, sub { strict_at("$point:kill9", 6) });
}

# The worker, with the doubt or with the delivery in its hands.
foreach my $point (qw(ring-taken batch-sent answered))
{
	survives("$point, the worker", undef, sub {
		arm($node, $point);
		set_conf($node, 'uncache.fault_point', "$point:kill9");
		$node->reload;
		return start_psql($node, q{UPDATE item SET v = v + 1 WHERE id = 6});
	});
	set_conf($node, 'uncache.fault_point', '');
	$node->reload;
	ok(poll_until(sub { sql('SHOW uncache.fault_point') eq '' }), 'no more of that');
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
