# A transaction with a million keys: its backend needs little memory, all keys
# go, and meanwhile other sessions' commits do not wait behind it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'shared_buffers = 16MB', 'uncache.wait_timeout = 1s',
	'autovacuum = off');

$node->safe_psql('postgres', q{
	CREATE TABLE big (id int PRIMARY KEY, n int);
	INSERT INTO big SELECT i, 0 FROM generate_series(1, 1000000) i;
	CREATE TABLE small (id int PRIMARY KEY, n int);
	INSERT INTO small SELECT i, 0 FROM generate_series(1, 100) i;
	SELECT uncache.attach('big', 'big:{id}');
	SELECT uncache.attach('small', 'small:{id}')});
ok(delivered($node), 'the worker is up to date');

# The most memory in kB that a session has needed to update all of the table.
# shared_buffers are small, so that they hardly count.
sub update_all
{
	my ($setting) = @_;
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_safe("SET uncache.enabled = $setting") if defined $setting;
	$session->query_safe('UPDATE big SET n = n + 1');
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s*(\d+) kB/m;
	$session->quit;
	return $peak;
}

# Start single-row commits, 100 a second at most, one after the other: where they
# are logged, and the handle.
sub small_commits
{
	my ($while) = @_;
	my ($out, $err) = ('', '');
	my $script = $node->basedir . '/small.sql';
	my $log = $node->basedir . "/small_$while";

	unlink $script;
	append_to_file($script,
		"\\set id random(1, 100)\nUPDATE small SET n = n + 1 WHERE id = :id;\n");
	return ($log, IPC::Run::start([ 'pgbench', '-n', '-T', 120, '-R', 100, '-l',
		"--log-prefix=$log", '-f', $script,
				'-p', $node->port, '-h', $node->host, 'postgres' ], '>', \$out, '2>', \$err));
}

# What pgbench logged: when each commit began and ended, in seconds.  What it came
# too late because of the one before it does not count.
sub logged
{
	my ($log) = @_;
	my @commits;

	foreach my $file (glob "$log*")
	{
		# The last line may be half written.
		foreach my $line (slurp_file($file) =~ /(.*)\n/g)
		{
			my (undef, undef, $us, undef, $seconds, $fraction, $late) = split / /, $line;
			my $end = $seconds + $fraction / 1e6;

			push @commits, { begin => $end - ($us - $late) / 1e6, end => $end };
		}
	}
	return @commits;
}

# The time in ms that 99 of 100 of them stayed below.
sub percentile99
{
	my @ms = sort { $a <=> $b } map { ($_->{end} - $_->{begin}) * 1000 } @_;

	return @ms ? $ms[ $#ms * 0.99 ] : 0;
}

# The trigger is the same C function, and records nothing.
my $without = update_all('off');
$redis->fill_range('big:', 1, 1000000);
$redis->fill('bystander:1');

my ($log, $small) = small_commits('bulk');
my $with = update_all();
my $begun = time;
ok(delivered($node), 'everything is delivered');
my $done = time;
# pgbench writes its log in pieces, and forgets the last one when it is ended.
ok(poll_until(sub { my @all = logged($log); @all && $all[-1]{end} > $done }),
	'the commits of that time are logged');
$small->signal('INT');
eval { $small->finish };

note "peak memory: $without kB with enabled = off, $with kB with a million keys";
cmp_ok($with - $without, '<', 64 * 1024, 'a million keys take less than 64 MB more than none');
is(join(' ', $redis->keys), 'bystander:1', 'all keys are gone, and no other');
is($node->safe_psql('postgres', 'SELECT wait_timeouts FROM uncache.stat'), '0',
	'meanwhile no commit waited in vain');

# Whoever waited behind the million keys would have committed once until all were
# delivered, and would have taken nearly as long.
my @commits = logged($log);
my @meanwhile = grep { $_->{begin} > $begun and $_->{end} < $done } @commits;
my $bulk_ms = ($done - $begun) * 1000;
note sprintf 'single-row commits: %d, p99 %.2f ms; %d in the %.0f ms of the delivery, p99 %.2f ms',
	scalar @commits, percentile99(@commits), scalar @meanwhile, $bulk_ms, percentile99(@meanwhile);
cmp_ok(scalar @meanwhile, '>', 10, 'single rows were committed while the keys were delivered');
cmp_ok(percentile99(@meanwhile), '<', $bulk_ms / 4,
	'and 99 of 100 of them took less than a quarter of that time');

$node->stop;
done_testing();
