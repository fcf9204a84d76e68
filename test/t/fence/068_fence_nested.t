# uncache.snapshot() inside functions, cursors and parallel workers: its snapshot must not be
# newer than what the statement has read.  In statements that write there is none.

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

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Each wrapper waits, as a slow statement does, and then asks in a way of its own.
# All are VOLATILE, the default: what they run has a later snapshot than their caller.
sql(q{
	CREATE FUNCTION wait_a_while() RETURNS void LANGUAGE sql AS
		'SELECT pg_advisory_lock_shared(1); SELECT pg_advisory_unlock_shared(1)';
	CREATE FUNCTION plain(t text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM wait_a_while();
		RETURN uncache.snapshot(t);
	END $$;
	CREATE FUNCTION in_loop(t text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		r record;
	BEGIN
		PERFORM wait_a_while();
		FOR r IN SELECT uncache.snapshot(t) AS s LOOP
			RETURN r.s;
		END LOOP;
	END $$;
	CREATE FUNCTION by_cursor(t text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		c CURSOR FOR SELECT uncache.snapshot(t);
		s text;
	BEGIN
		PERFORM wait_a_while();
		OPEN c;
		FETCH c INTO s;
		RETURN s;
	END $$;
	CREATE FUNCTION in_worker(t text) RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS $$
	BEGIN
		WHILE (pg_stat_file('go', true)).size IS NULL LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		RETURN uncache.snapshot(t);
	END $$;
	CREATE PROCEDURE looking(t text, INOUT v int, INOUT s text) LANGUAGE plpgsql AS $$
	BEGIN
		SELECT item.v, plain(t) INTO v, s FROM item WHERE id = 1;
	END $$;
	CREATE FUNCTION behind_a_worker(t text) RETURNS SETOF text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM wait_a_while();
		RETURN QUERY SELECT in_worker(t) FROM item WHERE id = 1;
	END $$});

my %ways = (
	'a function' => q{SELECT v, plain('TOKEN') FROM item WHERE id = 1},
	'a loop in a function' => q{SELECT v, in_loop('TOKEN') FROM item WHERE id = 1},
	'a cursor in a function' => q{SELECT v, by_cursor('TOKEN') FROM item WHERE id = 1},
	'a function in a procedure' => q{CALL looking('TOKEN', NULL, NULL)},
	'a function in EXECUTE' =>
		q{PREPARE p AS SELECT v, plain('TOKEN') FROM item WHERE id = 1; EXECUTE p},
	'a loop in EXECUTE' =>
		q{PREPARE p AS SELECT v, in_loop('TOKEN') FROM item WHERE id = 1; EXECUTE p},
	'a loop in a cursor' => q{BEGIN; DECLARE c CURSOR FOR SELECT v, in_loop('TOKEN') FROM item
		WHERE id = 1; FETCH c; COMMIT},
);

# check_late(WAY, WAIT_EVENT, SQL, GO): what the statement has read before a commit, and its
# snapshot says after it, is not stored.
sub check_late
{
	my ($way, $wait_event, $statement, $go) = @_;
	my $token = miss($redis, 'item:1');

	my $late = start_psql($node, $statement =~ s/TOKEN/$token/r);
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = '$wait_event'")
	  or die 'it does not wait';
	sql('UPDATE item SET v = v + 1 WHERE id = 1');
	delivered($node) or die 'not delivered';
	$go->();
	is($late->finish, 0, $way) or diag $late->err;
	chomp(my $row = $late->out);
	my ($value, $snapshot) = split /\|/, $row;
	is($value, sql('SELECT v - 1 FROM item WHERE id = 1'), 'the row is the old one');
	# As if it were proven that it saw all that was before the miss.
	like($snapshot, qr/:[01]:\d+:\d+:/, 'there is a snapshot');
	is(fill($redis, 'item:1', $snapshot =~ s/:0:/:1:/r, $value), '0', 'and the fill is refused');
	$redis->cli('del', 'item:1', 'uncache:{item:1}');
	return;
}

foreach my $way (sort keys %ways)
{
	my $holder = $node->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	check_late($way, 'advisory', $ways{$way},
		sub { $holder->query_safe('SELECT pg_advisory_unlock(1)') });
	$holder->quit;
}
my $parallel = q{
	SET parallel_setup_cost = 0;
	SET parallel_tuple_cost = 0;
	SET min_parallel_table_scan_size = 0;
	SET parallel_leader_participation = off;
	SET enable_indexscan = off;
	SET enable_bitmapscan = off;
};
check_late('a function in a parallel worker', 'PgSleep',
	"$parallel SELECT v, in_worker('TOKEN') FROM item WHERE id = 1",
	sub { append_to_file($node->data_dir . '/go', 'go') });
# The worker of a query within a function has the snapshot of that query alone.
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
check_late('a parallel worker behind a function', 'advisory',
	"$parallel SELECT (SELECT v FROM item WHERE id = 1), behind_a_worker('TOKEN')",
	sub { $holder->query_safe('SELECT pg_advisory_unlock(1)') });
$holder->quit;

# --- statements that write, asked before they have written ---

my %writing = (
	'a CTE that writes' => q{WITH w AS (UPDATE item SET v = 500 WHERE id = 2 RETURNING v)
		SELECT uncache.snapshot('TOKEN') || '|' || (SELECT v FROM w)},
	'a cursor in a function beside a CTE that writes' => q{WITH w AS (UPDATE item SET v = 500
		WHERE id = 2 RETURNING v)
		SELECT in_loop('TOKEN') || '|' || (SELECT v FROM w)},
	'UPDATE .. RETURNING' => q{UPDATE item SET v = 500
		FROM (SELECT uncache.snapshot('TOKEN') AS s OFFSET 0) q
		WHERE id = 2 RETURNING q.s || '|' || v},
	'EXECUTE of UPDATE .. RETURNING' => q{PREPARE w AS UPDATE item SET v = 500
		FROM (SELECT uncache.snapshot('TOKEN') AS s OFFSET 0) q
			WHERE id = 2 RETURNING q.s || '|' || v; EXECUTE w},
);
foreach my $way (sort keys %writing)
{
	my $token = miss($redis, 'item:2');

	is($node->safe_psql('postgres', 'BEGIN; ' . $writing{$way} =~ s/TOKEN/$token/r . '; ROLLBACK'),
		'', "$way: no snapshot");
}

$node->stop;
done_testing();
