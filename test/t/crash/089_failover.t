# A physical standby is promoted: it delivers what the old primary had committed
# and not delivered, and nothing else.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $primary = new_node('primary', $redis, 'wal_level = replica',
	'max_wal_senders = 5', 'hot_standby = on',
	'uncache.wait_timeout = 200ms', "uncache.redeliver_window = '1s'");

$primary->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 5000) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($primary), 'the primary has delivered');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# Tables are emptied while the standby replays, and somebody reads there.
my $reader = $standby->background_psql('postgres', timeout => 300);
my $filled = q{SELECT coalesce(string_agg(relname, ' '), '') FROM pg_class
	WHERE relname ~ '^outbox_\d$' AND pg_relation_size(oid) > 0};
my %seen;
ok(poll_until(sub {
	$primary->safe_psql('postgres', 'UPDATE item SET n = n + 1 WHERE id = 1');
	$seen{ $primary->safe_psql('postgres', $filled) } = 1;
	$reader->query_safe('SELECT count(*) FROM uncache.backlog');
	return keys %seen >= 3;
}), 'tables of the outbox are emptied on the primary');
$primary->wait_for_catchup($standby);
is($reader->query_safe($filled), $primary->safe_psql('postgres', $filled), 'and on the standby');
$reader->quit;

# Redis is away when the primary dies: one commit, a large one, one that is
# rolled back, prepared ones, and one that is cut off.
$redis->fill(map { "item:$_" } 1 .. 5000);
$redis->freeze;
$primary->safe_psql('postgres', 'UPDATE item SET n = 1 WHERE id = 1');
$primary->safe_psql('postgres', 'UPDATE item SET n = 1 WHERE id BETWEEN 1001 AND 4000');
$primary->safe_psql('postgres', 'BEGIN; UPDATE item SET n = 1 WHERE id = 2; ROLLBACK');
$primary->safe_psql('postgres', q{BEGIN; UPDATE item SET n = 1 WHERE id = 3;
	PREPARE TRANSACTION 'before'; COMMIT PREPARED 'before'});
$primary->safe_psql('postgres',
	q{BEGIN; UPDATE item SET n = 1 WHERE id = 4; PREPARE TRANSACTION 'across'});
my $open = start_psql($primary, q{SET application_name = 'open'; BEGIN;
	UPDATE item SET n = 1 WHERE id = 5; SELECT pg_sleep(300)});
ok($primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name = 'open' AND wait_event = 'PgSleep'}),
	'a transaction is open');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE backend_type LIKE 'pg_uncache%'}), '0', 'the standby is passive');
$primary->stop('immediate');
$redis->thaw;
# What was on its way to Redis is not what is looked at here.
$redis->fill(map { "item:$_" } 1 .. 5000);
is($redis->cli('dbsize'), '5000', 'all keys are there');

$standby->promote;
ok(gone($redis, 'item:1'), 'the promoted standby delivers');
ok(delivered($standby), 'everything');
is($redis->cli('exists', 'item:3', 'item:1001', 'item:4000'), '0',
	'a prepared and a large one, too');
is($redis->cli('exists', 'item:2', 'item:4', 'item:5', 'item:6', 'item:5000'), '5',
	'and nothing that has not committed');
is($redis->cli('dbsize'), 5000 - 3000 - 2, 'or that nobody has touched');
$standby->safe_psql('postgres', q{COMMIT PREPARED 'across'});
ok(gone($redis, 'item:4'),
	'a transaction that was prepared on the old primary is finished on the new one');

$standby->stop;
done_testing();
