# Profile.pm: what the processors do during a transaction, by process and kind of work.
#
# Samples of the kernel's profiler (cpu-clock), with the way through the kernel that
# led there: a sample in the scheduler counts for the call that went to sleep, one in
# the wake-up of another process for the call that wakes it.  run.sh runs the profiler, which
# wants root's rights: seconds go there, samples come back.
#
# A second run follows each sample through the functions of user code, too, and says which part
# of a key's way it belongs to.  The profiler copies the stack for that, which costs more, so it
# takes half as many samples, and its figures are not to be compared with those of the first.

package Bench::Profile;

use strict;
use warnings;

use Bench::Cpu;
use Bench::Lanes;
use Bench::Load;

my $clients = 8;

# Samples a second, no divisor of anything that happens regularly.
my %hertz = (fp => 1999, dwarf => 997);

# The first that fits the functions of a sample, innermost first, says what it is.
my @kinds = (
	[ 'kernel: interrupts' => qr/^(asm_sysvec|common_interrupt|asm_common_interrupt)/ ],
	[ 'kernel: waking others by signal' => qr/^__x64_sys_(kill|tgkill|rt_sigqueueinfo)$/ ],
	[ 'kernel: sleeping, and waking up' =>
		qr/^(do_epoll_wait|signalfd_read_iter|do_sys_poll|do_select)$/ ],
	[ 'kernel: locks' => qr/^__x64_sys_futex$/ ],
	[ 'kernel: sending' => qr/^(__x64_sys_(sendto|sendmsg|writev)|ksys_write)$/ ],
	[ 'kernel: receiving' => qr/^(__x64_sys_(recvfrom|recvmsg|readv)|ksys_read)$/ ],
	[ 'kernel: files' =>
		qr/^__x64_sys_(pwrite64|pwritev|fdatasync|fsync|pread64|preadv|lseek|open|openat|close|fallocate)$/ ],
	[ 'kernel: other' => qr/^(entry_SYSCALL|asm_exc|ret_from_fork|kthread)/ ],
);
my %libraries = ('postgres' => 'PostgreSQL', 'pg_uncache.so' => 'pg_uncache',
	'uncache_bench.so' => 'the other trigger');

# The parts of a key's way, in its order.
my @parts = (
	[ trigger => 'trigger queue: noting the event, fetching the row again' ],
	[ render => 'rendering: comparing the row, its key, the pending set' ],
	[ outbox => 'outbox row, without its WAL record' ],
	[ wal => 'WAL: all records of the transaction, and their flush' ],
	[ ring => 'ring, and what else pg_uncache does in the backend' ],
	[ wake => 'wake-up: of the worker by the session, of the session by the worker' ],
	[ worker => 'worker' ],
	[ redis => 'Redis' ],
	[ waiter => 'waiter: the session, until it has the answer' ],
	[ rest => 'the backend besides: the UPDATE itself' ],
);

# Of a backend: the first that fits one of the functions that a sample is in.  What is left of
# pg_uncache is told apart by whether a trigger has called it.
my @backend_parts = (
	[ waiter => qr/^commit_wait$/ ],
	[ wal => qr/^XLog(Insert|Flush|BeginInsert|Register|SetRecord)/ ],
	[ outbox => qr/^outbox_write$/ ],
);
my $trigger = qr/^(AfterTrigger|ExecA[RS]\w*Triggers|ExecCallTriggerFunc)/;
my $waking = qr/^(SetLatch|__x64_sys_kill|shmem_wake_worker)$/;

sub _functions
{
	my ($frames) = @_;

	return map { /^\s*[0-9a-f]+ ([^+\s]+)/ ? $1 : '' } @$frames;
}

sub _part_of_backend
{
	my ($frames) = @_;
	my @functions = _functions($frames);
	my $is_ours = grep { m{/pg_uncache\.so\)} } @$frames;
	my $in_trigger = grep { $_ =~ $trigger } @functions;

	return 'wake' if $is_ours && grep { $_ =~ $waking } @functions;
	foreach my $part (@backend_parts)
	{
		return $part->[0] if grep { $_ =~ $part->[1] } @functions;
	}
	return $in_trigger ? ($is_ours ? 'render' : 'trigger') : $is_ours ? 'ring' : 'rest';
}

# What part of the way a sample of backend, worker or redis belongs to.
sub _part
{
	my ($process, $frames) = @_;

	return 'redis' if $process eq 'redis';
	return _part_of_backend($frames) if $process eq 'backend';
	return (grep { $_ =~ $waking } _functions($frames)) ? 'wake' : 'worker';
}

sub _kind
{
	my ($process, $frames) = @_;
	my ($library) = $frames->[0] =~ m{\((?:.*/)?([^/()]*)\)$};

	if (grep { /\(\[kernel/ } @$frames)
	{
		my @functions = _functions($frames);

		foreach my $kind (@kinds)
		{
			return $kind->[0] if grep { $_ =~ $kind->[1] } @functions;
		}
		return 'kernel: other';
	}
	# Of Redis, user code is Redis.
	return 'user code' if $process eq 'redis';
	return 'hiredis' if ($library // '') =~ /^libhiredis/;
	return $libraries{ $library // '' } // 'other libraries, and unknown';
}

sub _process
{
	my ($name, $pid, $pids) = @_;

	return $pids->{$pid} // ($name =~ /^(swapper|idle)/ ? 'idle' : $name =~ /^(pgbench|client)/
		? 'client' : 'everything else');
}

# Samples by process, and by what SORT says of process and frames.
sub _read_samples
{
	my ($in, $pids, $sort) = @_;
	my %count;

	local $/ = '';
	while (my $sample = <$in>)
	{
		my ($head, @frames) = split /\n/, $sample;
		my ($name, $pid) = $head =~ /^\s*(.*?)\s+(\d+)\s*$/ or next;
		my $process = _process($name, $pid, $pids);
		my $kind = $process =~ /^(backend|worker|redis)$/ && @frames ? $sort->($process, \@frames)
		  : '';

		$count{$process}{$kind}++;
	}
	return \%count;
}

sub _sample
{
	my ($seconds, $pids, $stacks) = @_;

	open my $ask, '>', "$ENV{PRIVATE}/profile.ask" or die "$!";
	print $ask "$seconds $hertz{$stacks} $stacks\n";
	close $ask;
	open my $in, '<', "$ENV{PRIVATE}/profile.answer" or die "$!";
	return _read_samples($in, $pids, $stacks eq 'fp' ? \&_kind : \&_part);
}

sub _pids
{
	my ($worker) = @_;
	my %pids = map { $_ => 'server' } Bench::Cpu::children($ENV{PG_PID});

	return { %pids, $ENV{PG_PID} => 'server', $ENV{REDIS_PID} => 'redis', $worker => 'worker' };
}

# Microseconds a transaction, by process and kind of work; or part of the way.
sub _profile
{
	my ($bench, $lane, $stacks) = @_;
	my $session = $bench->{session};
	my $seconds = 2 * $bench->{seconds};

	Bench::Lanes::enter($session, $lane, 'bench.item', 'id');
	$session->query("VACUUM bench.item; SELECT uncache.wait('60 s')");
	my $servers = _pids($session->query('SELECT worker_pid FROM uncache.stat'));
	my $load = Bench::Load::start($lane, 'update', $clients, $seconds + 2);
	# The load's backends are those that were not there before it.
	$session->await("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'",
		$clients);
	my %pids = ((map { $_ => 'backend' } Bench::Cpu::children($ENV{PG_PID})), %$servers);
	my $count = _sample($seconds, \%pids, $stacks);
	my $tps = Bench::Load::finish($load);
	my %us;

	foreach my $process (keys %$count)
	{
		$us{$process}{$_} = $count->{$process}{$_} / $hertz{$stacks} * 1e6 / ($tps * $seconds)
			foreach keys %{ $count->{$process} };
	}
	return \%us;
}

# Rows of one process: what is at least half a microsecond in some lane.
sub _rows
{
	my ($process, @profiles) = @_;
	my %kinds = map { %{ $_->{$process} // {} } } @profiles;
	my @rows;

	foreach my $kind (sort keys %kinds)
	{
		my @us = map { $_->{$process}{$kind} // 0 } @profiles;

		push @rows, [ $kind ? "$process, $kind" : $process, map { sprintf '%.1f', $_ } @us ]
			if grep { $_ >= 0.5 } @us;
	}
	return @rows;
}

sub _lanes
{
	my %wanted = map { $_ => 1 } @_;
	return grep { $wanted{ $_->{id} } } Bench::Lanes::all();
}

sub _work
{
	my ($bench) = @_;
	my @lanes = _lanes(qw(none eventual ryw direct));
	my @profiles = map { _profile($bench, $_, 'fp') } @lanes;

	$bench->{report}->table("Where the processors are, $clients clients\n"
		  . 'Microseconds a transaction, UPDATE of one row; samples of the kernel\'s profiler. '
			. '"server": WAL writer and such; "everything else": what the machine does besides.',
		[ '', map { $_->{label} } @lanes ],
		map { _rows($_, @profiles) } 'backend', 'worker', 'redis', 'server', 'client',
			'everything else', 'idle');
	return;
}

# Of one lane, by part; all of it into the CSV.
sub _measure_way
{
	my ($bench, $lane) = @_;
	my $profile = _profile($bench, $lane, 'dwarf');
	my %us = map { $_->[0] => 0 } @parts;

	foreach my $process (qw(backend worker redis))
	{
		my $of = $profile->{$process} // {};

		# Samples without a stack: nothing but the process is known.
		$us{ $_ || ($process eq 'backend' ? 'rest' : $process) } += $of->{$_} foreach keys %$of;
	}
	$bench->{report}->add('profile', 'way', $lane->{id}, 0, $_, $us{$_}) foreach sort keys %us;
	return \%us;
}

sub _way
{
	my ($bench) = @_;
	my @lanes = _lanes(qw(none c_noop eventual ryw));
	my @us = map { _measure_way($bench, $_) } @lanes;
	my $report = $bench->{report};

	# Where the profiler can't follow user code every sample of a backend is "besides".
	if (!$us[2]{render} || !$us[2]{outbox})
	{
		$report->text("\nThe way of a key was not measured: this perf can't read the stacks of "
			. 'user code.');
		return;
	}
	my @rows = map {
		my $part = $_;
		[ $part->[1], map { sprintf '%.1f', $_->{ $part->[0] } } @us ]
	} @parts;
	my @sums = map { my $sum = 0; $sum += $_ foreach values %$_; sprintf '%.1f', $sum } @us;

	$report->table("The way of a key, $clients clients\n"
		  . 'Microseconds of processor a transaction, UPDATE of one row; samples of the kernel\'s '
			. 'profiler, by the functions that they are in.',
		[ '', map { $_->{label} } @lanes ], @rows, [ 'together', @sums ]);
	return;
}

sub run
{
	my ($bench) = @_;

	if (!-p "$ENV{PRIVATE}/profile.ask")
	{
		$bench->{report}->text(
			"\nNo profile: it wants root's rights, and perf (package linux-perf).");
		return;
	}
	_work($bench);
	_way($bench);
	return;
}

1;
