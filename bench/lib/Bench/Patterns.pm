# Patterns.pm: commits beside a pass for many patterns over many keys.

package Bench::Patterns;

use strict;
use warnings;

use Time::HiRes qw(time);

use Bench::Lanes;
use Bench::Load;
use Bench::Report;
use Bench::Stats;

my $patterns = 20_000;

# Every fourth key is one of a pattern's.
sub _fill_redis
{
	my ($keys) = @_;
	my $script = q{for i = 1, ARGV[1] do
		local head = i % 4 == 0 and string.format('p%d:', i / 4 % ARGV[2]) or 'other:'
		redis.call('SET', head .. string.format('%d', i), 'x') end};

	foreach my $command ([ 'FLUSHALL' ], [ 'CONFIG', 'SET', 'busy-reply-threshold', 60000 ],
		[ 'EVAL', $script, 0, $keys, $patterns ])
	{
		system("redis-cli -s $ENV{REDIS_SOCKET} @{[map { quotemeta } @$command]} >/dev/null") == 0
			or die 'redis-cli failed';
	}
	return;
}

# A client that updates single rows goes on all the time; after some seconds there are the
# patterns.  Returns the latencies in microseconds before that and beside the pass, and how
# long the pass took.
sub _measure
{
	my ($session, $lane, $quiet_seconds) = @_;
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

sub run
{
	my ($bench) = @_;
	my ($session, $report, $keys) = @{$bench}{qw(session report rows)};
	my ($lane) = grep { $_->{id} eq 'ryw' } Bench::Lanes::all();
	my @rows = [ 'COMMIT of a single row, ms', 'quiet', 'beside the pass', 'ratio' ];

	Bench::Lanes::set_fence($session, 0);
	Bench::Lanes::enter($session, $lane, 'bench.item', 'id');
	foreach my $round (0 .. $bench->{few} - 1)
	{
		_fill_redis($keys);
		my ($quiet, $beside, $seconds) = _measure($session, $lane, 5);

		$report->add('patterns', 'pass', 'beside', $round, 'seconds', $seconds);
		foreach my $figure ([ p50 => 0.5 ], [ p99 => 0.99 ])
		{
			$report->add('patterns', 'commit', 'quiet', $round, $figure->[0],
				quantile($figure->[1], @$quiet));
			$report->add('patterns', 'commit', 'beside', $round, $figure->[0],
				quantile($figure->[1], @$beside));
		}
		print STDERR 'patterns: round ', $round + 1, " of $bench->{few}\n";
	}
	foreach my $figure (qw(p50 p99))
	{
		push @rows, [ $figure, (map { sprintf '%.2f',
			$report->median_of('patterns', 'commit', $_, $figure) / 1000 } qw(quiet beside)),
			Bench::Report::spread('%.2f',
				$report->ratios('patterns', 'commit', 'beside', 'quiet', $figure)) ];
	}
	$report->table("$patterns patterns over $keys keys: the pass took "
		. sprintf('%.1f s', $report->median_of('patterns', 'pass', 'beside', 'seconds')), @rows);
	return;
}

1;
