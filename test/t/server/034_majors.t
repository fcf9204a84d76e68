# What differs between PostgreSQL's majors: where COMMIT waits, what a wait is
# called, database-wide timeouts, virtual generated columns.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.wait_timeout = 30s');
my $major = $node->safe_psql('postgres', 'SHOW server_version_num') / 10000;

sub sql { return $node->safe_psql('postgres', @_) }

ok(wait_for_state($node, 'connected'), 'the worker is connected');

# Every COMMIT waits, whoever commits.
my $waits = sql('SELECT waits FROM uncache.stat');
sub waited
{
	my ($count, $what) = @_;

	is(sql('SELECT waits FROM uncache.stat') - $waits, $count, $what);
	$waits += $count;
}

$redis->fill('plain', 'do:1', 'do:2', 'do:3', 'call:1', 'call:2', 'rolled back');
sql(q{SELECT uncache.invalidate_keys('plain')});
waited(1, 'a COMMIT waits');
sql(q{DO $$
	BEGIN
		FOR i IN 1 .. 3 LOOP
			PERFORM uncache.invalidate_keys('do:' || i);
			COMMIT;
		END LOOP;
	END $$});
waited(3, 'so does every COMMIT inside DO');
sql(q{
	CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM uncache.invalidate_keys('call:1');
		COMMIT;
		PERFORM uncache.invalidate_keys('rolled back');
		ROLLBACK;
		PERFORM uncache.invalidate_keys('call:2');
	END $$;
	CALL work()});
waited(2, 'and inside a procedure');
sql(q{BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT uncache.invalidate_keys('held'); COMMIT});
waited(1, 'and with a cursor that is held');
is(join(' ', $redis->keys), 'rolled back', 'each has waited until its keys were gone');

# The wait can be seen for what it is.
my $out = '';
my $err = '';
$redis->freeze;
my $client = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'),
		'-c', q{SELECT uncache.invalidate_keys('slow')} ], '>', \$out, '2>', \$err);
my $event = $major >= 17 ? 'UncacheDelivery' : 'Extension';
ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE wait_event_type = 'Extension' AND wait_event = '$event'
		AND backend_type = 'client backend'}),
	"who waits, waits for $event");
$redis->thaw;
$client->finish;
is($err, '', 'without a warning');

# A wait is no part of the transaction any more.
foreach my $setting ('statement_timeout', 'transaction_timeout')
{
	next if $setting eq 'transaction_timeout' && $major < 17;
	$redis->freeze;
	my ($status, $answer, $warning) = $node->psql('postgres',
		"SET uncache.wait_timeout = '2s'; SET $setting = '500ms';
			SELECT uncache.invalidate_keys('later'); SELECT 'still here'");
	$redis->thaw;
	is($status, 0, "$setting does not end a wait");
	like($warning, qr/WARNING:  Redis has not confirmed/, 'which ends by itself');
	like($answer, qr/still here/, 'and the session goes on');
	ok(delivered($node), 'all is delivered');
}

# No timeout of the database ends the worker.
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=0 -c lock_timeout=0';

	$ENV{PGOPTIONS} .= ' -c transaction_timeout=0' if $major >= 17;
	foreach my $setting ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
		'transaction_timeout')
	{
		next if $setting eq 'transaction_timeout' && $major < 17;
		sql("ALTER DATABASE postgres SET $setting = '1ms'");
	}

	my $worker = sql('SELECT worker_pid FROM uncache.stat');

	sql("SELECT pg_terminate_backend($worker)");
	ok($node->poll_query_until('postgres',
		"SELECT worker_pid <> $worker AND state = 'connected' FROM uncache.stat"),
		'a new worker, in a database with short timeouts');
	$worker = sql('SELECT worker_pid FROM uncache.stat');
	$redis->fill(map { "many:$_" } 1 .. 200);
	$redis->freeze;
	sql(q{SET uncache.wait_timeout = 0;
		SELECT uncache.invalidate_keys('many:' || i) FROM generate_series(1, 200) i});
	$redis->thaw;
	ok(delivered($node), 'it delivers');
	is(scalar(grep { /^many/ } $redis->keys), 0, 'what it should');
	is(sql('SELECT worker_pid FROM uncache.stat'), $worker, 'and is still the same');
	sql('ALTER DATABASE postgres RESET ALL');
}
unlike(slurp_file($node->logfile), qr/due to .* timeout/, 'no timeout has ended anything');

# Virtual columns have no value in a trigger.
SKIP:
{
	skip 'no virtual generated columns before 18', 7 if $major < 18;

	sub refused
	{
		my ($rule, $what) = @_;
		my ($status, undef, $message) = $node->psql('postgres', "SELECT $rule");

		isnt($status, 0, "refused: $what");
		like($message, qr/virtual generated column/, 'says why');
		return;
	}

	sql('CREATE TABLE item (id int PRIMARY KEY, n int,
		twice int GENERATED ALWAYS AS (n * 2) VIRTUAL)');
	refused(q{uncache.attach('item', 'twice:{twice}')}, 'a virtual column in a template');
	refused(q{uncache.attach('item', 'twice:{abs(id + twice)}')}, 'inside an expression');
	refused(q{uncache.attach_columns('item', ARRAY['twice'], 'item:{id}')},
		'as the column that has to change');

	sql(q{SELECT uncache.attach('item', 'item:{id}', 'twice:{n * 2}');
		INSERT INTO item VALUES (1, 1), (2, 2)});
	$redis->fill('item:1', 'twice:2', 'twice:20', 'twice:4');
	sql('UPDATE item SET n = 10 WHERE id = 1');
	is(join(' ', grep { /twice/ } $redis->keys), 'twice:4', 'a table that has one is served');
}

$node->stop;
done_testing();
