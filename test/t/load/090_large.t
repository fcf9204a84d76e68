# A transaction of ten million keys, and 500 sessions: memory stays flat, small
# commits overtake, nobody waits in vain.  Takes minutes and a gigabyte of disk, so
# it runs with UNCACHE_LONG_TESTS=1 only; the figures in docs/ are from here.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Faults;
use RedisServer;
use Uncache;

plan skip_all => 'set UNCACHE_LONG_TESTS=1 to run it' unless $ENV{UNCACHE_LONG_TESTS};

my $million = $ENV{UNCACHE_MILLIONS} // 10;
my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'max_connections = 520', "uncache.redeliver_window = '1s'",
	"uncache.wait_timeout = '2s'", 'log_statement = none', 'max_wal_size = 4GB');

$Uncache::patience = 600;
ok(wait_for_state($node, 'connected'), 'the worker is connected');

# In kB, what a process has of its own.
sub memory
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/status" or return 0;
	my ($kb) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$in>;
	return $kb // 0;
}

# Commit a transaction of so many keys; the largest memory of its session in kB.
sub commit_many
{
	my ($count) = @_;
	my $session = start_psql($node, qq{
		SET application_name = 'many';
		SELECT count(uncache.invalidate_keys('key:' || i)) FROM generate_series(1, $count) i});
	my $pid = 0;
	my $most = 0;

	while ($session->runs)
	{
		$pid ||= $node->safe_psql('postgres',
			q{SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE application_name = 'many'});
		my $now = $pid ? memory($pid) : 0;
		$most = $now if $now > $most;
		select undef, undef, undef, 0.05;
	}
	is($session->finish, 0, "a transaction of $count keys commits");
	is($session->err, '', 'without a warning');
	return ($most, $session->taken);
}

my $worker = worker_pid($node);
my ($small) = commit_many(200_000);
ok(delivered($node), 'it is delivered');
my $before = memory($worker);
my ($large, $taken) = commit_many($million * 1_000_000);
my $started = time;
my $bytes = $node->safe_psql('postgres', 'SELECT outbox_bytes FROM uncache.stat');
$node->safe_psql('postgres', 'SELECT uncache.stat_reset()');
my $script = $node->basedir . '/one.sql';
append_to_file($script, "SELECT uncache.invalidate_keys('one:' || (random() * 1e9)::int);\n");
my $one = start_command($node, 'pgbench', '-n', '-c', 1, '-T', 3, '-f', $script,
	$node->connstr('postgres'));
my $most = 0;
while ($one->runs)
{
	my $now = memory($worker);
	$most = $now if $now > $most;
	select undef, undef, undef, 0.05;
}
is($one->finish, 0, 'small commits go on');
unlike($one->err, qr/WARNING/, 'and none of them waits in vain');
ok(delivered($node), 'all is delivered');
my $drained = time - $started;
my ($latency) = $one->out =~ /latency average = ([\d.]+)/;
diag sprintf '%d million keys: %.1f s, session %.0f MB, outbox %.0f MB, worker %+.1f MB, drained '
	. 'in %.1f s; a small commit meanwhile %.2f ms',
  $million, $taken, $large / 1024, $bytes / 2**20, ($most - $before) / 1024, $drained, $latency;
cmp_ok($large, '<', $small + 20_000, 'the session needs no more memory than for 200,000 keys');
cmp_ok($most - $before, '<', 64 * 1024, 'nor does the worker');
ok(poll_until(sub { $node->safe_psql('postgres', 'SELECT outbox_bytes FROM uncache.stat') < 1e6 }),
	'the outbox shrinks again');

# 500 sessions.
$node->safe_psql('postgres', 'SELECT uncache.stat_reset()');
my $many = start_command($node, 'pgbench', '-n', '-c', 500, '-j', 2, '-T', 10, '-f', $script,
	$node->connstr('postgres'));
is($many->finish, 0, '500 sessions commit');
unlike($many->err, qr/WARNING/, 'without a warning');
my ($tps) = $many->out =~ /tps = (\d+)/;
diag "500 sessions: $tps commits a second, delivery p50 / p99 / max "
  . $node->safe_psql('postgres', q{SELECT latency_p50_ms || ' / ' || latency_p99_ms
	|| ' / ' || latency_max_ms FROM uncache.stat}) . ' ms';
is($node->safe_psql('postgres', 'SELECT wait_timeouts FROM uncache.stat'), '0',
	'nobody waits in vain');
ok(delivered($node), 'all is delivered');

$node->stop;
done_testing();
