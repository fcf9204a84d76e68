# A server with more databases than workers, or with many: which are looked into first,
# which get a worker, and what is said where there are too few processes.

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
my $node = new_node('main', $redis, 'uncache.max_database_workers = 1',
	'uncache.wait_timeout = 0', 'log_min_messages = debug1');

sub sql { return $node->safe_psql('postgres', @_) }

sub oid_of { return sql("SELECT oid FROM pg_database WHERE datname = '$_[0]'") }

# The databases that were looked into, in order, by their OIDs.
sub probes
{
	my ($offset) = @_;

	return slurp_file($node->logfile, $offset) =~
	  /starting background worker process "pg_uncache probe of database (\d+)"/g;
}

# --- the order after a restart ---

sql('DROP EXTENSION pg_uncache');
sql("CREATE DATABASE idle_$_") foreach 1 .. 4;
sql('CREATE DATABASE served');
$node->safe_psql('served', 'CREATE EXTENSION pg_uncache');
ok(wait_for_worker($node, 'served'), 'the last of six databases has the extension');
my $served = oid_of('served');

foreach my $how ('fast', 'immediate')
{
	$node->stop($how);
	my $offset = -s $node->logfile;
	$node->start;
	ok(wait_for_worker($node, 'served'), "it has a worker after a restart ($how)");
	is((probes($offset))[0], $served, 'since it is looked into before all others');
	ok(poll_until(sub { my @all = probes($offset); @all >= 6 }), 'which are looked into, too');
}

# Without the file, and with a damaged one, all are found.
foreach my $content (undef, "\0 nothing\n99999999999999999999\n")
{
	my $file = $node->data_dir . '/pg_stat/pg_uncache.databases';

	$node->stop;
	ok(-s $file, 'there is a file');
	unlink $file;
	append_to_file($file, $content) if defined $content;
	$node->start;
	ok(wait_for_worker($node, 'served'), 'whose loss costs nothing but time');
}

# --- one that is written goes before one that is idle ---

my $offset = -s $node->logfile;
$node->safe_psql('idle_1', 'CREATE EXTENSION pg_uncache');
ok(wait_for_log($node, qr/no pg_uncache worker is left for database "idle_1"/, $offset),
	'CREATE EXTENSION alone takes no slot from anybody');
is(workers($node), 'served', 'so it has no worker');
$redis->fill('written');
$node->safe_psql('idle_1', q{SELECT uncache.invalidate_keys('written')});
ok(gone($redis, 'written'), 'a database that is written gets the worker of an idle one');
ok(wait_for_log($node,
	qr/LOG:  database "served", which was idle, has given its pg_uncache worker to one that is written.*HINT:  Increase uncache\.max_database_workers/s,
	$offset), 'and the log says so');
ok(wait_for_no_worker($node, 'served'), 'which has none any more');
$redis->fill('back');
$node->safe_psql('served', q{SELECT uncache.invalidate_keys('back')});
ok(gone($redis, 'back'), 'until it is written itself');

# One that has something to deliver, or a prepared transaction, keeps its worker.
ok(wait_for_worker($node, 'served'), 'it has the worker again');
$node->safe_psql('served',
	q{BEGIN; SELECT uncache.invalidate_keys('prepared'); PREPARE TRANSACTION 'p'});
$offset = -s $node->logfile;
$redis->fill('waits', 'prepared');
$node->safe_psql('idle_1', q{SELECT uncache.invalidate_keys('waits')});
ok(poll_until(sub { $node->safe_psql('idle_1',
	q{SELECT min(age) > '12 s' FROM uncache.backlog}) eq 't' }),
	'a database waits for longer than an idle worker is left alone');
ok($redis->has('waits'), 'while the other has a prepared transaction');
unlike(slurp_file($node->logfile, $offset), qr/has given its pg_uncache worker/,
	'and keeps its worker');
# A commit there asks for nothing, as a subscriber's apply would not; the worker looks itself.
$node->safe_psql('served', q{COMMIT PREPARED 'p'});
ok(gone($redis, 'prepared'), 'which delivers it');
ok(gone($redis, 'waits'), 'then the other has its turn');

# Both are written all the time, and no key is lost on the way.
my @keys;
foreach my $i (1 .. 3)
{
	foreach my $database ('served', 'idle_1')
	{
		push @keys, "turn:$database:$i";
		$redis->fill($keys[-1]);
		$node->safe_psql($database, "SELECT uncache.invalidate_keys('$keys[-1]')");
	}
	ok(gone($redis, $_), "$_ is deleted") foreach splice @keys;
}

# --- uncache.databases ---

$node->safe_psql('idle_2', 'CREATE EXTENSION pg_uncache');
$node->append_conf('postgresql.conf', q{uncache.databases = 'idle_2, "Nobody", idle_1'});
$offset = -s $node->logfile;
$node->restart;
ok(wait_for_worker($node, 'idle_2'), 'the first database of the list has the worker');
ok(wait_for_log($node,
	qr/WARNING:  database "Nobody" in uncache\.databases does not exist/, $offset),
	'a name that is none is warned of');
ok(wait_for_log($node, qr/no pg_uncache worker is left for database "idle_1"/, $offset),
	'the second is one too many');
is((probes($offset))[0], oid_of('idle_2'), 'they are looked into in this order');
is_deeply([sort grep { $_ != oid_of('idle_1') && $_ != oid_of('idle_2') } probes($offset)], [],
	'and no other is looked into');
$node->safe_psql('served', q{SELECT uncache.invalidate_keys('not listed')});
like($node->safe_psql('served', 'SELECT state, last_error FROM uncache.stat'),
	qr/^no worker\|uncache\.databases does not name this database/,
		'one that is not in the list is told so');
isnt($node->psql('postgres', q{SET uncache.databases = 'served'}), 0,
	'only a restart changes the list');
$node->stop;
$node->append_conf('postgresql.conf', q{uncache.databases = 'a,,b'});
$offset = -s $node->logfile;
ok(!$node->start(fail_ok => 1), 'a list that is none keeps the server from starting');
like(slurp_file($node->logfile, $offset),
	qr/FATAL:  invalid value for parameter "uncache\.databases".*Names of databases are separated by commas/s,
	'and the log says why');
$node->append_conf('postgresql.conf', q{uncache.databases = ''});

# --- processes ---

foreach my $case ([8, 5, qr/^(?!.*max_worker_processes)/s],
	[8, 6, qr/WARNING:  max_worker_processes \(8\) may be too small for pg_uncache/],
	[1, 1,
		qr/WARNING:  max_worker_processes \(1\) is too small for pg_uncache.*HINT:  Increase max_worker_processes/s])
{
	my ($processes, $databases, $pattern) = @$case;

	$node->append_conf('postgresql.conf',
		"max_worker_processes = $processes\nuncache.max_database_workers = $databases");
	$offset = -s $node->logfile;
	$node->start;
	like(slurp_file($node->logfile, $offset), $pattern,
		"max_worker_processes = $processes for $databases databases");
	$node->stop;
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal/,
	'no process has crashed');
done_testing();
