# Faults.pm: fault points of a library that was built with FAULT_POINTS=1, and
# other ways to strike at a server.

package Faults;

use strict;
use warnings;

use Exporter 'import';
use File::Temp ();
use POSIX ();
use Time::HiRes qw(sleep time);

use Uncache;

our @EXPORT = qw(has_fault_points arm disarm struck struck_in_time is_stopped process_state
  worker_pid launcher_pid postmaster_pid start_psql start_command set_conf);

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
		"SELECT coalesce(max(pid), 0) FROM pg_stat_activity
			WHERE backend_type = 'pg_uncache worker' AND datname = '"
		  . ($database // 'postgres') . "'");
}

sub launcher_pid
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT coalesce(max(pid), 0) FROM pg_stat_activity
			WHERE backend_type = 'pg_uncache launcher'");
}

sub postmaster_pid
{
	my ($node) = @_;

	open my $in, '<', $node->data_dir . '/postmaster.pid' or return 0;
	my $pid = <$in>;
	chomp $pid;
	return $pid;
}

# start_psql(NODE, SQL, DATABASE): run it in the background, ending with the first
# error.  Returns a handle for the methods below.
sub start_psql
{
	my ($node, $sql, $database) = @_;
	my $file = File::Temp->new(TEMPLATE => 'psqlXXXXXX', TMPDIR => 1);

	print $file $sql;
	close $file;
	my $self = start_command($node, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-d', $node->connstr($database // 'postgres'), '-f', "$file");
	$self->{file} = $file;
	return $self;
}

# The same for any of PostgreSQL's programs.
sub start_command
{
	my ($node, $program, @words) = @_;
	my $folder = File::Temp->newdir('outXXXXXX', TMPDIR => 1);
	my @command = ($node->installed_command($program), @words);
	my $pid = fork;

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDOUT, '>', "$folder/out";
		open STDERR, '>', "$folder/err";
		exec @command or POSIX::_exit(127);
	}
	return bless { folder => $folder, pid => $pid, started => time }, 'Faults::Psql';
}

package Faults::Psql;

use POSIX qw(:sys_wait_h);

# Whether it has not ended yet.
sub runs
{
	my ($self) = @_;

	return 0 if defined $self->{status};
	return 1 if waitpid($self->{pid}, WNOHANG) == 0;
	$self->{status} = $? >> 8;
	$self->{taken} = Time::HiRes::time() - $self->{started};
	return 0;
}

# Wait for the end; the exit code.
sub finish
{
	my ($self) = @_;

	die 'psql does not end' unless Uncache::poll_until(sub { !$self->runs });
	return $self->{status};
}

# Seconds that it has taken, once it has ended.
sub taken { return $_[0]->{taken} }

sub _text
{
	my ($self, $name) = @_;

	open my $in, '<', "$self->{folder}/$name" or return '';
	local $/;
	return scalar <$in> // '';
}

sub out { return $_[0]->_text('out') }
sub err { return $_[0]->_text('err') }

sub DESTROY
{
	my ($self) = @_;

	local $?;
	kill 'KILL', $self->{pid} unless defined $self->{status};
	return;
}

1;
