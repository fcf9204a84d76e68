# Redis refuses, cuts answers in the middle, is slow: commits go on, the
# log is not flooded, and everything is delivered in the end.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Faults;
use RedisProxy;
use RedisServer;
use Uncache;

# Down when the server starts.  Its keys outlive a clean stop; no command waits for a disk.
my $redis = RedisServer->new('--appendonly', 'yes', '--appendfsync', 'no');
$redis->start;
$redis->fill(map { "key:$_" } 1 .. 20);
$redis->stop;
my $proxy = RedisProxy->new($redis);
# A Redis that listens while it starts, for more than the default connect_timeout on a busy
# machine, would be another reason for the log.
my $node = new_node('main', $proxy, 'uncache.wait_timeout = 300ms', 'uncache.command_timeout = 1s',
	'uncache.connect_timeout = 30s');
my $from = 0;
my $number = 0;

# Commit with so many keys, one a commit; seconds taken, and the warnings.
sub commits
{
	my ($count) = @_;
	my $sql = join '',
		map { $number++; "SELECT uncache.invalidate_keys('key:$number');\n" } 1 .. $count;
	my $started = time;
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	my $warnings = () = $err =~ /WARNING/g;

	die "a commit failed: $err" if $status != 0;
	return (time - $started, $warnings, $err);
}

sub fill { $redis->fill(map { 'key:' . ($number + $_) } 1 .. $_[0]); return }

sub is_all_delivered
{
	my ($what) = @_;

	ok(delivered($node), "$what: everything is delivered");
	is(join(' ', $redis->keys('key:*')), '', 'every key is deleted');
	return;
}

# What the worker has written to the log since the last call.  A line that is being written is
# left for the next one.
sub log_lines
{
	my $log = slurp_file($node->logfile, $from) =~ s/[^\n]*\z//r;

	$from += length $log;
	return grep { /(LOG|WARNING|ERROR|FATAL):/ && /Redis|uncache/ && !/statement:/ } split /\n/,
		$log;
}

my ($taken, $warnings) = commits(20);
cmp_ok($taken, '<', 5, 'Redis is down at the start: commits go on');
cmp_ok($warnings, '<=', 1, 'with one warning at most');
ok(wait_for_state($node, 'down'), 'and the worker has found that out');
$redis->start;
is_all_delivered('Redis starts');
$redis->cli('set', 'other', 1);
# The log is told a turn after the first answer.
my @lines;
poll_until(sub { push @lines, log_lines(); return scalar grep { /connected/ } @lines });
# While it comes up it may say for a moment that it loads its data.  The log hears each reason once.
my @reasons = map { /cannot be used(?: for another reason now)?: (.*)/ } @lines;
is(scalar(grep { /closed the connection/ } @reasons), 1, 'one line when Redis was missing')
	or diag join "\n", @lines;
my %reasons = map { $_ => 1 } @reasons;
is(scalar @reasons, scalar(keys %reasons), 'no reason twice') or diag join "\n", @lines;
is(scalar(grep { /connected/ } @lines), 1, 'one when it was there');

# --- refusals that mean Redis as a whole ---

foreach my $case (
	['UNLINK', 'READONLY', "READONLY You can't write against a read only replica."],
	['UNLINK', 'OOM', 'OOM command not allowed when used memory > maxmemory.'],
	['UNLINK', 'MISCONF', 'MISCONF Redis is configured to save RDB snapshots'],
	['UNLINK', 'NOREPLICAS', 'NOREPLICAS Not enough good replicas to write.'],
	['*', 'LOADING', 'LOADING Redis is loading the dataset in memory'],
	['*', 'BUSY', 'BUSY Redis is busy running a script.'],
	['*', 'NOAUTH', 'NOAUTH Authentication required.'],
	['*', 'MASTERDOWN', 'MASTERDOWN Link with MASTER is down'])
{
	my ($command, $code, $text) = @$case;

	$text =~ s/'/\\'/g;
	ok(wait_for_state($node, 'connected'), "$code: connected before");
	fill(30);
	log_lines();
	$proxy->error_for($command, $text);
	my ($taken, $warnings) = commits(30);
	cmp_ok($taken, '<', 7, 'commits go on');
	cmp_ok($warnings, '<=', 2, 'with a warning or two');
	ok($node->poll_query_until('postgres',
		"SELECT state = 'down' AND last_error LIKE '%Redis%' AND retries >= 0 FROM uncache.stat"),
			'uncache.stat says so');
	my $until = time + 1.2;
	while (time < $until) { commits(1); select undef, undef, undef, 0.1 }
	$proxy->error_for($command);
	is_all_delivered('that is over');
	my @lines = log_lines();
	cmp_ok(scalar @lines, '<=', 5, 'a few lines in the log') or diag join "\n", @lines;
}

# --- an error that is no text ---

$node->safe_psql('postgres',
	q{CREATE DATABASE utf8 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$node->safe_psql('utf8', 'CREATE EXTENSION pg_uncache');
ok(wait_for_state($node, 'connected', 'utf8'), 'a database in UTF-8');
$proxy->error_for('UNLINK', "OOM <\xFF\xFE\x01\xC3\xA9\xC3>");
$node->psql('utf8', q{SELECT uncache.invalidate_keys('some')});
ok($node->poll_query_until('utf8',
	q{SELECT last_error LIKE U&'%OOM <???\00E9?>%' FROM uncache.stat}),
	'what Redis says is shown as far as it is text');
$proxy->error_for('UNLINK');
ok(delivered($node, 'utf8'), 'and that is over');
$node->safe_psql('postgres', 'DROP DATABASE utf8');

# --- a key that may not be deleted ---

$redis->cli('acl', 'setuser', 'worker', 'on', '>secret', '~key:*', '+@all');
$node->safe_psql('postgres',
	"ALTER SYSTEM SET uncache.redis_url = 'unix://worker:secret\@" . substr($proxy->url, 7) . "'");
$node->reload;
ok(poll_until(sub { $redis->cli('client', 'list') =~ /user=worker/ }),
	'the worker is another user now');
ok(wait_for_state($node, 'connected'), 'and connected');
$redis->fill('forbidden');
fill(20);
$node->safe_psql('postgres',
	q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('forbidden', 'key:x')});
($taken, $warnings) = commits(20);
is($warnings, 0, 'a key may not be deleted: the others are, in time');
ok($redis->has('forbidden'), 'it is there');
is($node->safe_psql('postgres', 'SELECT count(*), max(keys) FROM uncache.backlog'), '1|1',
	'and in the backlog, alone');
is($node->safe_psql('postgres', "SELECT uncache.wait('0.3 s')"), 'f',
	'uncache.wait() says that not all is delivered');
my ($status, $out, $err) = $node->psql('postgres', q{SELECT uncache.invalidate_keys('forbidden')});
is($err, '', 'while it is refused nobody waits for it');
$redis->cli('acl', 'setuser', 'worker', '~forbidden');
ok(gone($redis, 'forbidden'), 'when it may be, it is');
is_all_delivered('after that');
$redis->cli('acl', 'setuser', 'worker', 'allkeys');

# --- answers that do not come, or half of them ---

foreach my $bytes (0, 1, 3, 5)
{
	ok(wait_for_state($node, 'connected'),
		"a link that breaks after $bytes bytes of answers: connected before");
	fill(200);
	$proxy->hold_answers;
	$node->safe_psql('postgres', "SET uncache.wait_timeout = 0;
		SELECT uncache.invalidate_keys('key:' || i)
		FROM generate_series($number + 1, $number + 200) i");
	$number += 200;
	if ($bytes) { $proxy->cut_after($bytes); $proxy->hold_answers(0) }
	else { $proxy->reset; $proxy->hold_answers(0) }
	is_all_delivered('the next one');
}

# --- slow ---

ok(wait_for_state($node, 'connected'), 'connected');
$proxy->delay(100);
fill(50);
{
	# A crowded machine adds its own time.
	local $ENV{PGOPTIONS} = '-c uncache.wait_timeout=5s';
	($taken, $warnings) = commits(10);
}
is($warnings, 0, 'a round trip of 200 ms: commits wait');
cmp_ok($taken, '>', 1.9, 'as long as it takes');
$proxy->delay(200);
($taken, $warnings) = commits(40);
cmp_ok($warnings, '<=', 2, 'a round trip of 400 ms: after a timeout nobody waits');
cmp_ok($taken, '<', 8, 'so that commits go on');
is($node->safe_psql('postgres', 'SELECT state FROM uncache.stat'), 'connected',
	'although Redis is connected all the time');
is_all_delivered('slowly');
$proxy->behave;
ok(poll_until(sub {
	$redis->fill('again');
	$node->safe_psql('postgres', q{SELECT uncache.invalidate_keys('again')});
	return !$redis->has('again');
}), 'fast again: commits wait again');

# These keys need some six seconds at 8 kB/s, each command more than command_timeout.
$proxy->rate(8000);
my $retries = $node->safe_psql('postgres', 'SELECT reconnects FROM uncache.stat');
fill(600);
$node->safe_psql('postgres', "SET uncache.wait_timeout = 0;
	SELECT uncache.invalidate_keys('key:' || i, 'key:' || i || repeat(':filler', 6))
	FROM generate_series($number + 1, $number + 600) i");
$number += 600;
is_all_delivered('a link of 8 kB/s');
is($node->safe_psql('postgres', 'SELECT reconnects FROM uncache.stat'), $retries,
	'without a break of the link');
$proxy->behave;

# --- a user that may do nothing but what is needed ---

$redis->cli('acl', 'setuser', 'worker', '-@all', '+unlink');
$proxy->reset;
ok(wait_for_state($node, 'connected'), 'a user with UNLINK alone is connected');
my $connections = $proxy->connections;
fill(1);
($taken, $warnings) = commits(1);
is($warnings, 0, 'and can delete');
my $seconds = time + 2.5;
select undef, undef, undef,
	0.1 while time < $seconds;	# longer than it takes to ask Redis whether it lives
is($proxy->connections, $connections, 'and stays connected');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
