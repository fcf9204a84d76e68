# Faults.pm: fault points of a library that was built with FAULT_POINTS=1, and
# other ways to strike at a server.

package Faults;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep time);

use Uncache;

our @EXPORT = qw(has_fault_points arm disarm struck struck_in_time is_stopped process_state
  worker_pid launcher_pid postmaster_pid start_psql set_conf);

# Whether the library of this server has fault points at all.
sub has_fault_points
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_settings WHERE name = 'uncache.fault_point'") eq '1';
}

sub _mark { return $_[0]->data_dir . "/pg_uncache.fault.$_[1]" }

# arm(NODE, POINT): let it strike again.
sub arm
{
	my ($node, $point) = @_;

	unlink _mark($node, $point);
	return;
}

# Whether the point was reached.
sub struck { return -e _mark(@_) }
sub struck_in_time
{
	my @at = @_;

	return poll_until(sub { struck(@at) });
}

# set_conf(NODE, NAME, VALUE): into postgresql.auto.conf, whether the server runs
# or not; the last one counts.
sub set_conf
{
	my ($node, $name, $value) = @_;

	open my $out, '>>', $node->data_dir . '/postgresql.auto.conf' or die $!;
	print $out "$name = '$value'\n";
	close $out;
	return;
}

# The letter of a process in /proc: T is stopped, Z a zombie; '' when it is gone.
sub process_state
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/stat" or return '';
	my $line = <$in> // '';
	return $line =~ /\) (\S)/ ? $1 : '';
}

sub is_stopped
{
	my ($pid) = @_;

	return poll_until(sub { process_state($pid) eq 'T' });
}

sub worker_pid
{
	my ($node, $database) = @_;

	return $node->safe_psql('postgres',
		"SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'pg_uncache worker' AND datname = '"
		  . ($database // 'postgres') . "'");
}

sub launcher_pid
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'pg_uncache launcher'");
}

sub postmaster_pid
{
	my ($node) = @_;

	open my $in, '<', $node->data_dir . '/postmaster.pid' or return 0;
	my $pid = <$in>;
	chomp $pid;
	return $pid;
}

# start_psql(NODE, SQL): run it in the background, ending with the first error.
# Returns a handle: ->{out} and ->{err} fill up, finish() waits and returns the
# exit code.
sub start_psql
{
	my ($node, $sql, $database) = @_;
	my $self = { out => '', err => '', in => $sql, started => time };

	local %ENV = $node->_get_env();
	$self->{run} = IPC::Run::start(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1',
			'-d', $node->connstr($database // 'postgres'), '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		IPC::Run::timeout(120));
	return bless $self, 'Faults::Psql';
}

package Faults::Psql;

# Wait for the end; the exit code.
sub finish
{
	my ($self) = @_;

	$self->{run}->finish;
	$self->{taken} = Time::HiRes::time() - $self->{started};
	return $self->{run}->full_result >> 8;
}

# Whether it has not ended yet.
sub runs
{
	my ($self) = @_;

	$self->{run}->pump_nb if $self->{run}->pumpable;
	return $self->{run}->pumpable ? 1 : 0;
}

1;
