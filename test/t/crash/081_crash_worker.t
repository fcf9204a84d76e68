# The worker dies, by kill -9 and by an ERROR, at every step of a delivery, of
# the emptying of a table, and of moving a refused key: what is committed is
# delivered all the same, and what is not stays.

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
my $node = new_node('main', $redis, 'restart_after_crash = on',
	"uncache.consistency = 'eventual'", 'uncache.redeliver_window = 1s');

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);
ok(wait_for_state($node, 'connected'), 'the worker is connected');

my $round = 0;
my $first = 1;

$node->safe_psql('postgres', 'CREATE TABLE oracle (round int, keys bigint)');

sub set_point
{
	my ($point) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET uncache.fault_point = '$point'");
	$node->reload;
	return;
}

# Commit with keys until the point strikes.  The last commit may be cut off by the
# crash, so what has committed is asked of the database.
sub commit_until_struck
{
	my ($point, $keys) = @_;

	return poll_until(sub {
		return 1 if struck($node, $point);
		$round++;
		$redis->fill("w:$round:1", "w:$round:$keys", "kept:w:$round");
		$node->psql('postgres', "INSERT INTO oracle SELECT $round,
			count(uncache.invalidate_keys('w:$round:' || i)) FROM generate_series(1, $keys) i");
		return struck($node, $point);
	});
}

sub die_at
{
	my ($point, $action, $keys) = @_;
	my $what = "$action at $point, $keys keys";

	arm($node, $point);
	set_point("$point:$action");
	ok(commit_until_struck($point, $keys), "$what: reached");
	ok(wait_until_up(), 'the worker is back');
	ok(delivered($node), 'nothing is left to deliver');
	my %committed = map { $_ => 1 } split /\n/,
		$node->safe_psql('postgres', 'SELECT round FROM oracle');
	my @wrong = grep { ($redis->has("w:$_:1") || $redis->has("w:$_:$keys")) != !$committed{$_} }
		$first .. $round;
	is("@wrong", '', 'what has committed is deleted, what has not is there');
	is(scalar(my @kept = $redis->keys('kept:w:*')), $round, 'and so is what nobody named');
	$first = $round + 1;
	return;
}

sub wait_until_up
{
	return comes_true($node, "SELECT state = 'connected' FROM uncache.stat");
}

foreach my $case (['ring-taken', 1], ['batch-sent', 1], ['batch-sent', 3000], ['answered', 1],
	['answered', 3000], ['scan-step', 3000], ['emptying-locked', 1], ['emptied', 1])
{
	my ($point, $keys) = @$case;

	die_at($point, 'kill9', $keys);
}
# An ERROR ends the worker alone.  The pause before the next one grows each time.
foreach my $case (['ring-taken', 1], ['answered', 3000], ['emptied', 1])
{
	my ($point, $keys) = @$case;

	die_at($point, 'error', $keys);
}

# A key that Redis refuses moves to the side table; when Redis lets it, it goes.
$redis->cli('acl', 'setuser', 'worker', 'on', '>secret', '~w:*', '+@all');
set_point('');
$node->safe_psql('postgres',
	"ALTER SYSTEM SET uncache.redis_url = 'unix://worker:secret\@" . $redis->socket . "'");
$node->reload;
foreach my $action ('kill9')
{
	foreach my $point ('side-inserted', 'side-written')
	{
		my $key = "refused:$point:$action";

		ok(wait_until_up(), 'the worker is connected');
		arm($node, $point);
		set_point("$point:$action");
		$redis->fill($key);
		ok(poll_until(sub {
			$node->psql('postgres', "SELECT uncache.invalidate_keys('$key', 'w:$point:$action')");
			return struck($node, $point);
		}), "$action at $point: reached");
		ok(wait_until_up(), 'the worker is back');
		ok($node->poll_query_until('postgres',
			"SELECT count(*) > 0 FROM uncache.backlog WHERE attempts > 0"),
			'the backlog has the refused key');
		ok($redis->has($key), 'it is there');
		$redis->cli('acl', 'setuser', 'worker', '~refused:*');
		ok(gone($redis, $key), 'allowed: it is deleted');
		ok(delivered($node), 'nothing is left to deliver');
		$redis->cli('acl', 'setuser', 'worker', 'resetkeys', '~w:*');
	}
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
