# pg_upgrade, here to the same major: rules and what is not delivered come along,
# and the new server delivers it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new_durable;
$redis->start;
my $old = new_node('old', $redis, 'uncache.wait_timeout = 0');

$old->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 9) i;
	SELECT uncache.attach('item', 'item:{id}', '{{item}}:all');
	CREATE DATABASE shop});
$old->safe_psql('shop', q{
	ALTER DATABASE shop SET uncache.redis_url = '} . $redis->url(2) . q{';
	CREATE EXTENSION pg_uncache;
	CREATE TABLE part (id int, name text) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (10);
	INSERT INTO part VALUES (1, 'old'), (2, 'old');
	SELECT uncache.attach_columns('part', '{name}', 'part:{id}')});
ok(delivered($old) && delivered($old, 'shop'), 'both databases are up to date');
$redis->fill((map { "item:$_" } 1 .. 9), '{item}:all', 'other:1', 'many:1', 'many:5000');
$redis->cli('-n', 2, 'mset', 'part:1', 1, 'part:2', 1);

sub there
{
	my ($db, $key) = @_;

	return $redis->cli('-n', $db, 'exists', $key) eq '1';
}

# With Redis away: a row, a transaction of several rows of the outbox, and one of
# the side table.
$redis->stop;
$old->safe_psql('postgres', 'UPDATE item SET v = 1 WHERE id = 1');
$old->safe_psql('postgres',
	q{SELECT count(uncache.invalidate_keys('many:' || i)) FROM generate_series(1, 5000) i});
$old->safe_psql('postgres', q{
	BEGIN; UPDATE item SET v = 1 WHERE id = 2; PREPARE TRANSACTION 'two'});
$old->safe_psql('postgres', q{COMMIT PREPARED 'two'});
$old->safe_psql('shop', q{UPDATE part SET name = 'new' WHERE id = 1});
my $rules = 'SELECT relation, trigger, events, templates, enabled, problem
	FROM uncache.rules ORDER BY 1, 2';
my %rules = map { $_ => $old->safe_psql($_, $rules) } 'postgres', 'shop';
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', join "\n", "shared_preload_libraries = 'pg_uncache'",
	'max_prepared_transactions = 10',
	"uncache.redis_url = '" . $redis->url . "'", '');
# All tables to it, and nothing back: a worker of the old server never runs again.
chdir $new->basedir or die $!;
my $programs = $new->config_data('--bindir');
command_ok([ 'pg_upgrade', '-d', $old->data_dir, '-D', $new->data_dir, '-b',
	$programs, '-B', $programs,
	'-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade succeeds');
unlike(slurp_file($new->logfile), qr/pg_uncache worker/, 'without a worker') if -e $new->logfile;

$redis->start;
ok(there(0, 'item:1') && there(0, 'many:5000') && there(2, 'part:1'),
	'what was not delivered is in Redis');
$new->start;
ok(gone($redis, 'item:1'), 'the new server delivers what the old one had not');
ok(gone($redis, '{item}:all'), 'every key of it');
ok(gone($redis, 'many:1') && gone($redis, 'many:5000'), 'of a large transaction');
ok(gone($redis, 'item:2'), 'of a prepared one');
ok(poll_until(sub { !there(2, 'part:1') }), 'of another database, with its own address');
ok(delivered($new) && delivered($new, 'shop'), 'nothing is left to deliver');
ok($redis->has('item:3') && $redis->has('other:1') && there(2, 'part:2'),
	'nothing else is deleted');
is($new->safe_psql($_, $rules), $rules{$_}, "the rules in $_ are as they were")
	foreach 'postgres', 'shop';

$new->safe_psql('postgres', 'UPDATE item SET v = 2 WHERE id = 3');
ok(!$redis->has('item:3'), 'and they work');
$new->safe_psql('shop', q{UPDATE part SET name = 'new' WHERE id = 2});
ok(!there(2, 'part:2'), 'in both databases');
$redis->cli('-n', 2, 'set', 'part:2', 1);
$new->safe_psql('shop', 'TRUNCATE part_1');
ok(poll_until(sub { !there(2, 'part:2') }), 'also for TRUNCATE of a partition');
my ($status, undef, $err) = $new->psql('postgres', 'ALTER TABLE item DROP COLUMN id');
like($err, qr/ERROR/, 'a column that a rule needs is still protected');
$new->restart;
ok(wait_for_state($new, 'connected'), 'after a restart the worker is back');
unlike(slurp_file($new->logfile), qr/PANIC|TRAP|WARNING/, 'nothing bad in the log');

$new->stop;
done_testing();
