# Never early, at the wire: a proxy holds every UNLINK back, and a fresh
# connection must already see the new rows.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', $proxy, 'uncache.wait_timeout = 0', 'uncache.command_timeout = 60s',
	'wal_level = replica', 'max_wal_senders = 2');

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 2000) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'the worker is up to date');

# Hold UNLINKs back, change rows by the commits given, and look at the rows of
# all keys that have come so far; again and again until all have come.
sub check
{
	my ($what, $sql, @ids) = @_;
	my %early;
	my %seen;

	$proxy->forget_keys;
	$proxy->hold_unlinks;
	my $before = $node->safe_psql('postgres', 'SELECT max(n) FROM item');
	my $writers = start_psql($node, $sql);
	ok(poll_until(sub {
		%seen = map { /^item:(\d+)$/ ? ($1 => 1) : () } $proxy->keys_seen;
		if (%seen)
		{
			my $ids = join ',', keys %seen;
			$early{$_} = 1 foreach split /\n/,
			  $node->safe_psql('postgres',
				"SELECT id FROM item WHERE id IN ($ids) AND n <= $before");
		}
		# The link takes the next commands when it has an answer.
		$proxy->hold_unlinks(0);
		$proxy->hold_unlinks;
		return @ids == grep { $seen{$_} } @ids;
	}), "$what: all keys come");
	is(join(' ', keys %early), '', 'none before its row is visible to all');
	is($writers->finish, 0, 'the commits succeed');
	$proxy->behave;
	ok(delivered($node), 'and everything is delivered');
	return;
}

check('single rows', join("\n", map { "UPDATE item SET n = 1 WHERE id = $_;" } 1 .. 300), 1 .. 300);
check('many rows', 'BEGIN; UPDATE item SET n = 2; COMMIT;', 1 .. 2000);
check('savepoints', join("\n", 'BEGIN;',
	(map { "SAVEPOINT s; UPDATE item SET n = 3 WHERE id = $_; RELEASE s;" } 1 .. 50),
	'SAVEPOINT s; UPDATE item SET n = 3; ROLLBACK TO s; COMMIT;'), 1 .. 50);
check('prepared', q{BEGIN; UPDATE item SET n = 4 WHERE id < 3; PREPARE TRANSACTION 'p';
	COMMIT PREPARED 'p';}, 1, 2);

# Synchronous replication stands still: flushed, but nobody sees it.
$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
$redis->fill('item:7', 'item:8');
$proxy->forget_keys;
my $held = start_psql($node, q{SET application_name = 'held'; UPDATE item SET n = 5 WHERE id = 7});
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE application_name = 'held' AND wait_event = 'SyncRep'}),
	'a commit waits for a standby that does not exist');
$node->safe_psql('postgres', q{SET synchronous_commit = local; UPDATE item SET n = 5 WHERE id = 8});
ok(gone($redis, 'item:8'), 'another one does not, and is delivered');
is($node->safe_psql('postgres', q{SELECT uncache.wait('60 s')}), 't',
	'all that is visible is delivered');
ok($redis->has('item:7'), 'the key of the one that waits is there');
is(join(' ', grep { $_ eq 'item:7' } $proxy->keys_seen), '', 'nobody has tried to delete it');
$node->safe_psql('postgres',
	q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'held'});
$held->finish;
ok(gone($redis, 'item:7'), 'when its wait ends, it is deleted');
is($node->safe_psql('postgres', 'SELECT n FROM item WHERE id = 7'), '5', 'and the row is visible');

$node->stop;
done_testing();
