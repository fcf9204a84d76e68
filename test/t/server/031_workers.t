# Workers and the launcher end for many reasons, and come back for all but two: the
# extension is gone, or there are more databases than workers.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;
use Workers;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.max_database_workers = 2',
	'restart_after_crash = on', 'log_min_messages = warning');

sub sql { return $node->safe_psql('postgres', @_) }

sub wait_for_launcher
{
	my ($old) = @_;

	return $node->poll_query_until('postgres', qq{
		SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'pg_uncache launcher' AND pid <> $old});
}

# Ended by an administrator.
my $pid = wait_for_worker($node, 'postgres');
sql("SELECT pg_terminate_backend($pid)");
ok(wait_for_new_worker($node, 'postgres', $pid), 'a terminated worker is started again');

my $launcher = launcher_of($node);
$pid = worker_of($node, 'postgres');
sql("SELECT pg_terminate_backend($launcher)");
ok(wait_for_launcher($launcher), 'a terminated launcher is started again');
is(worker_of($node, 'postgres'), $pid, 'the worker has gone on meanwhile');
sql("SELECT pg_terminate_backend($pid)");
$pid = wait_for_new_worker($node, 'postgres', $pid);
ok($pid, 'the new launcher looks after the worker of the old one');

# Both at once, again and again: never two workers for a database.
foreach my $i (1 .. 5)
{
	$launcher = launcher_of($node);
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type LIKE 'pg\_uncache%'});
	ok(wait_for_launcher($launcher), "launcher and worker ended together ($i)");
	ok(wait_for_new_worker($node, 'postgres', $pid), "both are back ($i)");
	$pid = wait_for_worker($node, 'postgres');
	like($pid, qr/^\d+$/, "one worker ($i)");
}

# A cancel ends nobody.
$launcher = launcher_of($node);
foreach my $i (1 .. 3)
{
	sql("SELECT pg_cancel_backend($pid), pg_cancel_backend($launcher), pg_reload_conf()");
	sql('SELECT pg_sleep(0.1)');
}
is(worker_of($node, 'postgres'), $pid, 'neither a cancel nor a reload ends the worker');
is(launcher_of($node), $launcher, 'nor the launcher');

# Killed: the server goes through crash recovery.
foreach my $victim ('worker', 'launcher')
{
	$pid = $victim eq 'worker' ? wait_for_worker($node, 'postgres') : launcher_of($node);
	my $offset = -s $node->logfile;

	kill 'KILL', $pid;
	ok(wait_for_log($node, qr/was terminated by signal 9/, $offset), "the $victim is killed");
	$node->poll_query_until('postgres', 'SELECT true');
	ok(wait_for_new_worker($node, 'postgres', $pid), 'there is a worker after the crash');
	like(launcher_of($node), qr/^\d+$/, 'and one launcher');
}

# CREATE and DROP EXTENSION.
sql('CREATE DATABASE cycle');
foreach my $drop ('DROP EXTENSION pg_uncache', 'DROP EXTENSION pg_uncache CASCADE',
	'DROP SCHEMA uncache CASCADE', 'DROP OWNED BY owner CASCADE')
{
	sql(q{DO $$ BEGIN CREATE ROLE owner SUPERUSER; EXCEPTION WHEN duplicate_object THEN END $$});
	$node->safe_psql('cycle', 'SET ROLE owner; CREATE EXTENSION pg_uncache');
	ok(wait_for_worker($node, 'cycle'), 'CREATE EXTENSION brings a worker');
	$node->safe_psql('cycle', $drop);
	ok(wait_for_no_worker($node, 'cycle'), "$drop sends it away");
}
foreach my $i (1 .. 10)
{
	$node->safe_psql('cycle', 'CREATE EXTENSION pg_uncache');
	$node->safe_psql('cycle', 'DROP EXTENSION pg_uncache');
}
$node->safe_psql('cycle', 'CREATE EXTENSION pg_uncache');
ok(wait_for_worker($node, 'cycle'), 'the last CREATE EXTENSION of many counts');
$node->safe_psql('cycle', 'BEGIN; DROP EXTENSION pg_uncache; ROLLBACK');
$node->safe_psql('cycle', 'BEGIN; DROP EXTENSION pg_uncache; CREATE EXTENSION pg_uncache; COMMIT');
ok(wait_for_worker($node, 'cycle'), 'there is a worker after DROP and CREATE in one transaction');

# CREATE EXTENSION while the worker, which has found no extension, is ending: the new
# worker waits at the catalog until DROP EXTENSION commits, and the launcher, which is
# stopped, hears of everything at once.
{
	my $session = $node->background_psql('cycle');
	my $old = wait_for_worker($node, 'cycle');

	$launcher = launcher_of($node);
	$session->query_safe('BEGIN; LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE');
	sql("SELECT pg_terminate_backend($old)");
	ok($node->poll_query_until('postgres', q{
		SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'cycle'
		AND backend_type = 'pg_uncache worker' AND wait_event_type = 'Lock'}),
		'the new worker waits at the catalog');
	kill 'STOP', $launcher;
	$session->query_safe('DROP EXTENSION pg_uncache');
	$session->query_safe('COMMIT');
	ok(wait_for_no_worker($node, 'cycle'), 'it finds no extension');
	$node->safe_psql('cycle', 'CREATE EXTENSION pg_uncache');
	kill 'CONT', $launcher;
	ok(wait_for_worker($node, 'cycle'), 'CREATE EXTENSION is not forgotten');
	$session->quit;
}

# The launcher ends while a worker starts, which the next launcher can't know of: one
# is ended, and one is started.
{
	my $session = $node->background_psql('cycle');
	my $old = wait_for_worker($node, 'cycle');
	my $waiting = q{FROM pg_stat_activity WHERE datname = 'cycle'
		AND backend_type = 'pg_uncache worker' AND wait_event_type = 'Lock'};

	$session->query_safe('BEGIN; LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE');
	sql("SELECT pg_terminate_backend($old)");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 $waiting");
	my $starting = sql("SELECT pid $waiting");
	$launcher = launcher_of($node);
	sql("SELECT pg_terminate_backend($launcher)");
	ok(wait_for_launcher($launcher), 'the launcher is ended while a worker starts');
	ok($node->poll_query_until('postgres',
		"SELECT count(*) = 1 AND min(pid) <> $starting $waiting"),
		'its successor starts one worker instead');
	$session->query_safe('COMMIT');
	ok($node->poll_query_until('cycle', q{SELECT state = 'connected' FROM uncache.stat}),
		'which serves the database');
	$session->quit;
}

# Who waits for a worker that goes away with the extension is told, and not left waiting.
{
	my $session = $node->background_psql('cycle');

	sql('ALTER DATABASE cycle SET uncache.delivery = off');
	ok($node->poll_query_until('cycle', q{SELECT state = 'paused' FROM uncache.stat}),
		'a worker that delivers nothing');
	$node->safe_psql('cycle', q{SELECT uncache.invalidate_keys('kept')});
	$session->query_until(qr/asking/, "\\echo asking\nSELECT 'answer ' || uncache.wait(NULL);\n");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE datname = 'cycle' AND state = 'active' AND query LIKE '%wait(NULL)%'
			AND wait_event_type = 'Extension'}),
		'a session waits');
	$node->safe_psql('cycle', 'DROP EXTENSION pg_uncache');
	like($session->query_until(qr/answer/, "\n"), qr/answer false/, 'until the extension is gone');
	$session->quit;
	sql('ALTER DATABASE cycle RESET uncache.delivery');
	$node->safe_psql('cycle', 'CREATE EXTENSION pg_uncache');
	ok(wait_for_worker($node, 'cycle'), 'the next one has a worker again');
}

# A prepared CREATE EXTENSION.
$node->safe_psql('cycle', 'DROP EXTENSION pg_uncache');
ok(wait_for_no_worker($node, 'cycle'), 'no worker before CREATE EXTENSION is prepared');
$node->safe_psql('cycle', q{BEGIN; CREATE EXTENSION pg_uncache; PREPARE TRANSACTION 'ext'});
$node->safe_psql('cycle', q{COMMIT PREPARED 'ext'});
ok(wait_for_worker($node, 'cycle'), 'COMMIT PREPARED of CREATE EXTENSION brings a worker');

# More databases than workers.  Those without the extension take no slot and are
# not warned of.
sql("CREATE DATABASE empty_$_") foreach 1 .. 4;
my $offset = -s $node->logfile;
sql('CREATE DATABASE third');
$node->safe_psql('third', 'CREATE EXTENSION pg_uncache');
ok(wait_for_log($node, qr/no pg_uncache worker is left for database "third"/, $offset),
	'the database that is one too many is warned of');
like(slurp_file($node->logfile, $offset), qr/uncache\.max_database_workers/,
	'the hint names the setting');
is(workers($node), 'cycle,postgres', 'it has no worker');
$node->safe_psql('cycle', 'DROP EXTENSION pg_uncache');
ok(wait_for_worker($node, 'third'), 'its turn comes when another one loses the extension');
$node->safe_psql('cycle', 'CREATE EXTENSION pg_uncache');
ok(wait_for_log($node, qr/no pg_uncache worker is left for database "cycle"/, $offset),
	'the other one is now one too many');
sql('DROP DATABASE third');
ok(wait_for_worker($node, 'cycle'), 'its turn comes when a database is dropped');
my @warnings = slurp_file($node->logfile, $offset) =~ /no pg_uncache worker is left/g;
is(scalar @warnings, 2, 'there was one warning for each database');

# A restart of the server finds the databases by itself.
$offset = -s $node->logfile;
$node->restart;
ok(wait_for_worker($node, $_), "$_ has a worker after a restart") foreach 'postgres', 'cycle';
unlike(slurp_file($node->logfile, $offset), qr/no pg_uncache worker is left/,
	'databases without the extension take no slot at start');

# A partition that came without our event trigger, and can't have its TRUNCATE rule
# since it has a trigger of that name: the worker starts all the same.
sql(q{
	CREATE TABLE parted (id int) PARTITION BY LIST (id);
	SELECT uncache.attach('parted', 'parted:{id}');
	ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
	CREATE TABLE part PARTITION OF parted DEFAULT;
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER uncache_truncate AFTER TRUNCATE ON part EXECUTE FUNCTION nothing();
	ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS});
$offset = -s $node->logfile;
$node->restart;
ok(wait_for_log($node, qr/trigger "uncache_truncate" for relation "part" already exists/, $offset),
	'a rule that can not be made for a partition is named in the log');
$redis->fill('parted:1');
sql('INSERT INTO parted VALUES (1)');
ok(gone($redis, 'parted:1'), 'and the worker delivers');
sql('DROP TABLE parted; DROP FUNCTION nothing');
$node->stop;

# No process to be had: says which setting, and goes on when there is one.
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$offset = -s $node->logfile;
$node->start;
ok(wait_for_log($node, qr/out of background worker slots for pg_uncache.*max_worker_processes/s,
		$offset), 'too few worker processes are warned of');
@warnings = slurp_file($node->logfile, $offset) =~ /out of background worker slots/g;
is(scalar @warnings, 1, 'once');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
ok(wait_for_worker($node, 'postgres'), 'with enough of them all is well');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal (?!9)/,
	'no process has crashed');
$node->stop;
done_testing();
