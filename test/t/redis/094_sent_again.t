# How much is sent again after a restart of the worker, which has then forgotten
# what was delivered: each key of the last two redeliver_windows once, and nothing
# from before.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Faults;
use RedisServer;
use Uncache;

my $window = 3;
my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, "uncache.redeliver_window = '${window}s'", 'autovacuum = off');

sub sql { return $node->safe_psql('postgres', $_[0]) }

my $batches = 0;

sub commit_keys
{
	my ($count, $length) = @_;

	$batches++;
	sql("SELECT count(uncache.invalidate_keys('$batches:' || i || ':' || repeat('x', $length)))
		FROM generate_series(1, $count) i");
	return;
}

sub outbox_kilobytes
{
	return sql(q{SELECT (pg_relation_size('uncache.outbox_0') + pg_relation_size('uncache.outbox_1')
		+ pg_relation_size('uncache.outbox_2') + pg_relation_size('uncache.outbox_3')) / 1024});
}

sub keys_sent { return sql('SELECT keys_delivered FROM uncache.stat') }

# End the worker; how many keys the next one sends.
sub sent_again
{
	my $pid = worker_pid($node);

	delivered($node) or die 'not delivered';
	my $before = keys_sent();
	sql("SELECT pg_terminate_backend($pid)");
	poll_until(sub { my $now = worker_pid($node); $now != 0 && $now != $pid })
		or die 'no new worker';
	delivered($node) or die 'not delivered again';
	return keys_sent() - $before;
}

# What was delivered a moment ago is sent again, so on a very slow machine try again.
sub sent_again_after
{
	my ($count, $length) = @_;
	my $again = 0;

	foreach my $try (1 .. 5)
	{
		poll_until(sub { outbox_kilobytes() == 0 }) or die 'the outbox is not emptied';
		commit_keys($count, $length);
		$again = sent_again();
		last if $again > 0;
	}
	return $again;
}

ok(wait_for_state($node, 'connected'), 'the worker is connected');
is(sent_again_after(10, 0), 10, 'ten keys: all ten are sent again');
is(sent_again_after(200_000, 80), 200_000, 'a table that is full: each of its keys is, once');
is(sent_again_after(3_000, 0), 3_000, 'when that is emptied, nothing of it');

# While commits go on.
my @committed;
my $began = time;
while (time - $began < 7 * $window)
{
	push @committed, time;
	commit_keys(100, 0);
	sleep 0.1;
}
my $now = time;
# A table is looked at every second; the rest is for a machine with other things to do.
my $recent = 100 * grep { $_ > $now - 2 * $window - 9 } @committed;
my $again = sent_again();
diag sprintf '%d keys of %d sent again, of two windows and the reserve %d', $again,
	100 * @committed, $recent;
cmp_ok($again, '>=', 100, 'while commits go on, the last ones are sent again');
cmp_ok($again, '<=', $recent, 'and none from before two windows');
cmp_ok($recent, '<', 100 * @committed, 'which are fewer than all');

$node->stop;
done_testing();
