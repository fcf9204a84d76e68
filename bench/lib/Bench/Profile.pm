# Profile.pm: what the processors do during a transaction, by process and kind of work.
#
# Samples of the kernel's profiler (cpu-clock), with the way through the kernel that
# led there: a sample in the scheduler counts for the call that went to sleep, one in
# the wake-up of another process for the call that wakes it.  run.sh runs the profiler, which
# wants root's rights: seconds go there, samples come back.

package Bench::Profile;

use strict;
use warnings;

use Bench::Cpu;
use Bench::Lanes;
use Bench::Load;

my $clients = 8;
my $hertz = 1999;				# as in run.sh

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

sub _kind
{
	my ($frames) = @_;
	my ($library) = $frames->[0] =~ m{\((?:.*/)?([^/()]*)\)$};

	if (grep { /\(\[kernel/ } @$frames)
	{
		my @functions = map { /^\s*[0-9a-f]+ ([^+\s]+)/ ? $1 : '' } @$frames;

		foreach my $kind (@kinds)
		{
			return $kind->[0] if grep { $_ =~ $kind->[1] } @functions;
		}
		return 'kernel: other';
	}
	return 'hiredis' if ($library // '') =~ /^libhiredis/;
	return $libraries{ $library // '' } // 'other libraries, and unknown';
}

sub _process
{
	my ($name, $pid, $pids) = @_;

	return $pids->{$pid} // ($name =~ /^(swapper|idle)/ ? 'idle' : $name =~ /^(pgbench|client)/
		? 'client' : 'everything else');
}

# Samples by process and kind of work.
sub _read_samples
{
	my ($in, $pids) = @_;
	my %count;

	local $/ = '';
	while (my $sample = <$in>)
	{
		my ($head, @frames) = split /\n/, $sample;
		my ($name, $pid) = $head =~ /^\s*(.*?)\s+(\d+)\s*$/ or next;
		my $process = _process($name, $pid, $pids);
		my $kind = $process =~ /^(backend|worker|redis)$/ && @frames ? _kind(\@frames) : '';

		# Of Redis, user code is Redis.
		$kind = 'user code' if $process eq 'redis' && $kind !~ /^kernel/;
		$count{$process}{$kind}++;
	}
	return \%count;
}

sub _sample
{
	my ($seconds, $pids) = @_;

	open my $ask, '>', "$ENV{PRIVATE}/profile.ask" or die "$!";
	print $ask "$seconds\n";
	close $ask;
	open my $in, '<', "$ENV{PRIVATE}/profile.answer" or die "$!";
	return _read_samples($in, $pids);
}

sub _pids
{
	my ($worker) = @_;
	my %pids = map { $_ => 'server' } Bench::Cpu::children($ENV{PG_PID});

	return { %pids, $ENV{PG_PID} => 'server', $ENV{REDIS_PID} => 'redis', $worker => 'worker' };
}

# Microseconds a transaction, by process and kind of work.
sub _profile
{
	my ($bench, $lane) = @_;
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
	my $count = _sample($seconds, \%pids);
	my $tps = Bench::Load::finish($load);
	my %us;

	foreach my $process (keys %$count)
	{
		$us{$process}{$_} = $count->{$process}{$_} / $hertz * 1e6 / ($tps * $seconds)
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

sub run
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my %wanted = map { $_ => 1 } qw(none eventual ryw direct);
	my @lanes = grep { $wanted{ $_->{id} } } Bench::Lanes::all();

	if (!-p "$ENV{PRIVATE}/profile.ask")
	{
		$report->text("\nNo profile: it wants root's rights, and perf (package linux-perf).");
		return;
	}
	my @profiles = map { _profile($bench, $_) } @lanes;
	$report->table("Where the processors are, $clients clients\n"
		  . 'Microseconds a transaction, UPDATE of one row; samples of the kernel\'s profiler. '
			. '"server": WAL writer and such; "everything else": what the machine does besides.',
		[ '', map { $_->{label} } @lanes ],
		map { _rows($_, @profiles) } 'backend', 'worker', 'redis', 'server', 'client',
			'everything else', 'idle');
	return;
}

1;
