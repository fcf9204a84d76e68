# Cpu.pm: CPU time from the kernel's accounting, by kind of process; and memory.
#
# Backends of a load have ended when it is read, and stand in the postmaster's
# time of children waited for; the others live and are read one by one.

package Bench::Cpu;

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(sleep time);

my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub _slurp
{
	my ($path) = @_;

	open my $in, '<', $path or return '';
	local $/;
	return scalar <$in> // '';
}

# Seconds that a process and its threads have run.
sub of_process
{
	my ($pid) = @_;
	my $ns = 0;

	foreach my $task (glob "/proc/$pid/task/*/schedstat")
	{
		$ns += (split ' ', _slurp($task))[0] // 0;
	}
	return $ns / 1e9;
}

sub children
{
	my ($pid) = @_;

	return split ' ', _slurp("/proc/$pid/task/$pid/children");
}

sub _waited_for
{
	my ($pid) = @_;
	my ($fields) = _slurp("/proc/$pid/stat") =~ /\) (.*)/;
	my @fields = split ' ', $fields;

	return ($fields[13] + $fields[14]) / $ticks;	# cutime, cstime
}

# Kilobytes that a process shares with no other.
sub own_memory
{
	my ($pid) = @_;
	my $kb = 0;

	open my $in, '<', "/proc/$pid/smaps_rollup" or return;
	while (my $line = <$in>) { $kb = $1 if $line =~ /^Private_Dirty:\s+(\d+)/ }
	close $in;
	return $kb;
}

# Wait until no child comes or goes any more: backends that end, above all.
sub await_quiet
{
	my ($postmaster) = @_;
	my $deadline = time + 10;
	my $before = '';

	for (my $same = 0; $same < 5 && time < $deadline;)
	{
		my $now = join ' ', children($postmaster);

		$same = $now eq $before ? $same + 1 : 0;
		$before = $now;
		sleep 0.01;
	}
	return;
}

# Seconds so far, by kind.
sub read_all
{
	my ($postmaster, $worker, $redis) = @_;
	my @client = times;
	my %seconds = (
		backend => _waited_for($postmaster),
		worker => of_process($worker),
		redis => of_process($redis),
		client => $client[2] + $client[3],
		other => of_process($postmaster),
	);

	foreach my $child (children($postmaster))
	{
		$seconds{other} += of_process($child) if $child != $worker;
	}
	return \%seconds;
}

1;
