# An idle server with the fence on: no WAL, no transaction ids, few wake-ups.
# UNCACHE_IDLE_SECONDS=60 looks for longer than the 10 seconds of every day.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Faults;
use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
# Nothing of the server's own shall write WAL meanwhile; at higher levels of WAL the
# background writer does, for standbys.
my $node = new_fenced_node('main', $redis, 'autovacuum = off', 'checkpoint_timeout = 1h',
	'bgwriter_delay = 10s', 'wal_level = minimal', 'max_wal_senders = 0');
my $session = $node->background_psql('postgres');

is(read_item($redis, $session), '1', 'a fill');
# Nothing is written: after a write the outbox is looked after for a minute.
$redis->cli('del', 'item:1', 'uncache:{item:1}');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is(read_item($redis, $session), '0', 'one that asks for a beat');
$session->query_safe('COMMIT');
ok($node->poll_query_until('postgres', 'SELECT beats > 0 FROM uncache.stat'), 'and gets it');
ok(delivered($node), 'all is delivered');

sub state_of
{
	return $session->query_safe(
		'SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())');
}

sub switches
{
	my $status = slurp_file("/proc/$_[0]/status");

	return $status =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : die;
}

# Let it settle: the WAL writer and hint bits may still have something.
$session->query_safe('CHECKPOINT');
my $settled = '';
ok(poll_until(sub {
	my $now = state_of();
	my $same = $now eq $settled;

	$settled = $now;
	sleep 1 unless $same;
	return $same;
}, 20), 'the server has settled');

my $worker = worker_pid($node);
my $before = state_of();
my $switches = switches($worker);
my $began = time;
sleep($ENV{UNCACHE_IDLE_SECONDS} || 10);
my $seconds = time - $began;
is(state_of(), $before, sprintf('%d idle seconds: no WAL and no transaction id', $seconds));
my $rate = (switches($worker) - $switches) / $seconds;
cmp_ok($rate, '<', 2, 'less than two wake-ups a second');
cmp_ok($rate, '>', 0, sprintf '(%.2f)', $rate);
is(worker_pid($node), $worker, 'the worker is the same');

$session->quit;
$node->stop;
done_testing();
