# ClusterBus.pm: the cables between the nodes of a RedisCluster.
#
# A process of its own, with a port for each node, that stands before the nodes' bus
# ports.  A node dials the others from an address of its own (bind-source-addr), so
# it is known who speaks to whom, and a node can be cut off from all others while
# everybody else reaches it.

package ClusterBus;

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX ();

my @buses;

# new(BUS_PORT...): for as many nodes.  They are known by their numbers, from 0 on.
sub new
{
	my ($class, @ports) = @_;
	my @listeners = map { IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 100)
		// die "could not listen: $!" } @ports;
	my $self = bless { ports => [ map { $_->sockport } @listeners ] }, $class;

	pipe my $order_out, my $order_in or die $!;
	pipe my $answer_out, my $answer_in or die $!;
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		close $order_in;
		close $answer_out;
		$answer_in->autoflush;
		eval { _serve(\@ports, \@listeners, $order_out, $answer_in) };
		print STDERR "ClusterBus: $@" if $@;
		POSIX::_exit(0);
	}
	close $order_out;
	close $answer_in;
	$order_in->autoflush;
	@$self{qw(pid in out)} = ($pid, $order_in, $answer_out);
	push @buses, $self;
	return $self;
}

# The port that others are to be told for the bus of a node, and where it dials from.
sub port { return $_[0]->{ports}[ $_[1] ] }
sub source { return '127.0.1.' . (1 + $_[1]) }

# cut(NUMBER...): from now on only these are cut off; in force when it returns.
sub cut
{
	my ($self, @numbers) = @_;

	print { $self->{in} } "@numbers\n";
	defined readline $self->{out} or die 'the bus is gone';
	return;
}

END
{
	my $status = $?;
	foreach my $bus (@buses)
	{
		kill 'KILL', $bus->{pid};
		waitpid $bus->{pid}, 0;
	}
	$? = $status;
}

# ---------------------------------------------------------------------------
# The process
# ---------------------------------------------------------------------------

sub _serve
{
	my ($ports, $listeners, $orders, $acknowledgements) = @_;
	my (%links, %cut);

	$SIG{PIPE} = 'IGNORE';
	while (1)
	{
		foreach my $ready (IO::Select->new($orders, @$listeners,
			map { $_->{socket} } values %links)->can_read)
		{
			my ($number) = grep { $listeners->[$_] == $ready } 0 .. $#$listeners;
			my $link = $links{ fileno($ready) // -1 };

			if ($ready == $orders)
			{
				my $order = readline $orders;
				return unless defined $order;
				%cut = map { $_ => 1 } split ' ', $order;
				my @broken = grep { $cut{ $_->{from} } || $cut{ $_->{to} } } values %links;
				_close(\%links, $_) foreach @broken;
				print $acknowledgements "ok\n";
			}
			elsif (defined $number) { _accept(\%links, \%cut, $ready, $number, $ports->[$number]) }
			elsif ($link && $link->{socket} == $ready)
			{
				my $got = sysread $ready, my $bytes, 65536;

				_close(\%links, $link) unless $got && syswrite($link->{other}, $bytes);
			}
		}
	}
	return;
}

sub _accept
{
	my ($links, $cut, $listener, $to, $port) = @_;
	my $dialer = $listener->accept or return;
	my ($from) = $dialer->peerhost =~ /^127\.0\.1\.(\d+)$/;
	my $node = defined $from && ($cut->{ $from - 1 } || $cut->{$to}) ? undef :
	  IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);

	unless ($node) { close $dialer; return }
	foreach my $end ([ $dialer, $node ], [ $node, $dialer ])
	{
		$links->{ fileno $end->[0] } = { socket => $end->[0], other => $end->[1],
			from => ($from // 0) - 1, to => $to };
	}
	return;
}

sub _close
{
	my ($links, $link) = @_;

	foreach my $socket ($link->{socket}, $link->{other})
	{
		delete $links->{ fileno $socket } if defined fileno $socket;
	}
	close $_ foreach $link->{socket}, $link->{other};
	return;
}

1;
