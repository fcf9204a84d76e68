# What DROP EXTENSION and DROP DATABASE say of a backlog, and that DROP EXTENSION CASCADE
# does no harm to a writer.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;
use Workers;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.consistency = eventual', "deadlock_timeout = '200ms'");

sub sql { return $node->safe_psql('postgres', @_) }

# What psql says on stderr.
sub said
{
	my ($database, $sql) = @_;
	my (undef, undef, $err) = $node->psql($database, $sql);

	return $err;
}

sub database
{
	my ($name) = @_;

	sql("CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION pg_uncache');
	ok(wait_for_state($node, 'connected', $name), "$name is served");
}

# --- DROP DATABASE ---

database('clean');
$redis->fill('clean');
$node->safe_psql('clean', q{SELECT uncache.invalidate_keys('clean')});
ok(delivered($node, 'clean'), 'all is delivered');
is(said('postgres', 'DROP DATABASE clean'), '', 'then DROP DATABASE says nothing');

foreach my $how ('delivery is off', 'Redis is away', 'a prepared transaction has keys')
{
	database('owing');
	sql('ALTER DATABASE owing SET uncache.delivery = off') if $how =~ /delivery/;
	ok(wait_for_state($node, 'paused', 'owing'), 'delivery is off') if $how =~ /delivery/;
	$redis->stop if $how =~ /Redis/;
	ok(poll_until(sub { $node->safe_psql('owing',
		'SELECT state FROM uncache.stat') ne 'connected' }),
		'Redis is away') if $how =~ /Redis/;
	$node->safe_psql('owing', $how =~ /prepared/ ?
		q{BEGIN; SELECT uncache.invalidate_keys('owed'); PREPARE TRANSACTION 'p';
			COMMIT PREPARED 'p'} :
		q{SELECT uncache.invalidate_keys('owed')});
	if ($how =~ /prepared/)
	{
		# Once it has committed and is delivered nothing is owed.
		ok(delivered($node, 'owing'), 'it is finished and delivered');
		is(said('postgres', 'DROP DATABASE owing'), '', 'so DROP DATABASE says nothing');
		next;
	}
	my $offset = -s $node->logfile;

	like(said('postgres', 'ALTER DATABASE owing RENAME TO owing_2'), qr/^$/, 'RENAME says nothing');
	sql('ALTER DATABASE owing_2 RENAME TO owing');
	ok($node->poll_query_until('owing', 'SELECT worker_pid IS NOT NULL FROM uncache.stat'),
		'the worker is back');
	like(said('postgres', 'DROP DATABASE owing'),
		qr/WARNING:  dropping database "owing" with an outbox that is not delivered.*HINT:  Let SELECT uncache\.wait\(\)/s,
		"DROP DATABASE warns while $how");
	$redis->start if $how =~ /Redis/;
}

# --- DROP EXTENSION CASCADE beside a writer ---

foreach my $drop ('DROP EXTENSION pg_uncache CASCADE', 'DROP SCHEMA uncache CASCADE')
{
	ok(wait_for_state($node, 'connected'), 'Redis is there');
	sql(q{CREATE TABLE IF NOT EXISTS a (id int PRIMARY KEY, n int);
		CREATE TABLE IF NOT EXISTS b (id int PRIMARY KEY, n int);
		TRUNCATE a, b; INSERT INTO a VALUES (1, 0); INSERT INTO b VALUES (1, 0);
		SELECT uncache.attach('a', 'a:{id}'), uncache.attach('b', 'b:{id}')});
	ok(delivered($node), 'two tables with rules');
	$redis->fill('a:1', 'b:1');

	my $writer = $node->background_psql('postgres', on_error_stop => 0);
	my $offset = -s $node->logfile;

	$writer->query_safe('BEGIN; UPDATE b SET n = 1');
	my $dropper = start_psql($node, $drop);
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE query LIKE 'DROP %' AND wait_event_type = 'Lock'}), "$drop waits for a writer");
	# It holds nothing that the writer, or any other, could need.
	sql(q{SET lock_timeout = '5s'; UPDATE a SET n = 2});
	$writer->query_safe('UPDATE a SET n = 1');
	$writer->query_safe('COMMIT');
	is($dropper->finish, 0, 'which commits; then it drops');
	$writer->quit;
	is(sql('SELECT (SELECT n FROM a) + (SELECT n FROM b)'), '2', 'what was written is there');
	is(sql(q{SELECT count(*) FROM pg_extension WHERE extname = 'pg_uncache'}), '0',
		'the extension is not');
	unlike(slurp_file($node->logfile, $offset), qr/deadlock/, 'nobody had a deadlock');
	sql('DROP SCHEMA IF EXISTS uncache; CREATE EXTENSION pg_uncache');
}

# --- DROP EXTENSION without the library preloaded ---

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{'pg_uncache'});
sql('ALTER SYSTEM SET uncache.delivery = off');
$node->reload;
ok(wait_for_state($node, 'paused'), 'delivery is off');
sql(q{SELECT uncache.invalidate_keys('owed')});
$node->stop;
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->start;
foreach my $drop ('DROP EXTENSION pg_uncache', 'DROP SCHEMA uncache CASCADE')
{
	like(said('postgres', "BEGIN; $drop; ROLLBACK"),
		qr/WARNING:  dropping the outbox with 1 undelivered row/,
			"$drop warns without the library preloaded, too");
}
like(said('postgres', 'ALTER TABLE uncache.outbox_0 SET UNLOGGED'),
	qr/is not allowed on table "outbox_0"/,
	'and the tables of the library are guarded');

$node->stop;
done_testing();
