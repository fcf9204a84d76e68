# From each older version to this one, and with a library that is newer or older than the SQL
# objects: rules and backlog stay, delivery goes on, the worker says in words which step is
# due, and ALTER EXTENSION UPDATE leads to what CREATE EXTENSION makes.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;
use Versions;

my $this = this_version();
my $redis = RedisServer->new_durable;
$redis->start;

sub last_error { return $_[0]->safe_psql('postgres', 'SELECT last_error FROM uncache.stat') }

my $rules = 'SELECT relation, trigger, events, templates, enabled, problem FROM uncache.rules
	ORDER BY 1, 2';

# Rules, and with Redis away each kind of backlog.
sub make_backlog
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		CREATE TABLE item (id int PRIMARY KEY, v int);
		INSERT INTO item SELECT i, 0 FROM generate_series(1, 9) i;
		SELECT uncache.attach('item', 'item:{id}', '{{item}}:all');
		CREATE TABLE part (id int, name text) PARTITION BY RANGE (id);
		CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (10);
		SELECT uncache.attach_columns('part', '{name}', 'part:{id}')});
	ok(delivered($node), 'the old version delivers');
	$redis->fill((map { "item:$_" } 1 .. 9), '{item}:all', 'part:1', 'part:2', 'many:1',
		'many:5000', 'other:1');
	$redis->stop;
	$node->safe_psql('postgres', $_) foreach 'SET uncache.wait_timeout = 0;
		UPDATE item SET v = 1 WHERE id = 1',
		q{SET uncache.wait_timeout = 0;
		SELECT count(uncache.invalidate_keys('many:' || i)) FROM generate_series(1, 5000) i},
		q{BEGIN; UPDATE item SET v = 1 WHERE id = 2; PREPARE TRANSACTION 'two'},
		q{SET uncache.wait_timeout = 0; COMMIT PREPARED 'two'},
		'SET uncache.wait_timeout = 0; TRUNCATE part';
	return;
}

sub backlog_is_delivered
{
	my ($node, $what) = @_;

	ok(delivered($node), "$what: all is delivered");
	ok(gone($redis, $_), "$what: $_") foreach 'item:1', 'item:2', '{item}:all', 'many:1',
		'many:5000', 'part:1', 'part:2';
	ok($redis->has('item:3') && $redis->has('other:1'), "$what: and nothing else");
	return;
}

# A commit, a view and a wait in the ordinary way.
sub works
{
	my ($node, $what) = @_;

	$redis->fill('item:5');
	$node->safe_psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 5');
	ok(!$redis->has('item:5'), "$what: a COMMIT deletes its key");
	is($node->safe_psql('postgres', 'SELECT state, keys_delivered > 0 FROM uncache.stat'),
		'connected|t', "$what: uncache.stat is there");
	is($node->safe_psql('postgres', "SELECT count(*) FROM ($rules) r"), '4',
		"$what: the rules, too");
	return;
}

sub differs
{
	my ($library, $objects, $due) = @_;

	return qr/library\ pg_uncache\ is\ version\ \Q$library\E,
		\ the\ extension\ in\ this\ database\ is\ version\ \Q$objects\E:\ \Q$due\E/x;
}

foreach my $version (split / /, $ENV{UPGRADE_VERSIONS})
{
	my $made_up = $version eq 'made-up';
	my $node = new_server("from_$version", $made_up ? 'older' : $version, $redis);
	my $old = $made_up ? '0.9' : $version;

	$node->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
	is($node->safe_psql('postgres', q{SELECT extversion FROM pg_extension
		WHERE extname = 'pg_uncache'}), $old, "version $old is made");
	is(last_error($node), '', 'and its library has nothing to say');
	make_backlog($node);
	my $before = $node->safe_psql('postgres', $rules);
	$node->stop;

	# The library first.
	use_version($node, 'this');
	my $from = -s $node->logfile;
	$node->start;
	$redis->start;
	backlog_is_delivered($node, "library $this, objects $old");
	my $words = differs($this, $old, 'run ALTER EXTENSION pg_uncache UPDATE in this database');
	$node->restart;
	ok(comes_true($node, "SELECT last_error LIKE 'library%' FROM uncache.stat"),
		'last_error says it');
	like(last_error($node), $words, 'in words, with the way out');
	is(said_in_log($node, qr/WARNING: .*$words/, $from), 2,
		'the log has it once for each start');
	works($node, 'between the two steps');
	is($node->safe_psql('postgres', $rules), $before, 'the rules are as they were');

	# Then the objects.
	$node->safe_psql('postgres', 'ALTER EXTENSION pg_uncache UPDATE');
	ok(comes_true($node, q{SELECT last_error IS NULL AND state = 'connected' FROM uncache.stat}),
		'after ALTER EXTENSION UPDATE last_error is empty');
	works($node, 'updated');
	is($node->safe_psql('postgres', $rules), $before, 'the rules are as they were');
	$node->safe_psql('postgres', 'CREATE DATABASE fresh');
	$node->safe_psql('fresh', 'CREATE EXTENSION pg_uncache');
	my $fresh = catalogs($node, 'fresh');
	cmp_ok(scalar(split /\n/, $fresh), '>', 100, 'a fresh extension has many objects');
	is(catalogs($node, 'postgres'), $fresh, 'the updated one has the same');
	$node->safe_psql('postgres', 'DROP EXTENSION pg_uncache CASCADE');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relnamespace =
		(SELECT oid FROM pg_namespace WHERE nspname = 'uncache')}), '0',
		'all of it can be dropped');
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'nothing bad in the log');
	$node->stop;
	$redis->cli('flushall');
}

# --- a library that is older than the objects: an upgrade that was taken back ---

my $node = new_server('back', 'newer', $redis);
$node->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
make_backlog($node);
$node->stop;
use_version($node, 'this');
my $from = -s $node->logfile;
$node->start;
$redis->start;
backlog_is_delivered($node, "library $this, objects 1.99");
$node->restart;
ok(comes_true($node, "SELECT last_error LIKE 'library%' FROM uncache.stat"), 'last_error says it');
my $words = differs($this, '1.99', 'install the library of that version and restart the server');
like(last_error($node), $words, 'in words, with the way out');
is(said_in_log($node, qr/WARNING: .*$words/, $from), 2, 'the log has it once for each start');
works($node, 'older library');
is($node->safe_psql('postgres', 'SELECT made_up IS NULL, version FROM uncache.stat'), "t|$this",
	'a column that this library does not know is NULL');
$node->stop;
use_version($node, 'newer');
$node->start;
ok(comes_true($node, 'SELECT last_error IS NULL FROM uncache.stat'),
	'with the library of that version last_error is empty');
works($node, 'the library of that version');
$node->stop;

done_testing();
