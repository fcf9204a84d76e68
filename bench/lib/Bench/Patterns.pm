# Patterns.pm: commits beside a pass for many patterns over many keys.

package Bench::Patterns;

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(time);

use Bench::Lanes;
use Bench::Load;
use Bench::Report;
use Bench::Stats;

# Of the pass beside which commits are measured, and of those that are compared with SCAN.
my $many = 20_000;
my @compared = (1, 1000);

# Keys that one EVAL makes: not so many that the worker takes Redis for hung.
my $slice = 100_000;

# Every fourth key is one of a pattern's.
sub _fill_redis
{
	my ($keys, $patterns) = @_;
	my $script = q{for i = ARGV[1] + 1, math.min(ARGV[1] + ARGV[4], ARGV[2]) do
		local head = i % 4 == 0 and string.format('p%d:', i / 4 % ARGV[3]) or 'other:'
		redis.call('SET', head .. string.format('%d', i), 'x') end};
	my @scripts = map { [ 'EVAL', $script, 0, $_ * $slice, $keys, $patterns, $slice ] }
	  0 .. POSIX::ceil($keys / $slice) - 1;

	foreach my $command ([ 'FLUSHALL' ], @scripts)
	{
		system("redis-cli -s $ENV{REDIS_SOCKET} @{[map { quotemeta } @$command]} >/dev/null") == 0
			or die 'redis-cli failed';
	}
	return;
}

# Seconds in which an operator's own way deletes them all: one SCAN, also for many patterns.
sub _scan_and_unlink
{
	my $redis = "redis-cli -s $ENV{REDIS_SOCKET}";
	my $start = time;

	system("$redis --scan --pattern 'p*' | xargs $redis UNLINK >/dev/null") == 0
	  or die 'redis-cli failed';
	return time - $start;
}

# A client that updates single rows goes on all the time; after some seconds there are the
# patterns.  Returns the latencies in microseconds before that and beside the pass, and how
# long the pass took.
sub _measure
{
	my ($session, $lane, $quiet_seconds, $patterns) = @_;
	my $log = "$ENV{PRIVATE}/tmp/patterns";
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		$ENV{PGOPTIONS} = "-c $lane->{settings}";
		open STDOUT, '>', '/dev/null';
		exec 'pgbench', '-n', '-c', 1, '-T', 600, '-l', "--log-prefix=$log", '-f',
			"$ENV{PRIVATE}/update.sql", 'bench';
	}
	sleep 1 + $quiet_seconds;
	my $start = time;
	$session->query("SELECT count(uncache.invalidate_pattern('p' || i || ':*'))
		FROM generate_series(0, $patterns - 1) i");
	$session->query("SELECT uncache.wait('10 min')");
	my $end = time;
	kill 'TERM', $pid;
	waitpid $pid, 0;

	my (@quiet, @beside);
	foreach my $file (glob "$log*")
	{
		open my $in, '<', $file or die "$file: $!";
		while (<$in>)
		{
			my (undef, undef, $latency, undef, $s, $us) = split;

			next unless defined $us && $us ne '';	# the last line may be cut
			my $at = $s + $us / 1e6;
			if ($at < $start) { push @quiet, $latency }
			elsif ($at < $end) { push @beside, $latency }
		}
		unlink $file;
	}
	return (\@quiet, \@beside, $end - $start);
}

# One round: commits before and beside the pass, under the name of the case.
sub _round
{
	my ($bench, $lane, $case, $round, $keys, $patterns) = @_;
	my $report = $bench->{report};

	_fill_redis($keys, $patterns);
	my ($quiet, $beside, $seconds) = _measure($bench->{session}, $lane, 5, $patterns);
	$report->add('patterns', "pass$case", 'beside', $round, 'seconds', $seconds);
	foreach my $figure ([ p50 => 0.5 ], [ p99 => 0.99 ])
	{
		my ($name, $q) = @$figure;

		$report->add('patterns', "commit$case", 'quiet', $round, $name, quantile($q, @$quiet));
		$report->add('patterns', "commit$case", 'beside', $round, $name, quantile($q, @$beside));
	}
	return;
}

sub _commit_cells
{
	my ($report, $case, $figure) = @_;
	my @figures = ('patterns', "commit$case");

	return ((map { sprintf '%.2f', $report->median_of(@figures, $_, $figure) / 1000 }
			qw(quiet beside)),
		Bench::Report::spread('%.2f', $report->ratios(@figures, 'beside', 'quiet', $figure)));
}

sub _run_many
{
	my ($bench, $lane) = @_;
	my ($report, $keys) = @{$bench}{qw(report rows)};

	foreach my $round (0 .. $bench->{few} - 1)
	{
		_round($bench, $lane, '', $round, $keys, $many);
		print STDERR 'patterns: round ', $round + 1, " of $bench->{few}\n";
	}
	$report->table("$many patterns over $keys keys: the pass took "
		. sprintf('%.1f s', $report->median_of('patterns', 'pass', 'beside', 'seconds')),
		[ 'COMMIT of a single row, ms', 'quiet', 'beside the pass', 'ratio' ],
		map { [ $_, _commit_cells($report, '', $_) ] } qw(p50 p99));
	return;
}

sub _run_compared
{
	my ($bench, $lane) = @_;
	my ($report, $keys) = @{$bench}{qw(report pattern_keys)};
	# A round of ten million takes minutes, and has thousands of commits on either side.
	my $rounds = $keys > 1_000_000 ? 1 : $bench->{few};

	foreach my $round (0 .. $rounds - 1)
	{
		foreach my $patterns (@compared)
		{
			_fill_redis($keys, $patterns);
			$report->add('patterns', "pass-$patterns", 'scan', $round, 'seconds',
				_scan_and_unlink());
			_round($bench, $lane, "-$patterns", $round, $keys, $patterns);
			print STDERR "patterns: $patterns, round ", $round + 1, " of $rounds\n";
		}
	}
	_fill_redis(0, 1);
	$report->table("Patterns over $keys keys, a quarter of which they delete\n"
		  . 'Keys of the server a second, of pg_uncache and of one redis-cli --scan --pattern | '
		  . 'xargs redis-cli UNLINK for all patterns together; and p99 of the COMMIT of a '
		  . 'single row in ms.',
		[ 'patterns', 'pg_uncache', 'redis-cli', 'ratio', 'p99, quiet', 'beside the pass',
			'ratio' ],
		map {
			my $case = "pass-$_";

			[ $_, (map { sprintf '%.0f', $keys / $report->median_of('patterns', $case, $_,
				'seconds') } qw(beside scan)),
				Bench::Report::spread('%.2f',
					$report->ratios('patterns', $case, 'scan', 'beside', 'seconds')),
				_commit_cells($report, "-$_", 'p99') ]
		} @compared);
	return;
}

sub run
{
	my ($bench) = @_;
	my ($lane) = grep { $_->{id} eq 'ryw' } Bench::Lanes::all();

	Bench::Lanes::set_fence($bench->{session}, 0);
	Bench::Lanes::enter($bench->{session}, $lane, 'bench.item', 'id');
	_run_many($bench, $lane);
	_run_compared($bench, $lane);
	return;
}

1;
