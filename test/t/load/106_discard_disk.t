# uncache.discard_backlog() frees the disk within seconds, also while Redis is away, where
# the redeliver window is long, and where the tablespace is full; and it can forget one
# transaction alone.

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
my $node = new_node('main', $redis, "uncache.redeliver_window = '1h'", 'autovacuum = off',
	"uncache.wait_timeout = '1s'");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Commit so many rows of a page each.
sub fill_outbox
{
	my ($rows) = @_;

	sql("SELECT count(uncache.invalidate_keys(lpad(i::text, 7500, 'x')))
		FROM generate_series(1, $rows) i");
	return;
}

ok(wait_for_state($node, 'connected'), 'the worker is connected');

# --- the window ---

fill_outbox(100);
ok(delivered($node), 'all is delivered');
cmp_ok(outbox_size($node), '>=', 100 * 8192, 'and kept for an hour');
is(sql('SELECT uncache.discard_backlog()'), '0', 'no transaction is discarded');
ok(outbox_is_emptied($node), 'but what was kept to be sent again');

# More than a table takes: the next one has its turn.
fill_outbox(2500);
ok(poll_until(sub {
	fill_outbox(1);
	return sql(q{SELECT count(*) > 1 FROM generate_series(0, 3) i
		WHERE pg_relation_size('uncache.outbox_' || i) > 0}) eq 't';
}), 'two tables are in use');
ok(delivered($node), 'all is delivered');
is(sql('SELECT uncache.discard_backlog()'), '0', 'no transaction is discarded');
ok(outbox_is_emptied($node), 'but both tables are emptied');

# --- Redis is away ---

$redis->stop;
ok(wait_for_state($node, 'down'), 'Redis is down');
fill_outbox(6000);
sql("SELECT uncache.invalidate_keys('small')");
cmp_ok(outbox_size($node), '>=', 6000 * 8192, 'the outbox is large');
is(sql('SELECT uncache.discard_backlog()'), '2', 'two transactions are discarded');
ok(outbox_is_emptied($node), 'and the disk is free, without Redis');
fill_outbox(300);
is(sql('SELECT uncache.discard_backlog()'), '1', 'the same again');
ok(outbox_is_emptied($node), 'with what has come since');
is(sql('SELECT count(*) FROM uncache.backlog'), '0', 'there is no backlog');

# --- one transaction ---

my @xids = map { sql("BEGIN; SELECT uncache.invalidate_keys('key:$_', 'other:$_');
	SELECT pg_current_xact_id(); COMMIT") =~ /(\d+)\s*$/ } 1 .. 3;
is(sql("SELECT uncache.discard_backlog('$xids[1]'::xid8)"), '1',
	'one of three transactions is discarded');
is(sql("SELECT uncache.discard_backlog('$xids[1]'::xid8)"), '0', 'and is not there any more');
is(sql('SELECT string_agg(xid::text, chr(32) ORDER BY xid) FROM uncache.backlog'),
	"$xids[0] $xids[2]", 'the others are');
my $worker = worker_pid($node);
sql("SELECT pg_terminate_backend($worker)");
ok($node->poll_query_until('postgres', "SELECT worker_pid <> $worker FROM uncache.stat"),
	'another worker');
$worker = worker_pid($node);
kill 'STOP', $worker;
ok(is_stopped($worker), 'which is stopped until the keys are there');
$redis->start;
$redis->fill('key:1', 'key:2', 'other:2', 'key:3');
kill 'CONT', $worker;
ok(delivered($node), 'Redis is back');
is(join(' ', sort $redis->keys), 'key:2 other:2',
	'what was discarded is not sent, though the worker is a new one');

# --- what Redis refuses ---

$redis->cli('flushall');
$redis->cli('acl', 'setuser', 'default', 'resetkeys', '~ok:*');
@xids = map { sql("BEGIN; SELECT uncache.invalidate_keys('no:$_', 'ok:$_');
	SELECT pg_current_xact_id(); COMMIT") =~ /(\d+)\s*$/ } 1 .. 2;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 2 AND min(attempts) > 0
	FROM uncache.backlog'), 'two transactions are refused in part');
is(sql("SELECT kind, key, relation, trigger, attempts > 0, last_error LIKE 'NOPERM%'
	FROM uncache.backlog_keys('$xids[0]')"),
	'key|no:1|||t|t', 'backlog_keys() says which key, and what Redis says of it');
is(sql("SELECT uncache.discard_backlog('$xids[0]'::xid8)"), '1', 'one of them is discarded');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 AND min(xid) = '$xids[1]' FROM uncache.backlog"), 'the other is not');
sql('SELECT uncache.discard_backlog()');
ok(poll_until(sub { sql('SELECT count(*) FROM uncache.outbox_side') eq '0' }),
	'the side table is empty when all is');
ok(delivered($node), 'wait() has nothing to wait for');
$redis->cli('acl', 'setuser', 'default', 'allkeys');

# --- a key in pieces, and a pattern of a rule ---

$redis->freeze;
ok(wait_for_state($node, 'down'), 'Redis is away again');
sql(q{CREATE TABLE item (id int); SELECT uncache.attach('item', 'item:{id}')});
my ($xid) = sql(q{BEGIN; SELECT uncache.invalidate_keys(repeat('k', 20000)); TRUNCATE item;
	INSERT INTO item VALUES (7);
	SELECT uncache.invalidate_pattern('a*'); SELECT pg_current_xact_id(); COMMIT}) =~ /(\d+)\s*$/;
is(sql("SELECT kind, CASE WHEN length(key) = 20000 THEN 'long' ELSE key END, relation, trigger,
	attempts, last_error
	FROM uncache.backlog_keys('$xid') ORDER BY 1, 2"),
	"key|item:7|item|uncache_row|0|\nkey|long|||0|\n"
	  . "pattern|a*|||0|\npattern|item:*|item|uncache_truncate|0|",
	'backlog_keys() shows keys of any length, and patterns');
is(sql("SELECT count(*) FROM uncache.backlog_keys('3')"), '0',
	'and nothing of a transaction that has nothing');

# --- without a worker ---

$node->stop;
$node->append_conf('postgresql.conf', 'max_worker_processes = 1');
$node->start;
is(sql('SELECT worker_pid IS NULL FROM uncache.stat'), 't', 'a server without a worker');
is(sql("SELECT uncache.discard_backlog('$xid'::xid8)"), '1', 'one transaction is discarded');
is(sql("SELECT count(*) FROM uncache.backlog WHERE xid = '$xid'"), '0', 'and gone');
sql('SELECT uncache.discard_backlog()');
is(outbox_size($node), '0', 'and all');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
$redis->thaw;

# --- a full tablespace ---

sub start_with_tablespace
{
	my ($folder, $size) = @_;
	my $start = "mount -t tmpfs -o size=$size,mode=0700 tmpfs $folder && exec unshare -U "
		. "--map-user=$> --map-group=" . ($) + 0)
	  . ' "$@"';

	return system('unshare', '-U', '-r', '-m', 'sh', '-c', $start, 'sh',
		$node->installed_command('pg_ctl'), '-s', '-w',
		'-D', $node->data_dir, '-l', $node->logfile, 'start') == 0 && ($node->_update_pid(1) // 1);
}

SKIP:
{
	skip 'needs user and mount namespaces', 1
	  unless system("unshare -U -r -m sh -c 'mount -t tmpfs tmpfs /dev/shm && unshare -U "
		. "--map-user=1 true' 2>/dev/null") == 0;

	my $folder = $node->basedir . '/small';
	mkdir $folder;
	$node->stop;
	ok(start_with_tablespace($folder, '20m'), 'a server with a small tablespace');
	sql("CREATE TABLESPACE small LOCATION '$folder'");
	sql('CREATE DATABASE tight TABLESPACE small');
	$node->safe_psql('tight', 'CREATE EXTENSION pg_uncache');
	ok(wait_for_state($node, 'connected', 'tight'), 'and a database in it');
	$redis->freeze;
	ok(wait_for_state($node, 'down', 'tight'), 'Redis is down');
	my ($status, $err);
	for (1 .. 200)
	{
		($status, undef, $err) = $node->psql('tight',
			"SELECT count(uncache.invalidate_keys(lpad(i::text, 7500, 'x')))
			FROM generate_series(1, 50) i");
		last if $status != 0;
	}
	like($err, qr/No space left on device/, 'until nothing can be committed any more');
	cmp_ok($node->safe_psql('tight', 'SELECT uncache.discard_backlog()'), '>', 0,
		'the backlog is discarded');
	ok(outbox_is_emptied($node, 'tight'), 'and the disk free');
	is(($node->psql('tight', "SELECT uncache.invalidate_keys('again')"))[0], 0,
		'so that writes go on');
	$redis->thaw;
	$node->stop;
}

done_testing();
