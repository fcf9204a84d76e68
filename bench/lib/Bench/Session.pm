# Session.pm: a psql that stays connected, for what the benches do beside the load.
#
# It stays, so that its CPU time is never counted as a finished backend's.

package Bench::Session;

use strict;
use warnings;

use IPC::Open2;
use Time::HiRes qw(sleep time);

sub new
{
	my ($class, $database) = @_;
	my $pid = open2(my $out, my $in, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $database);

	return bless { pid => $pid, in => $in, out => $out }, $class;
}

# Run SQL; returns its rows, one string.  An error ends the benches.
sub query
{
	my ($self, $sql) = @_;
	my @rows;

	print { $self->{in} } "$sql;\n\\echo END OF QUERY\n";
	$self->{in}->flush;
	while (defined(my $line = readline $self->{out}))
	{
		chomp $line;
		return join "\n", @rows if $line eq 'END OF QUERY';
		push @rows, $line;
	}
	die "psql has ended; it was: $sql\n";
}

# Ask until the answer is the one wanted.
sub await
{
	my ($self, $sql, $wanted, $seconds) = @_;
	my $deadline = time + ($seconds // 30);
	my $answer;

	until (($answer = $self->query($sql)) eq $wanted)
	{
		die "waited in vain for $wanted, which is $answer: $sql\n" if time > $deadline;
		sleep 0.02;
	}
	return;
}

# Set something for all.  The caller waits until the worker shows that it knows.
sub set_for_all
{
	my ($self, $name, $value) = @_;

	$self->query("ALTER SYSTEM SET $name = '$value'");
	$self->query('SELECT pg_reload_conf()');
	return;
}

sub close
{
	my ($self) = @_;

	close $self->{in};
	waitpid $self->{pid}, 0;
	return;
}

1;
