# RedisSentinel.pm: a master, replicas and three Sentinels for the TAP tests.
#
# All listen on ports of 127.0.0.1.  The Sentinels replace a master that does not
# answer within half a second.

package RedisSentinel;

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use RedisServer;
use Uncache ();

# new(OPTION => VALUE...): started and complete.  replicas: how many; options:
# of all redis-servers, a reference to a list.
sub new
{
	my ($class, %options) = @_;
	my $self = bless { name => 'mymaster', servers => {}, sentinels => {} }, $class;
	my ($first, @replicas) = map {
		$self->_server(@{ $options{options} // [] }) } 0 .. $options{replicas} // 1;

	$self->server($first)->start;
	foreach my $port (@replicas)
	{
		$self->server($port)->start;
		$self->server($port)->cli('replicaof', '127.0.0.1', $first);
	}
	$self->_wait('the replicas', sub { $self->synchronous(@replicas) });
	$self->_sentinel($first) for 1 .. 3;
	$self->wait_for_quorum(scalar @replicas);
	return $self;
}

sub _wait
{
	my ($self, $what, $done) = @_;
	my $deadline = time + $Uncache::patience;

	until ($done->())
	{
		die "gave up waiting for $what" if time > $deadline;
		sleep 0.05;
	}
	return;
}

sub _server
{
	my ($self, @options) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	$self->{servers}{$port} = RedisServer->new('--port', $port, '--bind', '127.0.0.1',
		'--repl-diskless-sync-delay', 0, '--repl-ping-replica-period', 1, @options);
	return $port;
}

sub _sentinel
{
	my ($self, $master) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $sentinel = RedisServer->new_sentinel($port,
		"port $port",
		'bind 127.0.0.1',
		"sentinel monitor $self->{name} 127.0.0.1 $master 2",
		"sentinel down-after-milliseconds $self->{name} 500",
		"sentinel failover-timeout $self->{name} 3000");

	$sentinel->start;
	$self->{sentinels}{$port} = $sentinel;
	return;
}

# All Sentinels know each other and so many replicas.
sub wait_for_quorum
{
	my ($self, $replicas) = @_;

	foreach my $sentinel ($self->sentinels)
	{
		$self->_wait('the Sentinels', sub {
			my %master = split /\n/, $sentinel->cli('sentinel', 'master', $self->{name});

			return ($master{'num-slaves'} // 0) == $replicas
			  && ($master{'num-other-sentinels'} // 0) == keys(%{ $self->{sentinels} }) - 1
			  && $sentinel->cli('sentinel', 'ckquorum', $self->{name}) =~ /^OK/;
		});
	}
	return;
}

sub name { return $_[0]->{name} }

sub sentinels
{
	my ($self) = @_;
	return map { $self->{sentinels}{$_} } sort keys %{ $self->{sentinels} };
}

sub ports { return sort keys %{ $_[0]->{servers} } }
sub server { return $_[0]->{servers}{ $_[1] } }

# The address for uncache.redis_url, with further text after the name.
sub url
{
	my ($self, $more) = @_;

	return 'redis+sentinel://' . join(',', map { "127.0.0.1:$_" } sort keys %{ $self->{sentinels} })
	  . "/$self->{name}" . ($more // '');
}

# The port of the master, as the Sentinels see it when they all see the same; ''
# while they don't.
sub master_port
{
	my ($self) = @_;
	my %named = map { $_->cli('sentinel', 'get-master-addr-by-name',
		$self->{name}) => 1 } $self->sentinels;
	my ($one, $other) = keys %named;

	return !defined $other && $one =~ /\n(\d+)$/ ? $1 : '';
}

# Have all these replicas received all that their master had when it was asked?  It
# is asked first: under load it always has something newer a moment later.
sub synchronous
{
	my ($self, @replicas) = @_;

	foreach my $port (@replicas)
	{
		my $replica = $self->server($port);
		my $master = $self->server($replica->info('replication', 'master_port') || return 0);
		my $offset = $master->info('replication', 'master_repl_offset');

		return 0 if $replica->info('replication', 'master_link_status') ne 'up';
		return 0 if $replica->info('replication', 'slave_repl_offset') < $offset;
	}
	return 1;
}

# Have this Sentinel make another server the master, and wait until it names that one.
# It refuses while it takes no replica for a good one, and gives up a failover that
# takes too long: then it is asked again.
sub fail_over
{
	my ($self, $sentinel) = @_;
	my $named = sub { return $sentinel->cli('sentinel', 'get-master-addr-by-name', $self->{name}) };
	my $before = $named->();
	my $asked = 0;

	$self->_wait('a failover', sub {
		return 1 if $named->() ne $before;
		return 0 if time < $asked + 5;
		$sentinel->cli('sentinel', 'failover', $self->{name});
		$asked = time;
		return 0;
	});
	return;
}

# Wait until another server than this one is master, and says so; returns its port.
sub wait_for_other_master
{
	my ($self, $old) = @_;
	my $port;

	$self->_wait('the failover', sub {
		$port = $self->master_port;
		return $port ne '' && $port ne $old && $self->server($port)->info('replication',
			'role') eq 'master';
	});
	return $port;
}

# Wait until this server follows the master.
sub wait_for_replica
{
	my ($self, $port) = @_;

	$self->_wait("$port to become a replica", sub {
		return $self->server($port)->info('replication', 'role') eq 'slave'
			&& $self->synchronous($port);
	});
	return;
}

1;
