# Logical replication: the subscriber invalidates in its own Redis what it
# applies; the outbox is never replicated, although all tables are, and neither
# side touches the other's.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my ($redis, $redis2) = (RedisServer->new, RedisServer->new);
$_->start foreach $redis, $redis2;
my @conf = ('wal_level = logical', 'max_wal_senders = 5', 'max_replication_slots = 5',
	'max_worker_processes = 16', 'uncache.redeliver_window = 1s');
my $publisher = new_node('publisher', $redis, @conf);
my $subscriber = new_node('subscriber', $redis2, @conf);

foreach my $node ($publisher, $subscriber)
{
	$node->safe_psql('postgres', q{
		CREATE TABLE item (id int PRIMARY KEY, n int);
		SELECT uncache.attach('item', 'item:{id}')});
}
# Rows of the initial copy, and undelivered rows in the publisher's outbox.
$publisher->safe_psql('postgres', q{INSERT INTO item SELECT i, 0 FROM generate_series(1, 10) i});
ok(delivered($publisher), 'the publisher has delivered');
$publisher->safe_psql('postgres', q{ALTER SYSTEM SET uncache.delivery = off});
$publisher->reload;
ok(wait_for_state($publisher, 'paused'), 'the publisher keeps what comes now');
$publisher->safe_psql('postgres', q{
	SELECT uncache.invalidate_keys('publisher:1');
	BEGIN; SELECT uncache.invalidate_keys('publisher:2'); PREPARE TRANSACTION 'p';
		COMMIT PREPARED 'p';
	CREATE PUBLICATION everything FOR ALL TABLES;
	SELECT pg_create_logical_replication_slot('watch', 'pgoutput')});
$redis2->fill('publisher:1', 'publisher:2', map { "item:$_" } 1 .. 20);
$subscriber->safe_psql('postgres',
	'CREATE SUBSCRIPTION s CONNECTION \'' . ($publisher->connstr . ' dbname=postgres')
	. '\' PUBLICATION everything');
ok($subscriber->poll_query_until('postgres',
	q{SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'}),
	'all tables are copied, the outbox among them');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM item'), '10', 'the rows are there');
ok(delivered($subscriber), 'the subscriber has delivered');
ok($redis2->has('publisher:1') && $redis2->has('publisher:2'),
	'nothing of the publisher\'s outbox');
is($redis2->cli('exists', map { "item:$_" } 1 .. 10), '0', 'but the keys of the copied rows');

# Rows applied.
$redis->fill(map { "item:$_" } 1 .. 20);
$redis2->fill(map { "item:$_" } 1 .. 20);
$publisher->safe_psql('postgres', q{
	UPDATE item SET n = 1 WHERE id = 1;
	DELETE FROM item WHERE id = 2;
	INSERT INTO item VALUES (11, 0)});
$publisher->wait_for_catchup('s');
ok(delivered($subscriber), 'what is applied is delivered');
is($redis2->cli('exists', 'item:1', 'item:2', 'item:11'), '0',
	'its keys are gone from the subscriber\'s Redis');
is($redis2->cli('exists', map { "item:$_" } 3 .. 10, 12 .. 20), '17', 'and no other');
is($redis->cli('exists', 'item:1', 'item:2', 'item:11'), '3',
	'the publisher, which is paused, has deleted none');

# Two-phase commit arrives as such; nobody tells the worker of the end.
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION s DISABLE');
ok($publisher->poll_query_until('postgres',
	q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 's'}), 'the slot is free');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION s');
$subscriber->safe_psql('postgres',
	'CREATE SUBSCRIPTION s2 CONNECTION \'' . ($publisher->connstr . ' dbname=postgres')
	. '\' PUBLICATION everything WITH (two_phase = true, copy_data = false)');
ok($subscriber->poll_query_until('postgres', q{SELECT subtwophasestate = 'e' FROM pg_subscription}),
	'a subscription with two-phase commit');
$publisher->safe_psql('postgres',
	q{BEGIN; UPDATE item SET n = 2 WHERE id = 3; PREPARE TRANSACTION 'q'});
ok($subscriber->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_prepared_xacts'),
	'a prepared transaction arrives');
ok($redis2->has('item:3'), 'its key is there');
$publisher->safe_psql('postgres', q{COMMIT PREPARED 'q'});
ok(gone($redis2, 'item:3'), 'it is committed: its key is gone');

# The publisher's housekeeping: its outbox is delivered and emptied.
$subscriber->safe_psql('postgres', q{ALTER SYSTEM SET uncache.delivery = off});
$subscriber->reload;
ok(wait_for_state($subscriber, 'paused'), 'now the subscriber keeps what comes');
$redis2->fill('subscriber:1', 'item:4');
$subscriber->safe_psql('postgres', q{SELECT uncache.invalidate_keys('subscriber:1')});
$publisher->safe_psql('postgres', q{UPDATE item SET n = 3 WHERE id = 4});
$publisher->wait_for_catchup('s2');
my $mine = $subscriber->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog');
$publisher->safe_psql('postgres', q{ALTER SYSTEM SET uncache.delivery = on});
$publisher->reload;
ok(delivered($publisher), 'the publisher delivers');
ok($publisher->poll_query_until('postgres', q{
	SELECT sum(pg_relation_size(oid)) = 0 FROM pg_class WHERE relname ~ '^outbox_\d$'}),
		'and empties its outbox');
$publisher->safe_psql('postgres', 'INSERT INTO item VALUES (12, 0)');
$publisher->wait_for_catchup('s2');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM uncache.backlog'), $mine + 1,
	'the subscriber has its own, and nothing else');
$subscriber->safe_psql('postgres', q{ALTER SYSTEM SET uncache.delivery = on});
$subscriber->reload;
ok(delivered($subscriber), 'which it delivers');
is($redis2->cli('exists', 'subscriber:1', 'item:4'), '0', 'to its own Redis');
is(join(' ', grep { /ERROR/ && /outbox|uncache/ } split /\n/, slurp_file($subscriber->logfile)), '',
	'without an error on the way');

# A subscriber's outbox keeps out what is sent to it, so look at what was sent: nothing
# of the outbox, of whichever table of it, and of emptying it.
$publisher->safe_psql('postgres', q{
	BEGIN; SELECT uncache.invalidate_keys('publisher:3'); PREPARE TRANSACTION 'r';
		COMMIT PREPARED 'r'});
ok(delivered($publisher), 'the publisher has used all its tables');
my %sent = map { $_ => 1 } split /\n/, $publisher->safe_psql('postgres', q{
	SELECT DISTINCT substring(encode(data, 'escape') FROM '(outbox_\w+|incarnation|item)')
	FROM pg_logical_slot_get_binary_changes('watch', NULL, NULL, 'proto_version', '1',
		'publication_names', 'everything')
	WHERE get_byte(data, 0) = ascii('R')});
is(join(' ', sort keys %sent), 'item', 'of all tables, only the one with data was sent');
$publisher->safe_psql('postgres', q{SELECT pg_drop_replication_slot('watch')});

$subscriber->stop;
$publisher->stop;
done_testing();
