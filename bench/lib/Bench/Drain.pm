# Drain.pm: how fast a backlog goes to Redis, beside redis-benchmark on the same one.

package Bench::Drain;

use strict;
use warnings;

use Time::HiRes qw(time);

use Bench::Cpu;
use Bench::Lanes;
use Bench::Report;

my @cases = ([ 'small', 1, 'one key a transaction' ], [ 'large', 1000, '1000 keys a transaction' ]);

sub _redis
{
	my @command = ('redis-cli', '-s', $ENV{REDIS_SOCKET}, @_);

	open my $in, '-|', @command or die "redis-cli: $!";
	my $answer = join '', <$in>;
	close $in && $answer !~ /^ERR/ or die "redis-cli @_: $answer";
	return;
}

# All keys exist: put them there from within.
sub _fill_redis
{
	my ($keys) = @_;
	my $script =
		q{for i = 0, ARGV[1] - 1 do redis.call('SET', string.format('key:%012d', i), 'x') end};

	_redis('FLUSHALL');
	_redis('CONFIG', 'SET', 'busy-reply-threshold', 60000);
	_redis('EVAL', $script, 0, $keys);
	return;
}

sub _redis_benchmark
{
	my ($keys) = @_;
	my $unlink = "-n $keys -r $keys --csv UNLINK key:__rand_int__";
	my $text = qx{redis-benchmark -p $ENV{REDIS_PORT} -P 64 -c 1 $unlink};
	my ($rate) = $text =~ /^"UNLINK[^"]*","([\d.]+)"/m or die "redis-benchmark: $text";

	return $rate;
}

# Seconds of CPU that the worker, and Redis, have needed so far.
sub _cpu
{
	my ($worker) = @_;

	return map { Bench::Cpu::of_process($_) } $worker, $ENV{REDIS_PID};
}

# Keys a second, from switching delivery on to the last one delivered; and the microseconds of
# CPU a key of worker and Redis together.
sub _pg_uncache
{
	my ($session, $keys, $per_transaction, $stream) = @_;

	$session->set_for_all('uncache.stream', $stream);
	$session->set_for_all('uncache.delivery', 'off');
	$session->await('SELECT state FROM uncache.stat', 'paused');
	$session->query("SET synchronous_commit = off;
		DO \$\$ BEGIN FOR i IN 0 .. @{[$keys / $per_transaction - 1]} LOOP
			PERFORM uncache.invalidate_keys(VARIADIC
				ARRAY(SELECT 'key:' || lpad((i * $per_transaction + j)::text, 12, '0')
				FROM generate_series(0, $per_transaction - 1) j));
			COMMIT;
		END LOOP; END \$\$;
		RESET synchronous_commit; CHECKPOINT");
	my $delivered = $session->query('SELECT keys_delivered FROM uncache.stat');
	my $worker = $session->query('SELECT worker_pid FROM uncache.stat');
	my @cpu = _cpu($worker);
	my $start = time;
	$session->set_for_all('uncache.delivery', 'on');
	$session->await('SELECT state FROM uncache.stat', 'connected');
	$session->query("SELECT uncache.wait('10 min')");
	my $seconds = time - $start;
	my @after = _cpu($worker);
	die "another worker has come\n"
		if $session->query('SELECT worker_pid FROM uncache.stat') != $worker;
	$delivered = $session->query('SELECT keys_delivered FROM uncache.stat') - $delivered;
	# More than these when rows of before, not yet emptied, were sent again.
	die "$delivered of $keys keys delivered\n" if $delivered < $keys;
	@cpu = map { ($after[$_] - $cpu[$_]) / $delivered * 1e6 } 0, 1;
	return { rate => $delivered / $seconds, cpu => $cpu[0] + $cpu[1], cpu_worker => $cpu[0],
		cpu_redis => $cpu[1] };
}

sub run
{
	my ($bench) = @_;
	my ($report, $keys, $rounds) = @{$bench}{qw(report rows few)};
	my @rows = [ 'keys a second', 'pg_uncache', 'redis-benchmark -P 64 UNLINK', 'ratio',
		'with uncache.stream, ratio', 'CPU a key, ratio' ];

	Bench::Lanes::set_fence($bench->{session}, 0);
	foreach my $case (@cases)
	{
		my ($name, $per_transaction, $label) = @$case;

		foreach my $round (0 .. $rounds - 1)
		{
			_fill_redis($keys);
			$report->add('drain', $name, 'redis-benchmark', $round, 'rate',
				_redis_benchmark($keys));
			foreach my $lane ([ 'pg_uncache', '' ], [ 'stream', 'bench' ])
			{
				_fill_redis($keys);
				my $figures = _pg_uncache($bench->{session}, $keys, $per_transaction, $lane->[1]);

				$report->add('drain', $name, $lane->[0], $round, $_, $figures->{$_})
				  foreach sort keys %$figures;
			}
			print STDERR "drain $name: round ", $round + 1, " of $rounds\n";
		}
		push @rows, [ $label, (map { sprintf '%.0f',
			$report->median_of('drain', $name, $_, 'rate') } qw(pg_uncache redis-benchmark)),
			Bench::Report::spread('%.2f',
				$report->ratios('drain', $name, 'pg_uncache', 'redis-benchmark', 'rate')),
			map { Bench::Report::spread('%.2f',
				$report->ratios('drain', $name, 'stream', 'pg_uncache', $_)) } qw(rate cpu) ];
	}
	$bench->{session}->set_for_all('uncache.stream', '');
	$report->table("Drain of $keys keys after an outage", @rows);
	return;
}

1;
