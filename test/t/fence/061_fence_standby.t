# Readers on a standby: nothing stale while it lags, and not refused for ever.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Fence;
use RedisServer;
use Uncache;
use Workers;

my $redis = RedisServer->new;
$redis->start;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', join "\n",
	"shared_preload_libraries = 'pg_uncache'",
	"uncache.redis_url = '" . $redis->url . "'",
	"uncache.fence_ttl = '5min'",
	'uncache.wait_timeout = 5s',
	"uncache.after_lost_commits = 'flush'", '');
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
make_item($primary);
ok(fence_is_on($primary), 'the fence is on');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub catch_up { return $primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert')) }

sub change
{
	my ($id) = @_;

	$primary->safe_psql('postgres', "UPDATE item SET v = v + 1 WHERE id = $id");
	return;
}

# Read through the standby until it is stored; the number of refused fills.
sub refused_until_stored
{
	my ($id) = @_;
	my $refused = 0;

	return poll_until(sub {
		return 1 if read_item($redis, $standby, $id);
		$refused++;
		return 0;
	}) ? $refused : 'never stored';
}

catch_up();

# --- up to date, then lagging ---

my $refused = refused_until_stored(1);
cmp_ok($refused, '>', 0, 'on a standby the first fill of a record is refused');
is(cached($redis, 'item:1'), '1', 'a later one is stored, once a beat has come by');
change(1);
catch_up();
is(read_item($redis, $standby, 1), '1', 'and then at once, as long as the record lives');

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
ok($standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'}),
	'replay is paused');
change(1);
is((look($standby, miss($redis, 'item:1')))[0], '2', 'the standby has the old row');
is(read_item($redis, $standby, 1), '0', 'it is refused, since the record knows the writer');

# A record that was born after the delete knows nothing of the writer.
change(2);
$redis->cli('del', 'uncache:{item:2}');
is(read_item($redis, $standby, 2), '0', 'refused too, although the record knows of no writer');
my $stored = 0;
ok(poll_until(sub { $stored ||= read_item($redis, $standby, 2); was_beaten($redis, $primary,
	'item:2') }), 'a beat is made');
is($stored, '0', 'and all the while it is refused');
is((look($standby, miss($redis, 'item:2'), 2))[0], '1', 'the standby still has the old row');
is(read_item($redis, $standby, 2), '0', 'and has not seen the beat: refused');
is($redis->cli('exists', 'item:1', 'item:2'), '0', 'nothing is stored');
is(read_item($redis, $primary, 2), '1', 'while a reader on the primary stores');
change(2);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
catch_up();
is(read_item($redis, $standby, 2), '1', 'after replay the next miss stores');
is(cached($redis, 'item:2'), '3', 'the latest value');
is(read_item($redis, $standby, 1), '1', 'of the other one as well');
is(cached($redis, 'item:1'), '3', 'the latest value');

# --- what runs on the primary is not visible on the standby, though no
# snapshot's list of top-level transactions shows it there ---

foreach my $subtransactions (0, 100)
{
	my $what = $subtransactions ? 'with more subtransactions than are tracked'
		: 'without subtransactions';
	my $writer = $primary->background_psql('postgres');
	my $reader = $standby->background_psql('postgres');

	$redis->cli('del', 'item:3', 'uncache:{item:3}');
	cmp_ok(refused_until_stored(3), '>', 0, 'a record with a beat behind it');
	change(3);
	$writer->query_safe('BEGIN; UPDATE item SET v = v + 1 WHERE id = 3');
	$writer->query_safe("DO \$\$ BEGIN FOR i IN 1..$subtransactions LOOP BEGIN INSERT INTO item
		VALUES (1000 + i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END \$\$")
	  if $subtransactions;
	# Later transactions end, so that the running one is below xmax.
	change(4) foreach 1 .. 3;
	catch_up();
	is($standby->safe_psql('postgres',
		'SELECT count(*) FROM pg_snapshot_xip(pg_current_snapshot())'), '0',
		"$what: pg_current_snapshot() shows nobody running");
	my ($value, $snapshot) = look($reader, miss($redis, 'item:3'), 3);
	$writer->query_safe('COMMIT');
	is(fill($redis, 'item:3', $snapshot, $value), '0', 'who ran is not taken for visible');
	catch_up();
	change(5);				# ends the overflow
	catch_up();
	is(refused_until_stored(3), 0, 'after its end the next fill is stored');
	is(cached($redis, 'item:3'), $primary->safe_psql('postgres', 'SELECT v FROM item WHERE id = 3'),
		'the latest value');
	$_->quit foreach $writer, $reader;
}

# --- REPEATABLE READ on the standby ---

my $reader = $standby->background_psql('postgres');
$redis->cli('del', 'item:6', 'uncache:{item:6}');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM item');
change(6);
catch_up();
is(read_item($redis, $reader, 6), '0', 'an old snapshot on a standby is refused');
ok(poll_until(sub { was_beaten($redis, $primary, 'item:6') }), 'a beat is made');
is(read_item($redis, $reader, 6), '0', 'and refused again');
$reader->query_safe('COMMIT');
$reader->quit;

# --- promotion: commits that the standby never got ---

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'});
my $old_reader = $primary->background_psql('postgres');
my $token = miss($redis, 'item:7');
my ($old_value, $old_snapshot) = look($old_reader, $token, 7);
is(read_item($redis, $primary, 8), '1', 'a key is cached');
put($redis, 9, 'of a lost commit');
$redis->cli('set', 'other:1', 'kept');
$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
$standby->restart;
$standby->promote;
ok(wait_for_worker($standby, 'postgres'), 'the standby is promoted');
ok(gone($redis, 'item:9'), 'after_lost_commits = flush: what the rules can produce is deleted');
ok(gone($redis, 'item:8'), 'all of it');
ok($redis->has('other:1'), 'and nothing else');
ok(fence_is_on($standby), 'the fence is on again');
is(fill($redis, 'item:7', $old_snapshot, $old_value), '0',
	'what was read on the old primary is refused');
is(read_item($redis, $old_reader, 7), '0', 'the old primary lives on: what it reads is refused');
ok(becomes_cacheable($redis, $standby, 7), 'what the new one reads is stored');
is(read_item($redis, $old_reader, 6), '0', 'and still nothing of the old one');
ok(poll_until(sub { read_item($redis, $standby, 8) =~ /1|hit/ }),
	'the other key is cacheable again');
$old_reader->quit;

unlike(slurp_file($_->logfile), qr/PANIC|TRAP/, 'no PANIC') foreach $primary, $standby;
$_->stop foreach $standby, $primary;
done_testing();
