# Locks of others, on the tables of users and on those of the library, stop neither
# deliveries nor readers, commits not for ever, and uncache.stat says who holds them.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'max_prepared_transactions = 5', "uncache.fence_ttl = '1min'",
	"uncache.after_lost_commits = 'flush'", 'autovacuum = off', "uncache.redeliver_window = '1s'");

sub sql { return $node->safe_psql('postgres', @_) }

sub last_error { return sql('SELECT last_error FROM uncache.stat') }

# Whether last_error comes to match.
sub says
{
	my ($pattern) = @_;

	return poll_until(sub { last_error() =~ $pattern });
}

# End the worker; whether there is another one in time.  uncache.stat has WARNINGs about
# locked tables, which poll_query_until() takes for a failure.
sub restart_worker
{
	my $worker = worker_pid($node);

	sql("SELECT pg_terminate_backend($worker)");
	return $node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'pg_uncache worker' AND pid <> $worker});
}

# Whether a key that is invalidated now is deleted.
my $keys = 0;
sub delivers
{
	my ($sql) = @_;
	my $key = 'key:' . ++$keys;

	$redis->fill($key);
	sql(q{SET uncache.consistency = eventual; } . ($sql // '')
		. qq{SELECT uncache.invalidate_keys('$key')});
	return gone($redis, $key);
}

sql(q{CREATE TABLE locked (id int PRIMARY KEY); SELECT uncache.attach('locked', 'locked:{id}');
	CREATE TABLE free (id int PRIMARY KEY); SELECT uncache.attach('free', 'free:{id}')});
ok(delivered($node), 'two tables with rules');

# --- a table of users, at the start after a crash ---

sql(q{BEGIN; TRUNCATE locked; PREPARE TRANSACTION 'truncates'});
$redis->fill('locked:1', 'free:1');
my $offset = -s $node->logfile;
$node->stop('immediate');
$node->start;
ok(delivers(), 'a prepared TRUNCATE does not stop deliveries after a crash');
ok(says(
	qr/table public\.locked is locked: held by prepared transaction "truncates" \(AccessExclusiveLock\)/),
	'last_error names the table and the prepared transaction');
my @lines = slurp_file($node->logfile,
	$offset) =~ /LOG:  database "postgres": table public\.locked is locked/g;
is(scalar @lines, 1, 'so does the log, once');
sub snapshot_is_null { return sql(q{SELECT uncache.snapshot('a:1') IS NULL}) eq 't' }
ok(snapshot_is_null(), 'fills are refused until it is over');
ok($redis->has('free:1'), 'and what lost commits may have left stays so long');
sql(q{ROLLBACK PREPARED 'truncates'});
ok(gone($redis, 'locked:1') && gone($redis, 'free:1'), 'then it is flushed');
ok(poll_until(sub { !snapshot_is_null() }), 'and fills are possible again');

# --- the table of the incarnation ---

my $holder = $node->background_psql('postgres');
my $pid = $holder->query_safe('SELECT pg_backend_pid()');
$holder->query_safe('BEGIN; LOCK TABLE uncache.incarnation');
is(sql(q{SET statement_timeout = '20s'; SELECT uncache.snapshot('a:1') IS NULL}), 't',
	'snapshot() does not wait for the lock on its table');
ok(restart_worker(), 'a new worker');
ok(delivers(), 'starts and delivers while that is locked');
ok(says(qr/table uncache\.incarnation is locked: held by PID $pid \(AccessExclusiveLock\)/),
	'and says by whom');
$holder->query_safe('ROLLBACK');
ok(poll_until(sub { !snapshot_is_null() }), 'when it is over snapshots are there');

# --- tables of the outbox ---

sub lock_held
{
	my ($tables) = @_;

	$holder->query_safe("BEGIN; LOCK TABLE $tables");
}

# With all but one locked, the one that was written last among them.
foreach my $free (0, 2)
{
	my $tables = join ', ', map { "uncache.outbox_$_" } grep { $_ != $free } 0 .. 3;

	lock_held($tables);
	ok(delivers(), "commits are delivered by way of outbox_$free alone");
	ok(delivers(q{SELECT uncache.invalidate_keys(VARIADIC array_agg('many:' || i))
		FROM generate_series(1, 2000) i; }),
		'those of many rows, too');
	ok(restart_worker(), 'a new worker reads it');
	ok(delivers(), 'and delivers');
	ok(says(qr/table uncache\.outbox_[0-3] is locked: held by PID $pid \(AccessExclusiveLock\)/),
		'saying what it could not read');
	is(sql(q{SELECT uncache.wait('0')}), 'f', 'wait() is not true while a table was not read');
	$holder->query_safe('ROLLBACK');
	ok(delivered($node), 'until it is free');
}

# The others are emptied while one is locked that the worker has not read.
lock_held('uncache.outbox_3');
ok(restart_worker(), 'a new worker');
ok(delivers(), 'delivers');
ok($node->poll_query_until('postgres',
	q{SELECT sum(pg_relation_size('uncache.outbox_' || i)) = 0 FROM generate_series(0, 2) i}),
	'and empties the tables that it could read');
$holder->query_safe('ROLLBACK');
ok(delivered($node), 'then the last one is read');

# Somebody waits for a lock, behind a statement that was only prepared: all commits would
# wait behind that.
my $user = $node->background_psql('postgres');
$user->query_safe('CREATE ROLE stranger; SET ROLE stranger; BEGIN');
my $user_pid = $user->query_safe('SELECT pg_backend_pid()');
$user->query_safe("PREPARE p$_ AS INSERT INTO uncache.outbox_$_ DEFAULT VALUES") foreach 0 .. 3;
my $admin = start_psql($node,
	'BEGIN; LOCK TABLE uncache.outbox_0, uncache.outbox_1, uncache.outbox_2, uncache.outbox_3');
my $waits = "SELECT count(*) = 1 FROM pg_stat_activity
	WHERE query LIKE 'LOCK TABLE%' AND wait_event_type = 'Lock'";
ok($node->poll_query_until('postgres', $waits),
	'an administrator waits for a statement that was prepared without rights');
ok(delivers(), 'commits and deliveries go on');
ok(restart_worker(), 'a new worker');
ok(says(
	qr/table uncache\.outbox_0 is locked: held by PID $user_pid \(RowExclusiveLock\), awaited by PID \d+ \(AccessExclusiveLock\)/),
	'last_error names who waits and for whom');
$user->query_safe('ROLLBACK');
is($admin->finish, 0, 'the lock is taken');

# All are locked: a commit fails in the end, and says why.
lock_held('uncache.outbox_0, uncache.outbox_1, uncache.outbox_2, uncache.outbox_3');
foreach my $sql (q{INSERT INTO free VALUES (1)},
	q{SET lock_timeout = '100ms'; INSERT INTO free VALUES (1)})
{
	my (undef, undef, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSET statement_timeout = '60s'; $sql");

	like($err,
		qr/ERROR:  55P03: could not lock the outbox of pg_uncache to record the keys of this transaction.*DETAIL:  Table "uncache\.outbox_[0-3]" is locked: held by PID $pid \(AccessExclusiveLock\)/s,
		"a commit does not wait for ever, and names who is in the way ($sql)");
}
is(sql('SELECT count(*) FROM free'), '0', 'nothing is committed without its keys');
my $patient = start_psql($node, 'INSERT INTO free VALUES (2)');
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'INSERT INTO free VALUES (2)%'}),
	'one that has just begun to wait');
$holder->query_safe('ROLLBACK');
is($patient->finish, 0, 'commits once the lock is gone');

# The same for a transaction that is to be prepared.
lock_held('uncache.outbox_side');
my (undef, undef, $err) = $node->psql('postgres',
	q{SET lock_timeout = '100ms'; BEGIN; SELECT uncache.invalidate_keys('prepared');
		PREPARE TRANSACTION 'fails'});
like($err, qr/could not lock the outbox.*Table "uncache\.outbox_side" is locked: held by PID $pid/s,
	'PREPARE TRANSACTION fails, too');
ok(delivers(), 'commits go on');
$holder->query_safe('ROLLBACK');

# --- notes ---

sql(q{ALTER SYSTEM SET uncache.outbox_max_size = '1MB'});
sql(q{ALTER SYSTEM SET uncache.delivery = off});
$node->reload;
ok(wait_for_state($node, 'paused'), 'delivery is off');
sql(q{INSERT INTO free SELECT i FROM generate_series(100, 120000) i});
cmp_ok(sql('SELECT outbox_bytes FROM uncache.stat'), '>', 1024 * 1024,
	'the outbox is over its limit');
lock_held('uncache.outbox_note');
$redis->fill('free:7', 'free:8');
sql(q{SET statement_timeout = '20s'; INSERT INTO free VALUES (7)});
$holder->query_safe('ROLLBACK');
sql(q{SET statement_timeout = '20s'; INSERT INTO free VALUES (8)});
lock_held('uncache.outbox_note');
sql(q{ALTER SYSTEM SET uncache.delivery = on});
$node->reload;
ok(gone($redis, 'free:7'), 'a key that found the notes locked is stored by itself');
ok(says(qr/table uncache\.outbox_note is locked: held by PID $pid/),
	'last_error says what keeps the notes');
ok($redis->has('free:8'), 'for which the others wait');
$holder->query_safe('ROLLBACK');
ok(gone($redis, 'free:8'), 'until they are free');
ok(delivered($node), 'and nothing is left');

$_->quit foreach $holder, $user;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
