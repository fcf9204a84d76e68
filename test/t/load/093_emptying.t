# A large retired table is checked in steps before it is emptied: meanwhile commits
# are delivered, and who writes to that table all the same loses nothing.

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
my $node = new_node('main', $redis, "uncache.redeliver_window = '1s'",
	"uncache.wait_timeout = '60s'");

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);
ok(wait_for_state($node, 'connected'), 'the worker is connected');

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub size { return sql("SELECT pg_relation_size('uncache.outbox_$_[0]') / 8192") }

# A new row need not make the table larger: from 16 on it grows by many blocks at once.
sub rows { return sql("SELECT count(*) FROM uncache.outbox_$_[0]") }

sub set_point
{
	my ($point) = @_;

	sql("ALTER SYSTEM SET uncache.fault_point = '$point'");
	$node->reload;
	return;
}

# Leave a table with many rows, retired, of which some blocks have been checked.
# Returns its number.
sub begin_a_long_check
{
	my @before = map { size($_) } 0 .. 3;
	my $rows = 800;

	arm($node, 'emptying-step');
	set_point('emptying-step:slow_300');
	# 800 rows of a block each: 50 steps.
	sql(qq{
		SELECT count(uncache.invalidate_keys(repeat('x', 7000) || i))
			FROM generate_series(1, $rows) i});
	my ($table) = grep { size($_) >= $rows && $before[$_] < $rows } 0 .. 3;
	ok(defined $table, 'a table has many rows');
	# It is the current one until something follows.
	ok(poll_until(sub {
		sql("SELECT uncache.invalidate_keys('next')");
		return struck($node, 'emptying-step');
	}), 'it is retired, and being checked');
	cmp_ok(size($table), '>=', $rows, 'and not empty yet');
	return $table;
}

sub end_it
{
	my ($table) = @_;

	set_point('');
	ok(poll_until(sub { size($table) == 0 }), 'the table is emptied in the end');
	return;
}

# --- commits go on ---

my $table = begin_a_long_check();
foreach my $i (1 .. 3)
{
	$redis->fill("meanwhile:$i");
	my ($status, undef, $err) = $node->psql('postgres',
		"SELECT uncache.invalidate_keys('meanwhile:$i')");
	is($err, '', 'a commit does not wait in vain');
	ok(!$redis->has("meanwhile:$i"), 'its key is gone');
}
cmp_ok(size($table), '>=', 800, 'while the table is still being checked');
end_it($table);

# --- a late writer ---

# Write to that table although it is not the current one: the others are locked.
sub write_late
{
	my ($table, $key) = @_;
	my $locks = join '; ',
		map { "LOCK TABLE uncache.outbox_$_ IN SHARE MODE" } grep { $_ != $table } 0 .. 3;
	my $session = $node->background_psql('postgres');

	$session->query_safe("BEGIN; $locks");
	my $before = rows($table);
	sql("SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('$key', repeat('y', 7000))");
	$session->query_safe('COMMIT');
	$session->quit;
	cmp_ok(rows($table), '>', $before, 'a late writer has come to the table');
	return;
}

$table = begin_a_long_check();
$redis->fill('late:1');
write_late($table, 'late:1');
ok(gone($redis, 'late:1'), 'its key is deleted');
end_it($table);

# Nobody tells a worker that has no Redis; it finds the row when it has one.
$table = begin_a_long_check();
$redis->fill('late:2');
$redis->freeze;
sql("SET uncache.wait_timeout = '1ms'; SELECT uncache.invalidate_keys('unanswered')");
ok(wait_for_state($node, 'down'), 'Redis is down');
write_late($table, 'late:2');
set_point('');
ok(!poll_until(sub { size($table) == 0 }, 4), 'the table is not emptied while that row is in it');
$redis->thaw;
ok(gone($redis, 'late:2'), 'a row that nobody was told of is not thrown away: its key is deleted');
ok(delivered($node), 'nothing is left to deliver');
end_it($table);

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
