# A part of the outbox that can't be read keeps nothing else from being delivered: what the
# rules can produce is deleted instead, which the worker says; views, wait() and
# discard_backlog() work.

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
my $node = new_node('main', $redis, "uncache.redeliver_window = '1s'", 'autovacuum = off',
	"uncache.wait_timeout = '1s'");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# change_block(FILE, BLOCK, CODE): the server is down.
sub change_block
{
	my ($file, $number, $change) = @_;

	open my $io, '+<:raw', $node->data_dir . "/$file" or die "$file: $!";
	seek $io, $number * 8192, 0;
	read($io, my $page, 8192) == 8192 or die "$file has no block $number";
	$change->(\$page);
	seek $io, $number * 8192, 0;
	print $io $page;
	close $io or die $!;
	return;
}

# A header that is none; a row that claims to have one column.
sub break_page { substr(${ $_[0] }, 0, 24) = "\xff" x 24 }

sub break_row
{
	my ($page) = @_;
	my $offset = unpack('V', substr($$page, 24, 4)) & 0x7fff;

	substr($$page, $offset + 18, 2) = pack 'v', 1;
	return;
}

# The table that the next commit writes to: its file, and the number of blocks it has.
sub current_file
{
	my ($after) = @_;
	my $table = sql(q{SELECT t FROM unnest(ARRAY['outbox_0', 'outbox_1', 'outbox_2', 'outbox_3']) t
		ORDER BY pg_relation_size('uncache.' || t) DESC LIMIT 1});

	return (sql("SELECT pg_relation_filepath('uncache.$table')"),
		sql("SELECT pg_relation_size('uncache.$table') / 8192"));
}

# Have Redis back with these keys, before the worker can connect.
sub start_redis
{
	my @keys = @_;
	my $worker = worker_pid($node);

	kill 'STOP', $worker;
	is_stopped($worker) or die 'the worker does not stop';
	$redis->start;
	$redis->fill(@keys);
	kill 'CONT', $worker;
	return;
}

sub log_has
{
	my $count = () = slurp_file($node->logfile)
		=~ /damaged; all keys that the rules can produce are deleted instead/g;

	return $count;
}

ok(wait_for_state($node, 'connected'), 'the worker is connected');
sql(q{CREATE TABLE item (id int PRIMARY KEY, n int); SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node) && outbox_is_emptied($node), 'nothing waits');

# --- damaged blocks ---

sub commit_items
{
	sql('INSERT INTO item SELECT i, 0
		FROM generate_series(1, 8000) i ON CONFLICT (id) DO UPDATE SET n = item.n + 1');
	sql("SELECT count(uncache.invalidate_keys('named:' || i)) FROM generate_series(1, 20) i");
	return;
}

$redis->stop;
ok(wait_for_state($node, 'down'), 'Redis is down');
commit_items();
my ($file, $blocks) = current_file();
cmp_ok($blocks, '>=', 6, 'the outbox has some blocks');
$node->stop;
change_block($file, 1, \&break_page);
change_block($file, 3, \&break_row);
$node->start;
ok(wait_for_state($node, 'down'), 'two blocks are damaged: a worker has started');
my ($status, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM uncache.backlog');
is("$status|$out", '0|2', 'uncache.backlog shows the rest');
like($err,
	qr/WARNING:  block 1 of table "outbox_\d" of the outbox cannot be read, and is not counted/,
	'and warns');
is(sql('SELECT state, outbox_rows > 0 FROM uncache.stat'), 'down|t', 'uncache.stat works');
start_redis((map { "item:$_" } 1 .. 8001), 'named:1', 'foreign:1');
ok(delivered($node), 'Redis is back: all is delivered');
is(join(' ', $redis->keys), 'foreign:1',
	'the keys that the rules can produce, and the others that could be read');
is(log_has(), 1, 'the log says it once');
like(sql('SELECT last_error FROM uncache.stat'),
	qr/block \d of table uncache.outbox_\d is damaged; all keys that the rules can produce are deleted instead/,
	'last_error says it, too');
ok(outbox_is_emptied($node), 'the table is emptied, which ends the damage');
my $worker = worker_pid($node);
commit_items();
ok(delivered($node), 'what is committed afterwards is delivered');
is(worker_pid($node), $worker, 'by the same worker');
ok(outbox_is_emptied($node), 'and nothing is left');

# --- discarding ---

$redis->stop;
ok(wait_for_state($node, 'down'), 'Redis is down');
commit_items();
($file) = current_file();
$node->stop;
change_block($file, 0, \&break_page);
change_block($file, 2, \&break_row);
$node->start;
ok(wait_for_state($node, 'down'), 'two blocks are damaged again');
my $before = log_has();
is(sql('SELECT uncache.discard_backlog() > 0'), 't', 'the backlog is discarded');
ok(outbox_is_emptied($node), 'and the disk free');
is(log_has(), $before, 'nothing is deleted because of it');
$redis->start;
ok(wait_for_state($node, 'connected'), 'Redis is back');

# --- a long key of which a piece is lost ---

ok(delivered($node) && outbox_is_emptied($node), 'nothing waits');
$redis->stop;
ok(wait_for_state($node, 'down'), 'Redis is down');
sql(q{SELECT uncache.invalidate_keys('first'); UPDATE item SET n = 0 WHERE id = 1;
	SELECT uncache.invalidate_keys(repeat('x', 20000))});
($file, $blocks) = current_file();
cmp_ok($blocks, '>=', 3, 'its pieces are in blocks of their own');
$node->stop;
change_block($file, 2, \&break_page);
$node->start;
ok(wait_for_state($node, 'down'), 'one is damaged');
start_redis('first', 'item:1', 'item:5');
ok(delivered($node), 'wait() does not wait for the piece that is lost');
is(join(' ', $redis->keys), '', 'all other keys are deleted, and what the rules can produce');
like(slurp_file($node->logfile), qr/block 2 of table uncache.outbox_\d is damaged/,
	'the log says why');
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat')
	=~ /a part of a long key is missing/ }), 'and last_error');
ok(outbox_is_emptied($node), 'the table is emptied');

# --- the block that the next row goes to, while Redis is away ---

$redis->stop;
# A server that has just started writes to its first table.
$node->restart;
ok(wait_for_state($node, 'down'), 'Redis is away');
sql('UPDATE item SET n = n + 1 WHERE id = 1');
my ($last_file, $last_blocks) = current_file();
$node->stop;
change_block($last_file, $last_blocks - 1, \&break_page);
$node->start;
ok(wait_for_state($node, 'down'), 'the last block is damaged');
($status, $out, $err) = $node->psql('postgres', 'UPDATE item SET n = n + 1 WHERE id = 2');
like($err, qr/invalid page in block/, 'the commit that meets it fails');
is($node->psql('postgres', "UPDATE item SET n = n + 1 WHERE id = $_"), 0, 'the next one does not')
	foreach 2, 3;
start_redis('item:1', 'item:2', 'item:3');
ok(delivered($node), 'all is delivered');
is(join(' ', $redis->keys), '', 'what was in the damaged block, too');
ok(outbox_is_emptied($node), 'the table is emptied');

# --- the table of prepared transactions ---

$redis->stop;
ok(wait_for_state($node, 'down'), 'Redis is down');
sql(qq{BEGIN; UPDATE item SET n = 1 WHERE id = $_; PREPARE TRANSACTION 'p$_';
	COMMIT PREPARED 'p$_'}) foreach 1 .. 3;
$file = sql("SELECT pg_relation_filepath('uncache.outbox_side')");
$node->stop;
change_block($file, 0, \&break_page);
$node->start;
ok(wait_for_state($node, 'down'), 'the table of prepared transactions is damaged');
start_redis('item:2', 'item:9');
ok(delivered($node), 'a damaged side table holds up nothing');
is(join(' ', $redis->keys), '', 'and its keys are deleted with all that the rules can produce');

my $said = sql('SELECT pattern_passes FROM uncache.stat');
is(sql('SELECT uncache.discard_backlog()'), '0', 'nothing is left to be discarded');
is(sql("SELECT pg_relation_size('uncache.outbox_side')"), '0', 'but this ends the damage');
ok(delivered($node), 'all is delivered');
is(sql('SELECT pattern_passes FROM uncache.stat'), $said, 'and nothing is deleted once more');

$node->stop;
done_testing();
