# What consistency = strict refuses before the commit for its size: keys of a transaction, and
# doubts of a key.

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
my $node = new_fenced_node('main', $redis, "uncache.consistency = 'strict'",
	'uncache.wait_timeout = 60s');

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Delete so many keys of this length in one transaction; what the client is told.
sub delete_keys
{
	my ($count, $length, $before) = @_;
	my $sql = ($before // '') . "BEGIN; INSERT INTO done VALUES ($count);
		SELECT count(uncache.invalidate_keys(lpad(i::text, $length, 'x')))
			FROM generate_series(1, $count) i; COMMIT";
	my (undef, undef, $err) = $node->psql('postgres', $sql);

	return $err;
}

sub committed { return sql("SELECT count(*) FROM done WHERE keys = $_[0]") }

# In kB, without what it shares with others.
sub worker_memory
{
	my ($kb) = slurp_file('/proc/' . worker_pid($node) . '/status') =~ /^RssAnon:\s+(\d+)/m;

	return $kb;
}

sql('CREATE TABLE done (keys int)');

# --- keys ---

my $few = 'SET uncache.wait_max_keys = 100; ';
is(delete_keys(100, 10, $few), '', 'as many keys as wait_max_keys: commits');
my $err = delete_keys(101, 10, $few);
like($err,
	qr/ERROR:  the transaction has too many keys for uncache.consistency = strict\n.*DETAIL:  It has 101 keys; 100 \(uncache.wait_max_keys\) can/s,
	'one more: an error that says so');
is(committed(100) . committed(101), '10', 'before the commit');
is($node->psql('postgres', qq{$few
	BEGIN; SAVEPOINT s; SELECT count(uncache.invalidate_keys('a' || i))
		FROM generate_series(1, 200) i;
	ROLLBACK TO s; SELECT count(uncache.invalidate_keys('b' || i)) FROM generate_series(1, 100) i;
		COMMIT}, on_error_stop => 1),
	0, 'those of a savepoint that was rolled back do not count');

# --- bytes ---

my $before = worker_memory();
is(delete_keys(4096, 4096), '', '16 MB of keys: commits');
$err = delete_keys(4097, 4096);
like($err,
	qr/ERROR:  the transaction has too many keys .*DETAIL:  Its keys have 16781312 bytes; 16777216 can be fenced/s,
	'one more: an error');
is(committed(4096) . committed(4097), '10', 'before the commit');
like(delete_keys(300_000, 2000), qr/too many keys/, '300,000 keys of 2 kB: an error');

# --- memory comes back ---

is(delete_keys(4000, 4096), '', 'once more') foreach 1 .. 3;
ok(poll_until(sub { worker_memory() < $before + 40_000 }, 20), 'the worker keeps little of them');
note "the worker's own memory: $before kB before, " . worker_memory() . ' kB after';
my $doubts = sub {
	return sql(q{SELECT pg_log_backend_memory_contexts(worker_pid) FROM uncache.stat}) };
my $logged = -s $node->logfile;
$doubts->();
ok(poll_until(sub { slurp_file($node->logfile, $logged) =~ /pg_uncache doubts: (\d+) total/ }, 20),
	'its contexts are in the log');
my ($total) = slurp_file($node->logfile, $logged) =~ /pg_uncache doubts: (\d+) total/;
cmp_ok($total, '<', 100_000, 'that of the doubts is empty');

# --- doubts of one key ---

my $incarnation = sql('SELECT id FROM uncache.incarnation');
my $answer = '';
my @doubts;
foreach my $xid (9_000_000_000 .. 9_000_000_099, 3 .. 9)	# a short one fits last
{
	$answer = $redis->cli('fcall', 'uncache_invalidate', 1, 'item:1', 300000,
		$incarnation, "?$xid");
	push @doubts, $xid if $answer !~ /^FULL/;
}
like($answer, qr/^FULL/, scalar(@doubts) . ' transactions in doubt fill the record of a key');
my $update = 'UPDATE item SET v = v + 1 WHERE id = 1';
(undef, undef, $err) = $node->psql('postgres', $update);
like($err, qr/ERROR:  keys could not be fenced .*DETAIL: .* refused the key.*last_error/s,
	'one more strict transaction fails');
is(sql('SELECT v FROM item WHERE id = 1'), '1', 'before the commit');
like(sql('SELECT last_error FROM uncache.stat'), qr/too many strict transactions/,
	'uncache.stat says why');
is(sql('SELECT state FROM uncache.stat'), 'connected', 'and the connection stays');
sql("SET uncache.consistency = read_your_writes; $update");
is(sql('SELECT v FROM item WHERE id = 1'), '2', 'others go on');
sql('UPDATE item SET v = v + 1 WHERE id = 2');
is(sql('SELECT v FROM item WHERE id = 2'), '2', 'as do other keys');
my $session = $node->background_psql('postgres');
is(read_item($redis, $session, 1), '0', 'no fill, as long as others are in doubt');
$redis->cli('fcall', 'uncache_release', 1, 'item:1', $incarnation, shift @doubts);
sql($update);
is(sql('SELECT v FROM item WHERE id = 1'), '3', 'when one of them has ended it works again');
$redis->cli('fcall', 'uncache_release', scalar @doubts, ('item:1') x @doubts,
	$incarnation, @doubts);
is(read_item($redis, $session, 1), '1', 'when all have it is cacheable');

$session->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
