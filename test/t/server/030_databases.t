# Commands that need a database without connections succeed at once while its
# worker is connected, and the worker is back where it should be afterwards.

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
my $node = new_node('main', $redis, 'uncache.max_database_workers = 5');
my $tablespace = PostgreSQL::Test::Utils::tempdir;

sub sql { return $node->safe_psql('postgres', @_) }

# A database with the extension and a worker; its worker's pid.
sub served
{
	my ($name) = @_;

	sql("CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION pg_uncache');
	return wait_for_worker($node, $name);
}

ok(wait_for_worker($node, 'postgres'), 'CREATE EXTENSION brings a worker');

# DROP, with and without FORCE, and in rapid succession.
foreach my $how ('', 'WITH (FORCE)')
{
	ok(served('gone'), "a worker for the database to drop $how");
	ok(quickly(sub { sql("DROP DATABASE gone $how") }), "DROP DATABASE $how with a live worker");
}
foreach my $i (1 .. 8)
{
	sql('CREATE DATABASE gone');
	$node->safe_psql('gone', 'CREATE EXTENSION pg_uncache');
	ok(quickly(sub { sql('DROP DATABASE gone') }), "DROP DATABASE while its worker starts ($i)");
}

# RENAME: the worker comes back to the same database under its new name.
my $pid = served('old_name');
ok(quickly(sub { sql('ALTER DATABASE old_name RENAME TO new_name') }), 'RENAME with a live worker');
ok(wait_for_new_worker($node, 'new_name', $pid), 'the renamed database has a worker');

# ... also in a transaction that takes its time, and in one that is rolled back.
foreach my $end ('COMMIT', 'ROLLBACK')
{
	my $session = $node->background_psql('postgres');

	$pid = wait_for_worker($node, 'new_name');
	$session->query_safe('BEGIN');
	$session->query_safe('ALTER DATABASE new_name RENAME TO newer_name');
	is(worker_of($node, 'new_name'), '', "no worker while the transaction is open ($end)");
	$session->query_safe($end);
	ok($end eq 'COMMIT' ? wait_for_new_worker($node, 'newer_name', $pid)
		: wait_for_new_worker($node, 'new_name', $pid), "the worker is back after $end");
	$session->quit;
	sql('ALTER DATABASE newer_name RENAME TO new_name') if $end eq 'COMMIT';
}

# A session that is killed while it holds the database.
{
	my $session = $node->background_psql('postgres');
	my $backend = $session->query_safe('SELECT pg_backend_pid()');

	$pid = wait_for_worker($node, 'new_name');
	$session->query_safe('BEGIN');
	$session->query_safe('ALTER DATABASE new_name RENAME TO newer_name');
	sql("SELECT pg_terminate_backend($backend)");
	ok(wait_for_new_worker($node, 'new_name', $pid), 'a terminated session gives up its hold');
	eval { $session->quit };
}

# SET TABLESPACE.
$pid = wait_for_worker($node, 'new_name');
sql("CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
ok(quickly(sub { sql('ALTER DATABASE new_name SET TABLESPACE elsewhere') }),
	'SET TABLESPACE with a live worker');
ok(wait_for_new_worker($node, 'new_name', $pid), 'the worker is back after it');

# Use as a template, by whoever is elsewhere and by a session of the database.
$pid = wait_for_worker($node, 'new_name');
ok(quickly(sub { sql('CREATE DATABASE copy TEMPLATE new_name') }), 'use as a template');
ok(wait_for_new_worker($node, 'new_name', $pid), 'the template has a worker again');
ok(wait_for_worker($node, 'copy'), 'so has the copy, which came with the extension');
$pid = wait_for_worker($node, 'copy');
ok(quickly(sub { $node->safe_psql('copy', 'CREATE DATABASE copy2 TEMPLATE copy') }),
	'use of the current database as a template');
ok(wait_for_new_worker($node, 'copy', $pid), 'its worker is back');
sql('DROP DATABASE copy2');

# A command that fails leaves the worker where it was.
$pid = wait_for_worker($node, 'copy');
{
	my $session = $node->background_psql('copy');
	my ($code, undef, $error) = $node->psql('postgres', 'DROP DATABASE copy');

	isnt($code, 0, 'a session of somebody else still blocks DROP DATABASE');
	like($error, qr/is being accessed by other users/, 'with the usual message');
	ok(wait_for_new_worker($node, 'copy', $pid), 'and the worker is back');
	$session->quit;
}

# Who does not own a database can't disturb its worker.
sql('CREATE ROLE stranger LOGIN CREATEDB');
$pid = wait_for_worker($node, 'copy');
foreach my $command ('DROP DATABASE copy', 'ALTER DATABASE copy RENAME TO mine',
	'CREATE DATABASE mine TEMPLATE copy')
{
	my ($code, undef, $error) = $node->psql('postgres', "SET ROLE stranger; $command");

	like($error, qr/must be owner|permission denied/, "a stranger's $command is refused");
}
is(worker_of($node, 'copy'), $pid, 'and the worker has not noticed');

# Templates and closed databases are not served; opened again they are.
sql('ALTER DATABASE copy IS_TEMPLATE true');
ok(wait_for_no_worker($node, 'copy'), 'a database that becomes a template loses its worker');
sql('ALTER DATABASE copy IS_TEMPLATE false');
ok(wait_for_worker($node, 'copy'), 'and has one again when it is none');
sql('ALTER DATABASE copy ALLOW_CONNECTIONS false');
ok(wait_for_no_worker($node, 'copy'), 'a closed database loses its worker');
sql('ALTER DATABASE copy ALLOW_CONNECTIONS true');
ok(wait_for_worker($node, 'copy'), 'and has one again when it is open');

# Databases that share a slot one after the other; nothing is left behind.
sql('DROP DATABASE copy');
sql('DROP DATABASE new_name');
foreach my $i (1 .. 6)
{
	ok(served("serial_$i"), "slot used again ($i)");
	sql("DROP DATABASE serial_$i");
}
is(workers($node), 'postgres', 'the database that is left is the one that is served');

my $log = slurp_file($node->logfile);
unlike($log, qr/no pg_uncache worker is left/, 'slots have come back every time');
unlike($log, qr/PANIC|TRAP|was terminated by signal/, 'no process has crashed');

$node->stop;
done_testing();
