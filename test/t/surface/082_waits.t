# COMMIT's wait: it ends when it should, is answered by nobody else's answer, and
# holds up nobody else.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Faults;
use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', $proxy, 'max_connections = 150', 'uncache.ring_size = 1kB',
	'uncache.command_timeout = 60s', 'uncache.wait_timeout = 30s');

$node->safe_psql('postgres',
	'CREATE TABLE item (id int PRIMARY KEY, n int); INSERT INTO item VALUES (1, 0)');
ok(wait_for_state($node, 'connected'), 'the worker is connected');

sub stat_of
{
	my ($column) = @_;

	return $node->safe_psql('postgres', "SELECT $column FROM uncache.stat");
}

# Run pgbench with 100 clients; returns a handle like start_psql().
sub start_clients
{
	my ($times) = @_;
	my $script = $node->basedir . '/clients.sql';

	append_to_file($script,
		"SELECT uncache.invalidate_keys('clients:' || :client_id || ':' ||
			(random() * 1000)::int);\n")
	  unless -e $script;
	return start_command($node, 'pgbench', '-n', '-c', 100, '-j', 2, '-t', $times, '-f', $script,
		$node->connstr('postgres'));
}

# --- a ring of one entry, 100 clients ---

my $clients = start_clients(20);
is($clients->finish, 0, '100 clients and a ring of one entry: all have committed');
unlike($clients->err, qr/WARNING/, 'without a warning');
is(stat_of('wait_timeouts'), '0', 'and without a timeout');
cmp_ok(stat_of('ring_overflows'), '>', 0, 'although the ring ran over');
is(stat_of('waits'), '2000', 'everybody has waited');

# --- sessions with more patience than others ---

$proxy->delay(50);
my $skipped = stat_of('waits_skipped');
my (undef, undef, $impatient) = $node->psql('postgres',
	q{SET uncache.wait_timeout = '1ms'; SELECT uncache.invalidate_keys('impatient')});
like($impatient, qr/WARNING.*within 1 ms/s, 'a session waits a millisecond for Redis, in vain');
$node->psql('postgres',
	q{SET uncache.wait_timeout = '1ms'; SELECT uncache.invalidate_keys('impatient')});
is(stat_of('waits_skipped'), $skipped + 1, 'and not again');
my (undef, undef, $patient) = $node->psql('postgres', q{SELECT uncache.invalidate_keys('patient')});
is($patient, '', 'a session that is ready to wait for longer is not told otherwise');
is(stat_of('waits_skipped'), $skipped + 1, 'but waits');
$proxy->behave;
ok(delivered($node), 'all is delivered');

# --- the worker ends ---

$proxy->hold_answers;
$clients = start_clients(1);
ok($node->poll_query_until('postgres', 'SELECT waiting_backends = 100 FROM uncache.stat'),
	'100 clients wait');
my $ms = $node->safe_psql('postgres', q{
	CREATE FUNCTION end_worker() RETURNS int LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		PERFORM pg_terminate_backend(worker_pid) FROM uncache.stat;
		LOOP
			PERFORM pg_stat_clear_snapshot();
			EXIT WHEN (SELECT count(*) FROM pg_stat_activity
				WHERE state = 'active' AND wait_event_type = 'Extension'
					AND backend_type = 'client backend') = 0;
			EXIT WHEN clock_timestamp() > began + '20 s';
		END LOOP;
		RETURN extract(epoch FROM clock_timestamp() - began) * 1000;
	END $$;
	SELECT end_worker()});
cmp_ok($ms, '<', 200, "the worker ends: nobody waits any more after $ms ms");
is($clients->finish, 0, 'all have committed');
my $warnings = () = $clients->err =~ /WARNING:  Redis has not confirmed/g;
is($warnings, 100, 'each with one warning');
like($clients->err, qr/has committed/, 'that says so');
$proxy->behave;
ok(delivered($node), 'the next worker delivers');

# --- others go on ---

# Redis hangs; one commit waits, with a row that it has changed and a NOTIFY that
# it has made.  More is done before the commit.
sub start_waiter
{
	my ($key, $more) = @_;
	my $session = start_psql($node, qq{
		SET application_name = 'waiter';
		BEGIN; UPDATE item SET n = n + 1; NOTIFY other_news; SELECT uncache.invalidate_keys('$key');
		@{[ $more // '' ]} COMMIT;
		SELECT 'still here';});

	$node->poll_query_until('postgres', 'SELECT waiting_backends = 1 FROM uncache.stat')
	  or die 'nobody waits';
	return $session;
}

# Run SQL in which nobody waits for Redis; the seconds it took.
sub seconds_of
{
	my ($sql) = @_;
	my $started = time;

	$node->safe_psql('postgres', "SET uncache.wait_timeout = 0; SET lock_timeout = '10s';
		SET statement_timeout = '20s'; $sql");
	return time - $started;
}

$node->safe_psql('postgres', 'CREATE DATABASE other');
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN news');
ok(wait_for_state($node, 'connected'), 'the worker is connected');
$redis->fill('waiter:1');
$proxy->hold_unlinks;
# Who queues for the row before the commit is woken when its lock goes; who comes
# later finds it free in any case.
my $queued = start_psql($node, q{
	SET uncache.wait_timeout = 0; SET lock_timeout = '10s';
	DO $$ BEGIN
		FOR i IN 1 .. 2000 LOOP
			EXIT WHEN EXISTS (SELECT FROM pg_stat_activity
				WHERE application_name = 'waiter' AND query LIKE '%queues%');
			PERFORM pg_stat_clear_snapshot(), pg_sleep(0.01);
		END LOOP;
	END $$;
	UPDATE item SET n = n + 1});
my $waiter = start_waiter('waiter:1', q{
	DO $$ BEGIN	/* until somebody queues */
		FOR i IN 1 .. 2000 LOOP
			EXIT WHEN EXISTS (SELECT FROM pg_locks
				WHERE NOT granted AND locktype = 'transactionid');
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$;});
is($queued->finish, 0, 'a commit waits for Redis: who has queued for its row goes on');
ok($waiter->runs, 'at once');
is($node->safe_psql('postgres', 'SELECT n FROM item'), '2', 'and sees what it wrote');
cmp_ok(seconds_of('NOTIFY news'), '<', 3, 'a NOTIFY goes on');
like($listener->query('SELECT 1'), qr/Asynchronous notification "news"/, 'and arrives');
cmp_ok(seconds_of("\nDROP DATABASE other"), '<', 5, 'DROP DATABASE of another database goes on');
ok($waiter->runs, 'and the commit waits as before');
ok($redis->has('waiter:1'), 'its key is there');
$proxy->behave;
is($waiter->finish, 0, 'until Redis answers');
is($waiter->err, '', 'then it ends without a warning');
ok(!$redis->has('waiter:1'), 'and its key is gone');
$listener->quit;

# --- canceled, terminated ---

sub waiter_pid
{
	return $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE application_name = 'waiter'});
}

$proxy->hold_unlinks;
$waiter = start_waiter('waiter:2');
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . waiter_pid() . ')');
is($waiter->finish, 0, 'a canceled wait ends, and is no error');
like($waiter->err, qr/WARNING:  canceling the wait for Redis due to user request\n.*has committed/,
	'with a warning');
like($waiter->out, qr/still here/, 'the session goes on');

$waiter = start_waiter('waiter:3');
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . waiter_pid() . ')');
isnt($waiter->finish, 0, 'a terminated session ends');
like($waiter->err,
	qr/WARNING:  canceling the wait for Redis and terminating connection due to administrator command\n.*has committed/,
	'with a warning');
unlike($waiter->out, qr/still here/, 'and does nothing more');
is($node->safe_psql('postgres', 'SELECT n FROM item'), '4', 'both had committed');
$proxy->behave;
ok(delivered($node), 'and their keys are delivered');

# --- a client whose encoding has no characters for where the commit was ---

$node->safe_psql('postgres',
	q{CREATE DATABASE letters ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$node->safe_psql('letters', qq{
	CREATE EXTENSION pg_uncache;
	CREATE PROCEDURE inner_one(text) LANGUAGE plpgsql AS
		'BEGIN PERFORM uncache.invalidate_keys(''letters''); COMMIT; END';
	CREATE PROCEDURE outer_one() LANGUAGE plpgsql AS
		\$\$ BEGIN CALL inner_one('\xe6\x97\xa5'); END \$\$});
ok(wait_for_state($node, 'connected', 'letters'), 'a worker for a database with UTF8');
$proxy->hold_unlinks;
my (undef, $out, $err) = $node->psql('letters', q{
	SET client_encoding = 'LATIN1'; SET uncache.wait_timeout = '100ms';
	CALL outer_one();
	SELECT 'still here'});
like($out, qr/still here/,
	'a client that could not be told the CONTEXT of the warning: the server goes on');
like($err, qr/WARNING:.*within 100 ms\nDETAIL:.*has committed/, 'and the warning comes without it');
$proxy->behave;
ok(delivered($node, 'letters'), 'and the key is delivered');
$node->safe_psql('postgres', 'DROP DATABASE letters');

# --- no answer for another commit ---

SKIP:
{
	skip 'needs a library built with FAULT_POINTS=1', 6 unless has_fault_points($node);

	# The worker has the answer for the first commit, finds who waits for it,
	# and is stopped there.  The first wait ends, and the same session waits
	# for a second commit.  Then the worker goes on.
	my $worker = worker_pid($node);
	$node->safe_psql('postgres', q{ALTER SYSTEM SET uncache.fault_point = 'waiter-found:stop'});
	$node->reload;
	$redis->fill('first', 'second');
	ok(poll_until(sub {
		$waiter = start_psql($node, q{
			SET application_name = 'waiter';
			SELECT uncache.invalidate_keys('first');
			SELECT uncache.invalidate_keys('second');});
		return poll_until(sub { process_state($worker) eq 'T' }, 2);
	}), 'the worker has an answer for a commit');
	my $pid = waiter_pid();
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	ok($node->poll_query_until('postgres',
		q{SELECT query LIKE '%second%' AND wait_event_type = 'Extension' FROM pg_stat_activity
			WHERE application_name = 'waiter'}),
		'whose session waits for its next one by now');
	$proxy->hold_unlinks;
	kill 'CONT', $worker;
	ok(poll_until(sub { grep { $_ eq 'second' } $proxy->keys_seen }), 'the worker goes on');
	ok($redis->has('second'), 'the second key is not deleted yet');
	ok($waiter->runs && $node->safe_psql('postgres',
		'SELECT waiting_backends FROM uncache.stat') eq '1',
		'and the second commit still waits');
	$proxy->behave;
	is($waiter->finish, 0, 'until it is');
	$node->safe_psql('postgres', q{ALTER SYSTEM RESET uncache.fault_point});
	$node->reload;
}

# --- uncache.wait() while the link breaks ---

$proxy->hold_unlinks;
$redis->fill('broken');
$node->safe_psql('postgres',
	q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('broken')});
ok(poll_until(sub { grep { $_ eq 'broken' } $proxy->keys_seen }), 'a key is under way');
my $call = start_psql($node, q{SET application_name = 'caller'; SELECT uncache.wait('50 s')});
ok($node->poll_query_until('postgres',
	q{SELECT wait_event_type = 'Extension' FROM pg_stat_activity
		WHERE application_name = 'caller'}),
	'uncache.wait() waits for it');
$proxy->forget_keys;
$proxy->reset;
ok(poll_until(sub { grep { $_ eq 'broken' } $proxy->keys_seen }),
	'the link breaks: the key is under way again');
ok($redis->has('broken'), 'not deleted');
select undef, undef, undef, 0.3;	# an answer that is wrong would come at once
ok($call->runs, 'and uncache.wait() still waits');
$proxy->behave;
is($call->finish, 0, 'until it is deleted');
is($call->out, "t\n", 'then it says so');
ok(!$redis->has('broken'), 'rightly');

# --- shutdown ---

$proxy->hold_unlinks;
$waiter = start_waiter('waiter:4');
my $started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', 3, 'a fast shutdown does not wait for Redis');
isnt($waiter->finish, 0, 'the waiting session has ended');
$node->start;
$proxy->behave;
is($node->safe_psql('postgres', 'SELECT n FROM item'), '5', 'it had committed');
ok(delivered($node), 'and is delivered after the start');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
