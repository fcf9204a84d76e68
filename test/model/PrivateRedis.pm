package PrivateRedis;

# A redis-server of the test's own, on a Unix socket in a temporary folder, and
# a small pipelining client for it.  Needs nothing but core Perl and the
# redis-server that stands in $ENV{REDIS_SERVER} or in the PATH.

use strict;
use warnings;
use File::Temp ();
use IO::Socket::UNIX;
use Time::HiRes qw(sleep time);

# start(option => value, ...): options of redis-server.
sub start
{
	my ($class, %options) = @_;
	my $dir = File::Temp->newdir('uncache-model-XXXXXX', TMPDIR => 1);
	my %all = (
		port => 0, unixsocket => "$dir/socket", dir => "$dir", save => '',
		appendonly => 'no', daemonize => 'no', logfile => "$dir/log", %options);
	my $self = bless {
		dir => $dir, socket => $all{unixsocket}, options => \%all, owner => $$ }, $class;

	$self->boot;
	return $self;
}

# Start the process (again, on the same folder) and connect.
sub boot
{
	my ($self) = @_;
	my $program = $ENV{REDIS_SERVER} || 'redis-server';
	my @arguments = map { ("--$_", $self->{options}{$_}) } sort keys %{ $self->{options} };
	my $pid = fork;

	die "cannot fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		exec $program, @arguments or die "cannot run $program: $!";
	}
	$self->{pid} = $pid;
	$self->connect;
	return;
}

sub connect
{
	my ($self) = @_;
	my $deadline = time + 20;

	$self->{in} = '';
	while (time < $deadline)
	{
		$self->{handle} = IO::Socket::UNIX->new(Peer => $self->{socket});
		last if $self->{handle} && $self->call('PING') eq 'PONG';
		sleep 0.02;
	}
	die "no answer from $self->{socket}" unless $self->{handle};
	return;
}

# End the process; with "hard" without letting it save anything.
sub stop
{
	my ($self, $hard) = @_;

	return unless $self->{pid} && $self->{owner} == $$;
	kill $hard ? 'KILL' : 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	$self->stop(1);
	return;
}

sub encode
{
	return join '', '*' . @_ . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @_;
}

sub fill
{
	my ($self) = @_;
	sysread($self->{handle}, $self->{in}, 1 << 18, length $self->{in})
	  or die "redis-server closed the connection";
	return;
}

# Read one reply at pos($self->{in}).  Errors come as 'ERR text' strings, nil as
# undef, arrays as references.
sub reply
{
	my ($self) = @_;
	my $in = \$self->{in};
	my $from = pos($$in) // 0;
	my $end;

	until (($end = index $$in, "\r\n", $from) >= 0) { $self->fill }
	my $type = substr $$in, $from, 1;
	my $rest = substr $$in, $from + 1, $end - $from - 1;
	pos($$in) = $end + 2;
	return $rest if $type =~ /[-+:]/;
	return undef if $rest eq '-1' || $type eq '_';
	return [ map { $self->reply } 1 .. $rest ] if $type eq '*';

	$from = $end + 2;
	$self->fill while length($$in) < $from + $rest + 2;
	pos($$in) = $from + $rest + 2;
	return substr $$in, $from, $rest;
}

# Send all commands, then read all replies.
sub pipeline
{
	my ($self, @commands) = @_;
	my $out = join '', map { encode(@$_) } @commands;
	my $done = 0;

	while ($done < length $out)
	{
		my $n = syswrite $self->{handle}, $out, length($out) - $done, $done;
		die "cannot write to redis-server: $!" unless $n;
		$done += $n;
	}
	my @replies = map { scalar $self->reply } @commands;
	$self->{in} = '';
	return @replies;
}

sub call
{
	my ($self, @command) = @_;
	return ($self->pipeline(\@command))[0];
}

1;
