# A transaction with a million keys: its backend needs little memory, all keys
# go, and meanwhile other sessions' commits do not wait behind it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'shared_buffers = 16MB', 'uncache.wait_timeout = 1s', 'autovacuum = off');

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

# Single-row commits, one after the other: how many, and the slowest in ms.
sub small_commits
{
	my ($while) = @_;
	my ($out, $err) = ('', '');
	my $script = $node->basedir . '/small.sql';
	my $log = $node->basedir . "/small_$while";

	unlink $script;
	append_to_file($script, "\\set id random(1, 100)\nUPDATE small SET n = n + 1 WHERE id = :id;\n");
	return ($log, IPC::Run::start([ 'pgbench', '-n', '-T', 120, '-R', 100, '-l', "--log-prefix=$log", '-f', $script,
				'-p', $node->port, '-h', $node->host, 'postgres' ], '>', \$out, '2>', \$err));
}

sub latencies
{
	my ($log) = @_;
	my @ms;

	foreach my $file (glob "$log*")
	{
		push @ms, map { (split / /)[2] / 1000 } grep { /\n?\S/ } split /\n/, slurp_file($file);
	}
	return sort { $a <=> $b } @ms;
}

# The trigger is the same C function, and records nothing.
my $without = update_all('off');
$redis->fill_range('big:', 1, 1000000);
$redis->fill('bystander:1');

my ($log, $small) = small_commits('bulk');
my $with = update_all();
ok(delivered($node), 'everything is delivered');
$small->signal('INT');
eval { $small->finish };

note "peak memory: $without kB with enabled = off, $with kB with a million keys";
cmp_ok($with - $without, '<', 64 * 1024, 'a million keys take less than 64 MB more than none');
is(join(' ', $redis->keys), 'bystander:1', 'all keys are gone, and no other');
is($node->safe_psql('postgres', 'SELECT wait_timeouts FROM uncache.stat'), '0', 'meanwhile no commit waited in vain');

my @ms = latencies($log);
cmp_ok(scalar @ms, '>', 100, 'single rows were committed all the while');
note sprintf 'single-row commits meanwhile: %d, median %.2f ms, p99 %.2f ms, max %.2f ms',
	scalar @ms, $ms[ $#ms / 2 ], $ms[ $#ms * 0.99 ], $ms[-1];
cmp_ok($ms[ $#ms * 0.99 ], '<', 250, 'and 99 of 100 of them took less than a quarter of a second');

$node->stop;
done_testing();
