# RedisProxy.pm: stands between the worker and a RedisServer, and makes trouble.
#
# A process of its own that listens on a Unix socket.  It takes the requests
# apart, so that it can hold back or replace single commands, and passes answers
# on as bytes.  The test tells it what to do through a pair of pipes; each order
# is acknowledged, so it is in force when the method returns.
#
# An injected error is made by Redis itself (a script that returns it stands in
# for the command), so that it comes in its place among the other answers.

package RedisProxy;

use strict;
use warnings;

use File::Temp ();
use IO::Handle;
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(time);

my @proxies;

# new(REDIS): for a RedisServer, which need not be running.
sub new
{
	my ($class, $redis) = @_;
	my $folder = File::Temp->newdir('proxyXXXXXX', TMPDIR => 1);
	my $self = bless { folder => $folder, socket => "$folder/socket", redis => $redis }, $class;

	pipe my $order_out, my $order_in or die $!;
	pipe my $answer_out, my $answer_in or die $!;
	my $listener = IO::Socket::UNIX->new(Type => SOCK_STREAM,
		Local => $self->{socket}, Listen => 50)
	  or die "could not listen: $!";
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		close $order_in;
		close $answer_out;
		$_->autoflush foreach $answer_in;
		eval { _serve($redis->socket, $listener, $order_out, $answer_in) };
		print STDERR "RedisProxy: $@" if $@;
		POSIX::_exit(0);
	}
	close $order_out;
	close $answer_in;
	$order_in->autoflush;
	@$self{qw(pid in out)} = ($pid, $order_in, $answer_out);
	push @proxies, $self;
	return $self;
}

sub url { return "unix://$_[0]->{socket}" }

sub _order
{
	my ($self, @words) = @_;

	print { $self->{in} } join("\t", @words), "\n";
	my $answer = readline $self->{out};
	die 'the proxy is gone' unless defined $answer;
	chomp $answer;
	return $answer;
}

# Hold back every UNLINK that comes, and what follows it; or let all go on.
sub hold_unlinks { return $_[0]->_order('set', 'hold_unlinks', $_[1] // 1) }

# Hold back every command in which this is a word, and what follows it on its
# connection; '' lets all go on.
sub hold_word { return $_[0]->_order('set', 'hold_word', $_[1]) }

# How many commands are held back because of that word.
sub held { return $_[0]->_order('held') }

# Hold back answers.
sub hold_answers { return $_[0]->_order('set', 'hold_answers', $_[1] // 1) }

# Milliseconds that a request, and again its answer, is under way.
sub delay { return $_[0]->_order('set', 'delay', $_[1]) }

# Milliseconds that a SCAN takes for each key of its COUNT.
sub slow_scan { return $_[0]->_order('set', 'slow_scan', $_[1]) }

# Bytes of requests a second that are read at all, so that the rest waits with the
# sender as it does before a slow line; 0: as fast as it goes.
sub rate { return $_[0]->_order('set', 'rate', $_[1]) }

# Take no connections: they are closed as they come.
sub refuse { return $_[0]->_order('set', 'refuse', $_[1] // 1) }

# After so many more bytes of answers close all connections, once.
sub cut_after { return $_[0]->_order('set', 'cut', $_[1]) }

# Close all connections now.
sub reset { return $_[0]->_order('reset') }

# Answer a command (upper case) with an error: error_for('UNLINK', 'OOM no'),
# or not any more: error_for('UNLINK').  '*' stands for all commands.
sub error_for
{
	my ($self, $command, $text) = @_;

	return $self->_order('error', $command, $text // '');
}

# As it was in the beginning.
sub behave { return $_[0]->_order('behave') }

# How many connections were made.
sub connections { return $_[0]->_order('connections') }

# Keys of the UNLINKs that came, whether they were held back or not, in order.
sub keys_seen { return split /\t/, $_[0]->_order('keys') }

# How often each key came: a hash.
sub times_seen
{
	my ($self) = @_;
	my %times;

	$times{$_}++ foreach $self->keys_seen;
	return %times;
}

sub forget_keys { return $_[0]->_order('forget') }

sub stop
{
	my ($self) = @_;

	return unless defined $self->{pid};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = undef;
	return;
}

END
{
	my $status = $?;
	$_->stop foreach @proxies;
	$? = $status;
}

# ---------------------------------------------------------------------------
# The process
# ---------------------------------------------------------------------------

my (%set, %errors, @links, @keys, $connections);

sub _behave
{
	%set = (hold_unlinks => 0, hold_word => '', hold_answers => 0, delay => 0, slow_scan => 0,
		rate => 0, refuse => 0, cut => -1);
	%errors = ();
	return;
}

sub _serve
{
	my ($redis_socket, $listener, $orders, $acknowledgements) = @_;

	$SIG{PIPE} = 'IGNORE';
	_behave();
	$connections = 0;
	while (1)
	{
		my %reader = (fileno($listener) => ['listener'], fileno($orders) => ['orders']);
		my $select = IO::Select->new($listener, $orders);
		my $waits = 0;

		foreach my $link (@links)
		{
			$select->add($link->{server});
			_allow($link);
			$select->add($link->{client}) if $link->{may_read} > 0;
			$waits = 1 if $set{rate} > 0;
			$reader{ fileno $link->{client} } = ['client', $link];
			$reader{ fileno $link->{server} } = ['server', $link];
			$waits = 1 if @{ $link->{to_server} } || @{ $link->{to_client} };
		}
		foreach my $ready ($select->can_read($waits ? 0.002 : 1))
		{
			my ($what, $link) = @{ $reader{ fileno $ready } // ['gone'] };

			if ($what eq 'orders')
			{
				my $order = readline $orders;
				return unless defined $order;
				chomp $order;
				print $acknowledgements _obey(split /\t/, $order), "\n";
			}
			elsif ($what eq 'listener') { _accept($listener, $redis_socket) }
			elsif ($what ne 'gone' && !$link->{dead}) { _read($what, $link, $ready) }
		}
		_pass_on($_) foreach @links;
		_close($_) foreach grep { $_->{dead} } @links;
		@links = grep { !$_->{dead} } @links;
	}
	return;
}

# How much may be read of the client now.
sub _allow
{
	my ($link) = @_;
	my $now = time;

	$link->{may_read} = 65536;
	return if $set{rate} == 0;
	$link->{allowed_at} //= $now;
	my $bytes = int(($now - $link->{allowed_at}) * $set{rate});
	$link->{may_read} = $bytes >= 64 ? 64 : 0;
	$link->{allowed_at} += 64 / $set{rate} if $bytes >= 64;
	$link->{allowed_at} = $now - 0.1 if $link->{allowed_at} < $now - 0.1;
	return;
}

sub _obey
{
	my ($order, @words) = @_;

	if ($order eq 'set') { $set{ $words[0] } = $words[1] // '' }
	elsif ($order eq 'behave') { _behave() }
	elsif ($order eq 'held') {
		return scalar grep { _is_held($_) } map { @{ $_->{to_server} } } @links }
	elsif ($order eq 'reset') { $_->{dead} = 1 foreach @links }
	elsif ($order eq 'connections') { return $connections }
	elsif ($order eq 'keys') { return join "\t", @keys }
	elsif ($order eq 'forget') { @keys = () }
	elsif ($order eq 'error')
	{
		if (($words[1] // '') eq '') { delete $errors{ $words[0] } }
		else { $errors{ $words[0] } = $words[1] }
	}
	return 'ok';
}

sub _accept
{
	my ($listener, $redis_socket) = @_;
	my $client = $listener->accept or return;
	my $server = $set{refuse} ? undef : IO::Socket::UNIX->new(Type => SOCK_STREAM,
		Peer => $redis_socket);

	unless ($server) { close $client; return }
	$_->blocking(0) foreach $client, $server;
	$connections++;
	push @links, { client => $client, server => $server, raw => '', to_server => [],
		to_client => [], may_read => 65536 };
	return;
}

sub _close
{
	my ($link) = @_;

	close $link->{client};
	close $link->{server};
	return;
}

sub _read
{
	my ($what, $link, $socket) = @_;
	my $got = sysread $socket, my $bytes, $what eq 'client' ? $link->{may_read} : 65536;

	return if !defined $got && $!{EAGAIN};
	if (!$got) { $link->{dead} = 1; return }
	if ($what eq 'server') { _queue($link, 'to_client', $bytes) }
	else
	{
		$link->{raw} .= $bytes;
		while (my @command = _next_command($link)) { _request($link, @command) }
	}
	return;
}

# Take a whole command off the front of what the client has sent: its bytes, and
# its words.
sub _next_command
{
	my ($link) = @_;
	my @words;

	return unless $link->{raw} =~ /\A\*(\d+)\r\n/;
	my ($n, $at) = ($1, $+[0]);
	for (1 .. $n)
	{
		pos($link->{raw}) = $at;
		return unless $link->{raw} =~ /\G\$(\d+)\r\n/g;
		my $from = $+[0];
		return if length $link->{raw} < $from + $1 + 2;
		push @words, substr $link->{raw}, $from, $1;
		$at = $from + $1 + 2;
	}
	return (substr($link->{raw}, 0, $at, ''), @words);
}

sub _request
{
	my ($link, $bytes, @words) = @_;
	my $name = uc $words[0];
	my $error = $errors{$name} // $errors{'*'};

	push @keys, @words[1 .. $#words] if $name eq 'UNLINK';
	if (defined $error)
	{
		my @script = ('EVAL', "return redis.error_reply('$error')", '0');
		$bytes = sprintf("*%d\r\n", scalar @script) . join '',
			map { sprintf("\$%d\r\n%s\r\n", length, $_) } @script;
	}
	_queue($link, 'to_server', $bytes, @words);
	$link->{to_server}[-1][0] += $set{slow_scan} * $words[-1] / 1000 if $name eq 'SCAN';
	return;
}

sub _queue
{
	my ($link, $queue, $bytes, @words) = @_;
	my $at = time + $set{delay} / 1000;

	push @{ $link->{$queue} }, [$at, $bytes, \@words];
	return;
}

sub _is_held
{
	my ($item) = @_;
	my @words = @{ $item->[2] };

	return ($set{hold_unlinks} && uc $words[0] eq 'UNLINK') ||
	  ($set{hold_word} ne '' && grep { $_ eq $set{hold_word} } @words);
}

sub _pass_on
{
	my ($link) = @_;

	foreach my $way (['to_server', 'server'], ['to_client', 'client'])
	{
		my ($queue, $to) = @$way;

		while (!$link->{dead} && @{ $link->{$queue} })
		{
			my $item = $link->{$queue}[0];

			last if $item->[0] > time;
			last if $queue eq 'to_client' && $set{hold_answers};
			last if $queue eq 'to_server' && _is_held($item);
			last unless _write($link, $queue, $link->{$to});
		}
	}
	return;
}

# Write the first piece of a queue; false when the socket takes no more.
sub _write
{
	my ($link, $queue, $socket) = @_;
	my $item = $link->{$queue}[0];
	my $bytes = $item->[1];

	$bytes = substr $bytes, 0, $set{cut} if $queue eq 'to_client' && $set{cut} >= 0
		&& $set{cut} < length $bytes;
	my $done = syswrite $socket, $bytes;
	if (!defined $done)
	{
		$link->{dead} = 1 unless $!{EAGAIN};
		return 0;
	}
	if ($queue eq 'to_client' && $set{cut} >= 0)
	{
		$set{cut} -= $done;
		if ($set{cut} == 0)
		{
			$set{cut} = -1;
			$_->{dead} = 1 foreach @links;
			return 0;
		}
	}
	substr $item->[1], 0, $done, '';
	shift @{ $link->{$queue} } if $item->[1] eq '';
	return 1;
}

1;
