# Readers of every kind against the fence: what may be stored, and what must not.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_fenced_node('main', $redis);
my ($value, $snapshot, $token);

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub session { return $node->background_psql('postgres') }

# Change the row; when this returns its key is gone from Redis.
sub change
{
	my ($id) = @_;

	sql("UPDATE item SET v = v + 1 WHERE id = " . ($id // 1));
	# On a busy machine the commit may have waited in vain.
	die 'not delivered' unless delivered($node);
	return;
}

my $reader = session();

# --- the classic race ---

$token = miss($redis, 'item:1');
($value, $snapshot) = look($reader, $token);
change();
is(fill($redis, 'item:1', $snapshot, $value), '0', 'a late fill is refused');
is(cached($redis, 'item:1'), '', 'nothing is stored');
is(read_item($redis, $reader), '1', 'a fresh fill is stored');
is(cached($redis, 'item:1'), '2', 'and found');
change();
is(cached($redis, 'item:1'), '', 'a write deletes it');
is(read_item($redis, $reader), '1', 'and the next fill is stored');
ok(poll_until(sub { fence_stat($node, 'fills_stored = 2 AND fills_refused = 1') eq 't' }, 5),
	'uncache.stat has counted them');

# --- tokens ---

change();
$token = miss($redis, 'item:1');
like($token, qr/^\w+\.1\.\w+:/, 'the first epoch is still in force');
my $other = miss($redis, 'item:2');
($value, $snapshot) = look($reader, $other);
is(fill($redis, 'item:1', $snapshot, $value), '0', 'the token of another key is refused');
($value, $snapshot) = look($reader, $token =~ s/^./Z/r);
is(fill($redis, 'item:1', $snapshot, $value), '0', 'a token of no epoch is refused');
($value, $snapshot) = look($reader, $token =~ s/\d+$/999999/r);
is(fill($redis, 'item:1', $snapshot, $value), '0', 'a token that is yet to come is refused');
is((look($reader, $_))[1], '', "no snapshot for '$_'") foreach '', 'x', 'a:b',
	'a b:1', ':1', 'a:', 'a:1;';
is($reader->query_safe('SELECT uncache.snapshot(NULL) IS NULL'), 't', 'nor for NULL');

# Two readers with one record: the token of the first is still good for what it
# read after an invalidation, since a new statement saw it.
my ($old_value, $old_snapshot) = look($reader, $token);
change();
($value, $snapshot) = look($reader, $token);
is(fill($redis, 'item:1', $old_snapshot, $old_value), '0',
	'another invalidation: what was read before is refused');
is(fill($redis, 'item:1', $snapshot, $value), '1',
	'what the same token reads afterwards is stored');
change();
is(fill($redis, 'item:1', $snapshot, $value), '0', 'and is refused after the next');

# --- leases, and what readers report ---

change();
sub lease { return split /\n/, $redis->cli('fcall', 'uncache_get', 1, 'item:1', 60000), -1 }
my (undef, $leased) = lease();
my @waits = lease();
ok(@waits == 3 && $waits[2] > 0, 'a second reader waits for the first one');
($value, $snapshot) = look($reader, $leased);
is(fill($redis, 'item:1', $snapshot, $value), '1', 'the token of a lease is fit for a snapshot');
change();
is(scalar(@waits = lease()), 2, 'the next miss has the lease again');
change();
is(scalar(@waits = lease()), 2, 'and the next after an invalidation by the worker');

sub reports { return fence_stat($node, q{checked || ' ' || found_stale}) }
is(reports(), '0 0', 'readers have reported nothing');
$redis->cli(qw(fcall uncache_report 0 checked 1000 stale 1));
$redis->cli(qw(fcall uncache_report 0 checked 500 stale 2));
ok(poll_until(sub { reports() eq '1500 3' }, 20), 'uncache.stat has what they report')
  or diag reports();
sql('SELECT uncache.stat_reset()');
is(reports(), '0 0', 'uncache.stat_reset() forgets it');
$redis->cli(qw(fcall uncache_report 0 checked 1 stale 0));
ok(poll_until(sub { reports() eq '1 0' }, 20), 'and later reports count from there')
  or diag reports();
is(fence_stat($node, 'fills_plain'), '0', 'no value was stored plainly');
sql('INSERT INTO item SELECT i, 1 FROM generate_series(100, 107) i');
for my $i (100 .. 107)
{
	miss($redis, "item:$i");
	put($redis, $i, 'plain');
	change($i);
}
ok(poll_until(sub { fence_stat($node, 'fills_plain') > 0 }, 20),
	'one that is stored by SET counts');

# --- REPEATABLE READ, SERIALIZABLE, imported snapshots ---

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	my $old = session();

	$redis->cli('del', 'item:3', 'uncache:{item:3}');
	$old->query_safe("BEGIN ISOLATION LEVEL $level; SELECT v FROM item WHERE id = 3");
	change(3);
	$redis->cli('del', 'uncache:{item:3}');	# so that no xid is in the way
	is(read_item($redis, $old, 3), '0', "$level: a miss after the delete is refused");
	my $stored = 0;
	ok(poll_until(sub { $stored ||= read_item($redis, $old, 3); was_beaten($redis, $node,
		'item:3') }, 8), 'a beat is made');
	is($stored, '0', 'which it does not see: it is refused all the while');
	is(cached($redis, 'item:3'), '', 'nothing stale is stored');
	$old->query_safe('COMMIT');

	# Of a new record: one that begins after the beat stores.
	$redis->cli('del', 'uncache:{item:3}');
	my $answer;
	my $tries = 0;
	ok(poll_until(sub {
		$tries++;
		$old->query_safe("BEGIN ISOLATION LEVEL $level");
		$answer = read_item($redis, $old, 3);
		$old->query_safe('COMMIT');
		return $answer;
	}, 6), "$level: after a beat it is stored");
	cmp_ok($tries, '>', 1, 'not before');
	is(cached($redis, 'item:3'), sql('SELECT v FROM item WHERE id = 3'), 'the value is the latest');
	$old->quit;
}

# A table that was rewritten is empty to snapshots older than that.
foreach my $rewrite ('SET UNLOGGED', 'SET LOGGED',
	'ADD COLUMN at timestamptz DEFAULT clock_timestamp()')
{
	my $old = session();

	$redis->cli('del', 'uncache:{item:6}');
	ok(poll_until(sub {
		$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
		my $answer = read_item($redis, $old, 6);
		$old->query_safe('COMMIT');
		return $answer;
	}), 'there was a beat');
	$redis->cli('del', 'item:6');
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	$token = miss($redis, 'item:6');
	sql("ALTER TABLE item $rewrite");
	die 'not delivered' unless delivered($node);
	($value, $snapshot) = split /\|/,
		$old->query_safe("SELECT (SELECT v FROM item WHERE id = 6), uncache.snapshot('$token')"), 2;
	is($value, '', "$rewrite: an older snapshot sees no row");
	is(fill($redis, 'item:6', $snapshot, 'null'), '0', 'which is not stored');
	$old->query_safe('COMMIT');
	$old->quit;
}

my $exporter = session();
$exporter->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $exported = $exporter->query_safe('SELECT pg_export_snapshot()');
change(4);
my $importer = session();
$redis->cli('del', 'uncache:{item:4}');
$importer->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ;
	SET TRANSACTION SNAPSHOT '$exported'");
is((look($importer, miss($redis, 'item:4'), 4))[0], '1', 'an imported snapshot reads the old row');
is(read_item($redis, $importer, 4), '0', 'and is refused');
is(read_item($redis, $reader, 4), '1', 'which keeps nobody else from storing');
$importer->query_safe('COMMIT');
$exporter->query_safe('COMMIT');
$_->quit foreach $importer, $exporter;

# --- transactions that write ---

my $writer = session();
change(5);
$writer->query_safe('BEGIN; UPDATE item SET v = 100 WHERE id = 5');
is((look($writer, miss($redis, 'item:5'), 5))[1], '',
	'no snapshot in a transaction that has written');
$writer->query_safe('ROLLBACK; BEGIN; SAVEPOINT s;
	UPDATE item SET v = 100 WHERE id = 5; ROLLBACK TO s');
is((look($writer, miss($redis, 'item:5'), 5))[1], '', 'nor after a savepoint was rolled back');
$writer->query_safe('ROLLBACK; BEGIN; SELECT v FROM item WHERE id = 5 FOR UPDATE');
is((look($writer, miss($redis, 'item:5'), 5))[1], '', 'nor where rows are locked');
$writer->query_safe('ROLLBACK');
is(read_item($redis, $writer, 5), '1', 'and afterwards all is well');

# A writer that is in progress while the row is read, and commits before the fill.
change(5);
$writer->query_safe('BEGIN; UPDATE item SET v = 200 WHERE id = 5');
($value, $snapshot) = look($reader, miss($redis, 'item:5'), 5);
$writer->query_safe('COMMIT');
is(fill($redis, 'item:5', $snapshot, $value), '0', 'who was in progress is not seen');

# --- two writers of one key, committing in the opposite order of their xids ---

sql(q{
	CREATE TABLE part (id int, item int, v int);
	INSERT INTO part VALUES (1, 1, 1), (2, 1, 1);
	SELECT uncache.attach('part', 'sum:{item}')});
my $second = session();
foreach my $first_to_commit ('the older', 'the newer')
{
	my ($one, $two) = $first_to_commit eq 'the older' ? ($writer, $second) : ($second, $writer);
	my $sum = 'SELECT sum(v), uncache.snapshot($$%s$$) FROM part WHERE item = 1';

	$writer->query_safe('BEGIN; UPDATE part SET v = v + 1 WHERE id = 1');
	$second->query_safe('BEGIN; UPDATE part SET v = v + 1 WHERE id = 2');
	$token = miss($redis, 'sum:1');
	my @before = split /\|/, $reader->query_safe(sprintf $sum, $token);
	$one->query_safe('COMMIT');
	my @between = split /\|/, $reader->query_safe(sprintf $sum, $token);
	is(fill($redis, 'sum:1', $before[1], $before[0]), '0',
		"$first_to_commit commits first: what was read before both is refused");
	is(fill($redis, 'sum:1', $between[1], $between[0]), '1',
		'what was read after the first is stored');
	$two->query_safe('COMMIT');
	is($redis->cli('exists', 'sum:1'), '0', 'the second deletes it');
	is(fill($redis, 'sum:1', $between[1], $between[0]), '0',
		'and what was read between both is refused');
	my @after = split /\|/, $reader->query_safe(sprintf $sum, $token);
	is(fill($redis, 'sum:1', $after[1], $after[0]), '1', 'what was read after both is stored');
	change_part();
}

sub change_part { sql('UPDATE part SET v = v + 1 WHERE id = 1'); return }

# --- cursors ---

change(6);
$token = miss($redis, 'item:6');
$writer->query_safe("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT v, uncache.snapshot('$token')
	FROM item WHERE id = 6; COMMIT");
change(6);
($value, $snapshot) = split /\|/, $writer->query_safe('FETCH held');
is($value, '2', 'a cursor WITH HOLD has the old row');
is(fill($redis, 'item:6', $snapshot, $value), '0', 'it is refused');
$writer->query_safe('CLOSE held');

# The cursor's snapshot is old, and the token comes with the FETCH.
$writer->query_safe(q{BEGIN; DECLARE late CURSOR FOR SELECT v,
	uncache.snapshot(current_setting('my.token')) FROM item WHERE id = 6});
change(6);
$redis->cli('del', 'uncache:{item:6}');	# so that no xid is in the way
$token = miss($redis, 'item:6');
$writer->query_safe("SET my.token = '$token'");
($value, $snapshot) = split /\|/, $writer->query_safe("FETCH late /* $token */");
is($value, '3', 'a cursor that is older than the miss has the old row');
is(fill($redis, 'item:6', $snapshot, $value), '0', 'it is refused');
$writer->query_safe('COMMIT');

# --- tokens that come by other ways, during the statement ---

# Stands for a call of Redis from within the database: waits for the token that
# the test takes from Redis while the statement runs, with its old snapshot.
sql(q{
	CREATE FUNCTION arriving_token() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		LOOP
			PERFORM pg_sleep(0.01);
			IF (pg_stat_file('token', true)).size > 0 THEN
				RETURN trim(pg_read_file('token'));
			END IF;
		END LOOP;
	END $$;
	CREATE FUNCTION look_through_cursor() RETURNS text LANGUAGE plpgsql STABLE AS $$
	DECLARE
		t text;
		result text;
		c refcursor;
	BEGIN
		t := arriving_token();
		OPEN c FOR SELECT v || '|' || uncache.snapshot(t) FROM item WHERE id = 7;
		FETCH c INTO result;
		RETURN result;
	END $$;
	CREATE FUNCTION look_through_text() RETURNS text LANGUAGE plpgsql STABLE AS $$
	DECLARE
		result text;
		c refcursor;
	BEGIN
		OPEN c FOR
			EXECUTE format('SELECT v || $t$|$t$ || uncache.snapshot(%L) FROM item WHERE id = 7',
			arriving_token());
		FETCH c INTO result;
		RETURN result;
	END $$;
	CREATE TABLE kept_token (token text)});
my %ways = (
	'a subselect' => q{SELECT v, uncache.snapshot(arriving_token()) FROM item WHERE id = 7},
	'a cursor of PL/pgSQL' => 'SELECT look_through_cursor()',
	'a cursor with dynamic SQL' => 'SELECT look_through_text()',
	'an argument of EXECUTE' => q{
		PREPARE looking(text) AS SELECT v, uncache.snapshot($1) FROM item WHERE id = 7;
		EXECUTE looking(arriving_token())},
);
foreach my $way (sort keys %ways)
{
	my $file = $node->data_dir . '/token';

	unlink $file;
	my $late = start_psql($node, $ways{$way});
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'})
	  or die 'it does not wait';
	change(7);
	$redis->cli('del', 'uncache:{item:7}');	# so that no xid is in the way
	$token = miss($redis, 'item:7');
	append_to_file("$file.new", $token);
	rename "$file.new", $file or die $!;
	is($late->finish, 0, "a token through $way") or diag $late->err;
	chomp(my $row = $late->out);
	($value, $snapshot) = split /\|/, $row;
	is($value, sql('SELECT v - 1 FROM item WHERE id = 7'), 'the row is the old one');
	is(fill($redis, 'item:7', $snapshot, $value), '0', 'and is refused');
}

# The same ways are no hindrance when the token came with the statement.
change(7);
$token = miss($redis, 'item:7');
sql("INSERT INTO kept_token VALUES ('$token')");
($value, $snapshot) = split /\|/, $reader->query_safe(
	'SELECT v, uncache.snapshot((SELECT token FROM kept_token)) FROM item WHERE id = 7');
like($snapshot, qr/^\Q$token\E:[0-9a-f]{16}:0:/, 'a token out of a table is not fresh');
($value, $snapshot) = look($reader, $token, 7);
like($snapshot, qr/^\Q$token\E:[0-9a-f]{16}:1:/, 'one in the text of the statement is');
like($reader->query_safe("SELECT uncache.snapshot('${token}1')"), qr/:1:\d+:\d+:/,
	'a longer one as well');
like($reader->query_safe("SELECT uncache.snapshot(left('${token}1', -1))"),
	qr/^\Q$token\E:[^:]*:0:/, 'but not a part of it');

# The extended protocol, as drivers use it.
foreach my $mode ('extended', 'prepared')
{
	my $out = $node->basedir . "/$mode.sql";
	append_to_file($out,
		qq{SELECT 1 / (uncache.snapshot(:token) ~ '^[^:]+:[0-9]+:[^:]+:1:')::int;\n});
	$node->command_ok(['pgbench', '-n', '-t', 3, '-M', $mode, '-D', "token=$token",
		'-f', $out, 'postgres'],
		"a token in a parameter is fresh ($mode)");
}

# A function whose author forgot to declare it STABLE has a later snapshot than
# the statement that calls it and reads: that one's counts.
sql(q{
	CREATE FUNCTION wrapped(t text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_lock_shared(1);
		RETURN uncache.snapshot(t);
	END $$});
change(8);
$token = miss($redis, 'item:8');
$writer->query_safe('SELECT pg_advisory_lock(1)');
my $wrapped = start_psql($node, "SELECT v, wrapped('$token') FROM item WHERE id = 8");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE wait_event = 'advisory'}), 'a reader has begun');
change(8);
$writer->query_safe('SELECT pg_advisory_unlock(1)');
$wrapped->finish;
chomp(my $row = $wrapped->out);
($value, $snapshot) = split /\|/, $row;
is($value, '2', 'it has read the old row');
is(fill($redis, 'item:8', $snapshot, $value), '0',
	'a volatile function around uncache.snapshot() does not make it newer');

# --- a full record ---

$token = miss($redis, 'item:9');
($value, $snapshot) = look($reader, $token, 9);
change(9) foreach 1 .. 62;
my (undef, $kept) = look($reader, $token, 9);
is(fill($redis, 'item:9', $kept, 'kept'), '1', 'with 62 writers a token is still good');
change(9) foreach 1 .. 3;
my ($now, $late) = look($reader, $token, 9);
is(fill($redis, 'item:9', $late, $now), '0', 'after more than a record holds it is not');
is(fill($redis, 'item:9', $snapshot, $value), '0', 'nor is the first');
is(read_item($redis, $reader, 9), '1', 'a new token is');
is(cached($redis, 'item:9'), '66', 'with the latest value');

# --- rights, and with the fence off ---

sql('CREATE ROLE app; GRANT SELECT ON item TO app');
change();
$reader->query_safe('SET ROLE app');
is(read_item($redis, $reader), '1', 'a user without other rights can fill');
$reader->query_safe('RESET ROLE');

$_->quit foreach $reader, $writer, $second;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
