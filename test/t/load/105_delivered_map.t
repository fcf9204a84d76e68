# What the worker knows of delivered rows takes little shared memory, and delivery goes on
# where there is none.

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
my $node = new_node('main', $redis, "uncache.redeliver_window = '2s'", 'autovacuum = off',
	"uncache.wait_timeout = '1s'");

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);
ok(wait_for_state($node, 'connected'), 'the worker is connected');

sub sql { return $node->safe_psql('postgres', $_[0]) }

# --- dead line pointers before a row ---

ok(outbox_is_emptied($node), 'no outbox table has a page');
$redis->freeze;
ok(wait_for_state($node, 'down'), 'Redis is down');
my $most = 0;
for my $round (1 .. 60)
{
	sql(q{DO $$ BEGIN FOR i IN 1 .. 4 LOOP PERFORM uncache.invalidate_keys('many:' || i);
		COMMIT; END LOOP; END $$});
	sql('SELECT sum(uncache.discard_backlog(xid)) FROM uncache.backlog');
	# Reading the page has what was deleted taken away, and its line pointers kept.
	sql("SELECT count(*) FROM uncache.outbox_$_") foreach 0 .. 3;
	sql("SELECT uncache.invalidate_keys('late:$round')");
	$most = sql(join ' UNION ALL ',
		map { "SELECT coalesce(max((ctid::text::point)[1]), 0) FROM uncache.outbox_$_" } 0 .. 3);
	($most) = sort { $b <=> $a } split /\n/, $most;
	last if $most > 150;
}
cmp_ok($most, '>', 150, 'a row has a line pointer beyond those that fit without dead ones');
$redis->thaw;
ok(delivered($node), 'all is delivered');
is(sql('SELECT count(*) FROM uncache.backlog'), '0', 'and known to be');
ok(outbox_is_emptied($node), 'so the outbox is emptied');

# --- no shared memory from the start ---

sql("ALTER SYSTEM SET uncache.fault_point = 'shared-memory:errors'");
$node->reload;
my $before = worker_pid($node);
sql("SELECT pg_terminate_backend($before)");
ok($node->poll_query_until('postgres',
	"SELECT worker_pid <> $before AND state = 'connected' FROM uncache.stat"),
	'a worker without shared memory starts');
my $worker = worker_pid($node);
$redis->fill('a', 'b', map { "many:$_" } 1 .. 5000);
sql("SELECT uncache.invalidate_keys('a')");
sql("SELECT uncache.invalidate_keys('b')");
sql("SELECT count(uncache.invalidate_keys('many:' || i)) FROM generate_series(1, 5000) i");
ok(delivered($node), 'it delivers');
is($redis->cli('dbsize'), '0', 'every key');
is(sql("SELECT last_error LIKE '%shared memory%/dev/shm%' FROM uncache.stat"), 't',
	'and says what it lacks');
ok(outbox_is_emptied($node), 'what it knows in its own memory lets the outbox be emptied');
is(worker_pid($node), $worker, 'all that time it was the same worker');
my $said = () = slurp_file($node->logfile) =~ /there is no shared memory to note/g;
is($said, 1, 'the log says it once');
sql('ALTER SYSTEM RESET uncache.fault_point');
$node->reload;

# --- a small /dev/shm ---

# Start the server in a mount namespace with another /dev/shm; false where that can't be.
sub start_with_small_shm
{
	my ($size) = @_;
	my $start = "mount -t tmpfs -o size=$size,mode=1777 tmpfs /dev/shm && exec unshare -U "
		. "--map-user=$> --map-group=" . ($) + 0)
	  . ' "$@"';

	return system('unshare', '-U', '-r', '-m', 'sh', '-c', $start, 'sh',
		$node->installed_command('pg_ctl'), '-s', '-w',
		'-D', $node->data_dir, '-l', $node->logfile, 'start') == 0 && $node->_update_pid(1) // 1;
}

$node->stop;
SKIP:
{
	skip 'needs user and mount namespaces', 1
	  unless system("unshare -U -r -m sh -c 'mount -t tmpfs tmpfs /dev/shm && unshare -U "
		. "--map-user=1 true' 2>/dev/null") == 0;
	ok(start_with_small_shm('2500k'), 'a server with 2.5 MB of shared memory');
	ok(wait_for_state($node, 'connected'), 'its worker is connected');
	$worker = worker_pid($node);
	$redis->freeze;
	ok(wait_for_state($node, 'down'), 'Redis is down');
	# 20,000 pages, which took 1.2 MB when each row had its bits.
	sql(q{SELECT count(uncache.invalidate_keys(lpad(i::text, 7500, 'x')))
		FROM generate_series(1, 20000) i});
	$redis->thaw;
	ok(delivered($node), 'an outbox of 160 MB is delivered');
	is(worker_pid($node), $worker, 'by the same worker');
	is(sql('SELECT count(*) FROM uncache.backlog'), '0', 'and known to be');
	ok(outbox_is_emptied($node), 'it is emptied');
	$node->stop;
}

done_testing();
