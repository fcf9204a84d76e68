# The time of day is set back and forward while the server runs: what was to be done
# in a second is done in a second, and no wait ends before its time.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

# The servers of this test have a clock of their own (test/lib/set_clock.c).
my $folder = PostgreSQL::Test::Utils::tempdir;
my ($source) = grep { -e } map { "$_/set_clock.c" } @INC;
system('cc', '-shared', '-fPIC', '-o', "$folder/set_clock.so", $source, '-ldl') == 0
	or die 'could not compile set_clock.c';

# So many seconds from the true time.
sub set_clock
{
	my ($seconds) = @_;

	append_to_file("$folder/new", $seconds);
	rename "$folder/new", "$folder/clock" or die;
	return;
}

my $redis = RedisServer->new_durable;
$redis->start;
set_clock(0);
my $node;
{
	local $ENV{CLOCK_FILE} = "$folder/clock";
	local $ENV{LD_PRELOAD} = join ' ', grep { $_ } $ENV{LD_PRELOAD}, "$folder/set_clock.so";
	$node = new_node('main', $redis, 'uncache.redeliver_window = 1s',
		'uncache.command_timeout = 10min');
}
ok(wait_for_state($node, 'connected'), 'connected');

sub commit
{
	my ($key) = @_;

	$node->safe_psql('postgres',
		"SET uncache.consistency = eventual; SELECT uncache.invalidate_keys('$key')");
	return;
}

# --- back ---

$redis->fill('a', 'b');
$redis->stop;
commit('a');
ok(wait_for_state($node, 'down'), 'Redis is away');
my $before = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
set_clock(-3600);
is($node->safe_psql('postgres', "SELECT clock_timestamp() < '$before'"), 't',
	'the clock is set back by an hour');
commit('b');
$redis->start;
ok(gone($redis, 'a') && gone($redis, 'b'),
	'Redis is back: it is found, and everything is delivered');
ok(delivered($node), 'uncache.wait() sees it');
is($node->safe_psql('postgres', 'SELECT keys_existed FROM uncache.stat'), '2',
	'both were there to be deleted');

is($node->safe_psql('postgres', "SELECT uncache.wait('300000 years')"), 't',
	'also for who waits beyond the end of time');

set_clock(-7200);
ok(comes_true($node, 'SELECT outbox_bytes = 0 FROM uncache.stat'),
	'once more: the outbox is emptied in its time');

# --- forward ---

my $reconnects = $node->safe_psql('postgres', 'SELECT reconnects FROM uncache.stat');
$redis->freeze;
commit('c');
my $waiting = start_psql($node, "SELECT uncache.wait('10 min')");
ok($node->poll_query_until('postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE query LIKE '%uncache.wait(%' AND wait_event_type = 'Extension'
		AND pid <> pg_backend_pid()}),
	'Redis hangs, somebody waits');
set_clock(7200);
commit('d');
$redis->thaw;
is($waiting->finish . $waiting->out, "0t\n",
	'the clock is set forward by four hours: who waits goes on waiting');
is($node->safe_psql('postgres', 'SELECT reconnects FROM uncache.stat'), $reconnects,
	'so does the worker');

$node->stop;
done_testing();
