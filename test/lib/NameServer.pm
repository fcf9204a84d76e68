# NameServer.pm: a name server for a test, in namespaces of its own.
#
# NameServer::enter() starts the test once more in a user, mount and network namespace
# of its own, where this process is the name server at 127.0.0.1 port 53: nothing of the
# machine's names, files or network is touched, and no right is needed.  Call it in a
# BEGIN block before anything is started.

package NameServer;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp ();
use IO::Socket::INET;
use Socket qw(AF_INET SOCK_DGRAM);
use Test::More ();
use Time::HiRes qw(sleep);

# From linux/sockios.h and linux/if.h.
use constant { SIOCSIFFLAGS => 0x8914, IFF_UP => 1 };

my $entered = 'UNCACHE_NAMES';

sub enter
{
	my @unshare = qw(unshare --user --mount --net --map-current-user --keep-caps);

	return if $ENV{$entered};
	Test::More::plan(skip_all => 'namespaces cannot be made here')
	  if system("@unshare true 2>/dev/null") != 0;
	$ENV{$entered} = 1;
	exec @unshare, $^X, (map { '-I' . abs_path($_) } grep { !ref && -d } @INC), $0
	  or die "could not enter namespaces: $!";
}

# new(NAME => [ADDRESS...], ...): the server answers for these names, and is silent where
# it is asked for another one.  HOSTS is the text of /etc/hosts.
sub new
{
	my ($class, $hosts, %names) = @_;
	my $self = bless { folder => File::Temp->newdir, names => \%names, owner => $$ }, $class;

	_loopback_up();
	$self->_replace('/etc/hosts', "127.0.0.1 localhost\n$hosts");
	$self->_replace('/etc/resolv.conf', "nameserver 127.0.0.1\n");
	$self->_replace('/etc/nsswitch.conf', "hosts: files dns\n");
	my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1:53')
	  or die "could not be the name server: $!";
	$self->{pid} = fork // die "could not fork: $!";
	$self->_serve($socket) if $self->{pid} == 0;
	return $self;
}

sub _loopback_up
{
	socket(my $socket, AF_INET, SOCK_DGRAM, 0) or die "no socket: $!";
	ioctl($socket, SIOCSIFFLAGS, my $request = pack('a16 s x22', 'lo', IFF_UP))
		or die "could not set lo up: $!";
	return;
}

# Lay a file over one of the machine's, in this namespace alone.
sub _replace
{
	my ($self, $path, $text) = @_;
	my ($name) = $path =~ m{([^/]+)$};

	open my $out, '>', "$self->{folder}/$name" or die "could not write: $!";
	print $out $text;
	close $out;
	chmod 0644, "$self->{folder}/$name";
	system('mount', '--bind', "$self->{folder}/$name", $path) == 0
		or die "could not lay a file over $path";
	return;
}

# How often a name was asked for, answered or not.
sub asked
{
	my ($self, $name) = @_;

	open my $in, '<', "$self->{folder}/asked" or return 0;
	return scalar grep { $_ eq "$name\n" } <$in>;
}

# One question in each datagram: a header of 12 bytes, labels, type and class.
sub _serve
{
	my ($self, $socket) = @_;

	open my $log, '>>', "$self->{folder}/asked" or POSIX::_exit(1);
	$log->autoflush(1);
	while (defined $socket->recv(my $query, 1500))
	{
		my ($id, $flags, $labels) = unpack 'n n x8 a*', $query;
		my @labels;

		while ((my $length = unpack 'C', $labels) > 0)
		{
			push @labels, substr $labels, 1, $length;
			$labels = substr $labels, 1 + $length;
		}
		my ($type) = unpack 'x n', $labels;
		my $name = lc join '.', @labels;

		print $log "$name\n";
		my $addresses = $self->{names}{$name} or next;
		my @records = $type == 1 ? map { pack 'n n n N n a4', 0xc00c, 1, 1, 0, 4,
			IO::Socket::INET::inet_aton($_) } @$addresses : ();
		my $question = substr $query, 12, length($query) - 12 - (length($labels) - 5);
		$socket->send(pack('n6', $id, 0x8180, 1, scalar @records, 0,
			0) . $question . join('', @records));
	}
	POSIX::_exit(0);
}

sub DESTROY
{
	my ($self) = @_;

	return unless defined $self->{owner} && $self->{owner} == $$ && $self->{pid};
	local $?;
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	return;
}

1;
