# COMMIT's wait, and what is still to be done after it: the statements of a procedure that
# a timeout or a cancel is meant for, and the files of dropped tables.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', $proxy, 'uncache.command_timeout = 60s', 'uncache.wait_timeout = 60s');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

sql(q{
	CREATE TABLE done (step text);
	CREATE PROCEDURE two_steps() LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM uncache.invalidate_keys('step');
		INSERT INTO done VALUES ('one');
		COMMIT;
		FOR i IN 1 .. 1000 LOOP
			PERFORM pg_sleep(0.001);
		END LOOP;
		INSERT INTO done VALUES ('two');
		COMMIT;
	END $$});
ok(wait_for_state($node, 'connected'), 'the worker is connected');

sub steps_done
{
	my $steps = sql(q{SELECT string_agg(step, ' ' ORDER BY step) FROM done});

	sql('TRUNCATE done');
	return $steps;
}

# --- a procedure with COMMITs ---

$proxy->hold_unlinks;
foreach my $how ('CALL two_steps()', 'DO $$ BEGIN CALL two_steps(); END $$')
{
	my ($code, undef, $err) = $node->psql('postgres', "SET statement_timeout = '300ms'; $how");

	like($err, qr/WARNING:  canceling the wait for Redis due to statement timeout\n.*has committed/,
		"$how: statement_timeout ends the wait of its COMMIT");
	like($err, qr/ERROR:  canceling statement due to statement timeout/, 'and the procedure');
	is(steps_done(), 'one', 'which does not go on');
}

sub cancel_waiter
{
	$node->poll_query_until('postgres', 'SELECT waiting_backends = 1 FROM uncache.stat')
		or die 'nobody waits';
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'waiter'});
	return;
}

my $session = start_psql($node,
	q{SET application_name = 'waiter'; CALL two_steps(); SELECT 'still here'});
cancel_waiter();
isnt($session->finish, 0, 'a procedure is canceled while its COMMIT waits');
like($session->err,
	qr/canceling the wait for Redis due to user request\n.*ERROR:  canceling statement due to user request/s,
	'the wait ends, and so does the procedure');
is(steps_done(), 'one', 'which does not go on');

$session = start_psql($node, q{SET application_name = 'waiter'; SET log_min_duration_statement = 0;
	BEGIN; INSERT INTO done VALUES ('one'); SELECT uncache.invalidate_keys('step'); COMMIT;
	INSERT INTO done VALUES ('two'); SELECT 'still here'});
cancel_waiter();
is($session->finish, 0, 'a COMMIT that is a statement of its own succeeds when it is canceled');
like($session->out, qr/still here/, 'and nothing else is canceled');
is(steps_done(), 'one two', 'the session goes on');
$proxy->behave;
ok(delivered($node), 'all is delivered');

# --- files that go with the commit ---

sql(q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item VALUES (1, 0);
	CREATE MATERIALIZED VIEW copy AS SELECT * FROM item;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'a table with a rule');

# How a transaction that changes a row, and does this, commits: waited, skipped.
sub waits_of
{
	my ($also) = @_;
	my $before = stat_of(q{waits || ' ' || waits_skipped});

	sql("BEGIN; UPDATE item SET n = n + 1; $also; COMMIT");
	my ($waits, $skipped) = split / /, $before;
	return stat_of("(waits - $waits) || ' ' || (waits_skipped - $skipped)");
}

is(waits_of('SELECT 1'), '1 0', 'a commit waits');
is(waits_of('CREATE TABLE other AS SELECT * FROM item'), '1 0', 'with a new table, too');
is(waits_of('CREATE INDEX other_n ON other (n)'), '1 0', 'and a new index');
is(waits_of('REINDEX INDEX other_n'), '0 1', 'with an index that gets a new file it does not');
is(waits_of('ALTER TABLE other ALTER n TYPE bigint'), '0 1', 'nor with a table that is rewritten');
is(waits_of('TRUNCATE other'), '0 1', 'or truncated');
is(waits_of('REFRESH MATERIALIZED VIEW copy'), '0 1', 'nor with a view that is refreshed');
is(waits_of('DROP INDEX other_n'), '0 1', 'nor with an index that is dropped');
is(waits_of('SAVEPOINT s; DROP TABLE other; ROLLBACK TO s'), '1 0',
	'it waits where that is rolled back');
is(waits_of('SAVEPOINT s; DROP TABLE other; RELEASE s'), '0 1',
	'and does not where a table is dropped');
is(waits_of('CREATE TABLE other (); DROP TABLE other'), '0 1', 'even one that it has made');
is(waits_of('CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT * FROM item'), '1 0',
	'temporary tables do not count');
is(waits_of('CREATE TEMP TABLE mine (); DROP TABLE mine'), '1 0', 'however they go');
ok(delivered($node), 'all is delivered');

# --- a crash where the wait would be ---

sql('CREATE TABLE other AS SELECT g FROM generate_series(1, 1000) g; CHECKPOINT');
my $file = $node->data_dir . '/' . sql(q{SELECT pg_relation_filepath('other')});
ok(-e $file, 'a table has a file');
$proxy->hold_unlinks;
$session = start_psql($node, q{BEGIN; UPDATE item SET n = n + 1; DROP TABLE other; COMMIT});
ok(poll_until(sub { !$session->runs || stat_of('waiting_backends') eq '1' }),
	'it is dropped, and the row changed');
sql('CHECKPOINT');	# recovery begins behind the commit
$node->stop('immediate');
$node->start;
$proxy->behave;
ok(!-e $file, 'after a crash the file is gone');
is(sql(q{SELECT to_regclass('other') IS NULL}), 't', 'as the table is');
ok(delivered($node), 'and the key is delivered');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
