# RedisCluster.pm: masters and replicas of a Redis Cluster for the TAP tests.
#
# All listen on ports of 127.0.0.1, unless told.  A master that does not answer for two seconds
# is replaced by its replica (with less, a loaded machine would see failovers that
# no test has asked for).  Servers are named by their ports.

package RedisCluster;

use strict;
use warnings;

use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use ClusterBus;
use RedisServer;
use Uncache ();

my $slots = 16384;

# new(OPTION => VALUE...): started and complete, the slots divided equally.
# masters: how many, 3 unless told; replicas: how many of each, 1 unless told;
# options: of all redis-servers, a reference to a list; password: of all of them;
# cables: true if nodes are going to be cut off (no node can be added then); host:
# another address of this machine; tls: the options of redis-server for TLS, which is
# then the only way to them, and tls_cli those of redis-cli, both references to lists.
sub new
{
	my ($class, %options) = @_;
	my $self = bless {
		servers => {},
		frozen => {},
		options => $options{options} // [],
		password => $options{password},
		host => $options{host} // '127.0.0.1',
		tls => $options{tls},
		tls_cli => $options{tls_cli} // [],
	}, $class;
	my $count = $options{masters} // 3;
	$self->_lay_cables($count * (1 + ($options{replicas} // 1))) if $options{cables};
	my @masters = map { $self->_start_server } 1 .. $count;
	my @replicas = map { $self->_start_server } 1 .. $count * ($options{replicas} // 1);

	foreach my $i (0 .. $#masters)
	{
		my ($first, $last) = map { int($slots * $_ / $count) } $i, $i + 1;

		$self->_order($masters[$i], 'cluster', 'addslotsrange', $first, $last - 1);
	}
	$self->_meet($masters[0], $_) foreach @masters[ 1 .. $#masters ], @replicas;
	$self->_wait('the nodes to know each other', sub { $self->_all_know_all });
	foreach my $i (0 .. $#replicas)
	{
		$self->_order($replicas[$i], 'cluster', 'replicate', $self->_id($masters[ $i % $count ]));
	}
	$self->wait_until_ok;
	return $self;
}

sub _wait
{
	my ($self, $what, $done) = @_;
	my $deadline = time + $Uncache::patience;

	until ($done->())
	{
		die "gave up waiting for $what\n" . join '', map { $_->log } values %{ $self->{servers} }
			if time > $deadline;
		sleep 0.05;
	}
	return;
}

sub _lay_cables
{
	my ($self, $count) = @_;

	$self->{bus_ports} = [ map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. $count ];
	$self->{cables} = ClusterBus->new(@{ $self->{bus_ports} });
	return;
}

# The bus port of the next server, what others are told of it, and options for that.
sub _next_bus
{
	my ($self) = @_;
	my $cables = $self->{cables} or return (PostgreSQL::Test::Cluster::get_free_port()) x 2;
	my $number = keys %{ $self->{servers} };

	return ($self->{bus_ports}[$number], $cables->port($number), '--cluster-announce-bus-port',
		$cables->port($number),
		'--cluster-announce-ip', '127.0.0.1', '--bind-source-addr', $cables->source($number),
			'--protected-mode', 'no');
}

# A free port may not be free any more when it is used.
sub _start_server
{
	my ($self) = @_;
	my $port;

	foreach (1 .. 5)
	{
		return $port if $port = eval { $self->_try_to_start_server };
	}
	die $@;
}

sub _try_to_start_server
{
	my ($self) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my ($bus, $announced, @cables) = $self->_next_bus;
	my @password = defined $self->{password} ?
	  ('--requirepass', $self->{password}, '--masterauth', $self->{password}) : ();
	my @ports = $self->{tls} ?
	  ('--port', 0, '--tls-port', $port, '--tls-cluster', 'yes', '--tls-replication', 'yes',
		@{ $self->{tls} }) :
	  ('--port', $port);
	my $server = RedisServer->new(@ports, '--bind', $self->{host},
		'--cluster-enabled', 'yes', '--cluster-port', $bus, '--cluster-node-timeout', 2000,
		'--cluster-replica-validity-factor', 0, '--repl-diskless-sync-delay', 0,
		'--repl-ping-replica-period', 1, @password, @cables, @{ $self->{options} });

	$server->cli_options(@{ $self->{tls_cli} },
		defined $self->{password} ? ('--no-auth-warning', '-a', $self->{password}) : ());
	# Through the socket they tell each other's ports without TLS, which are none.
	$server->cli_way('-h', $self->{host}, '-p', $port) if $self->{tls};
	$server->start;
	$self->{servers}{$port} = $server;
	$self->{number}{$port} = keys %{ $self->{servers} };
	$self->{bus}{$port} = $announced;
	# Epochs that differ from the start need not be made so by the nodes.
	$self->_order($port, 'cluster', 'set-config-epoch', scalar keys %{ $self->{servers} });
	return $port;
}

# A command that must be answered with OK.
sub _order
{
	my ($self, $port, @words) = @_;
	my $answer = $self->server($port)->cli(@words);

	die "@words at $port: $answer" unless $answer eq 'OK';
	return;
}

sub _meet
{
	my ($self, $at, $port) = @_;

	$self->_order($at, 'cluster', 'meet', $self->{host}, $port, $self->{bus}{$port});
	return;
}

sub _id { my ($self, $port) = @_; return $self->server($port)->cli('cluster', 'myid') }

# ------------------------------------------------------------------------
# What there is
# ------------------------------------------------------------------------

sub server { return $_[0]->{servers}{ $_[1] } }
sub ports { my @sorted = sort { $a <=> $b } keys %{ $_[0]->{servers} }; return @sorted }

# Those that run and answer.
sub _alive
{
	my ($self) = @_;

	return grep { defined $self->server($_)->pid && !$self->{frozen}{$_} } $self->ports;
}

# The cluster as one of its nodes sees it: port => what CLUSTER NODES says.
sub _nodes
{
	my ($self, $port) = @_;
	my %nodes;

	foreach my $line (split /\n/, $self->server($port)->cli('cluster', 'nodes'))
	{
		my ($id, $address, $flags, $master, undef, undef, undef, undef, @ranges) = split / /, $line;

		next unless $address =~ /:(\d+)@/;
		$nodes{$1} = {
			id => $id,
			flags => { map { $_ => 1 } split /,/, $flags },
			master => $master,
			slots => [ grep { !/\[/ } @ranges ],
		};
	}
	return \%nodes;
}

# The ports of the masters that serve slots, as a node that is alive sees them; in
# the order of their slots.
sub masters
{
	my ($self, $at) = @_;
	my ($alive) = $at // $self->_alive;
	my $nodes = $self->_nodes($alive);

	return sort { ($nodes->{$a}{slots}[0] =~ /^(\d+)/)[0] <=> (
		$nodes->{$b}{slots}[0] =~ /^(\d+)/)[0] }
	  grep { $nodes->{$_}{flags}{master} && @{ $nodes->{$_}{slots} } } keys %$nodes;
}

sub replicas_of
{
	my ($self, $port) = @_;
	my ($alive) = $self->_alive;
	my $nodes = $self->_nodes($alive);

	return grep { $nodes->{$_}{master} eq $nodes->{$port}{id} } keys %$nodes;
}

# The slot of a key.
sub slot
{
	my ($self, $key) = @_;
	my $crc = 0;

	$key = $1 if $key =~ /^[^{]*\{([^}]+)\}/s;
	foreach my $byte (unpack 'C*', $key)
	{
		$crc ^= $byte << 8;
		$crc = ($crc & 0x8000 ? $crc << 1 ^ 0x1021 : $crc << 1) & 0xffff for 1 .. 8;
	}
	return $crc % $slots;
}

# The port of the master that serves a slot; '' where none does.
sub master_of_slot
{
	my ($self, $slot) = @_;
	my ($alive) = $self->_alive;
	my $nodes = $self->_nodes($alive);

	foreach my $port (keys %$nodes)
	{
		foreach my $range (@{ $nodes->{$port}{slots} })
		{
			my ($first, $last) = split /-/, $range;

			return $port if $slot >= $first && $slot <= ($last // $first);
		}
	}
	return '';
}

sub master_of { my ($self, $key) = @_; return $self->master_of_slot($self->slot($key)) }

# keys_at(PORT, PREFIX, COUNT): so many keys PREFIX . n that this master serves.
sub keys_at
{
	my ($self, $port, $prefix, $count) = @_;
	my @ranges = map { [ split /-/ ] } @{ $self->_nodes($port)->{$port}{slots} };
	my @keys;

	for (my $n = 1; @keys < $count; $n++)
	{
		my $slot = $self->slot("$prefix$n");

		push @keys, "$prefix$n"
			if grep { $slot >= $_->[0] && $slot <= ($_->[1] // $_->[0]) } @ranges;
	}
	return @keys;
}

# The address for uncache.redis_url, with some nodes as seeds, whatever their
# role; all of them unless told.
sub url
{
	my ($self, @seeds) = @_;

	@seeds = $self->ports unless @seeds;
	return ($self->{tls} ? 'rediss' : 'redis') . '+cluster://'
	  . (defined $self->{password} ? ":$self->{password}\@" : '')
	  . join ',', map { ($self->{host} =~ /:/ ? "[$self->{host}]" : $self->{host}) . ":$_" } @seeds;
}

# ------------------------------------------------------------------------
# Waiting
# ------------------------------------------------------------------------

# Every node that is alive knows the address of every other.
sub _all_know_all
{
	my ($self) = @_;
	my $count = $self->ports;

	return !grep {
		my $nodes = $self->_nodes($_);
		keys %$nodes < $count || grep { $_->{flags}{handshake} } values %$nodes;
	} $self->_alive;
}

# Those that are alive see each other, the same masters with the same slots and
# replicas, and serve all slots; the replicas are connected.
sub _is_ok
{
	my ($self) = @_;
	my %views;

	foreach my $port ($self->_alive)
	{
		my $nodes = $self->_nodes($port);

		$views{ join ' ', map { "$_ $nodes->{$_}{master} @{ $nodes->{$_}{slots} }" } grep {
			$nodes->{$_} } $self->_alive } = 1;
		return 0 if grep { $nodes->{$_}{flags}{fail}
			|| $nodes->{$_}{flags}{'fail?'} } $self->_alive;
		return 0 unless $self->server($port)->cli('cluster', 'info') =~ /^cluster_state:ok/m;
		return 0 unless $nodes->{$port}{flags}{master}
		  || $self->server($port)->info('replication', 'master_link_status') eq 'up';
	}
	return keys %views == 1;
}

# The replicas have received what their masters had when this was called.
sub _wait_for_replicas
{
	my ($self) = @_;
	my %due;

	foreach my $port ($self->_alive)
	{
		my $master = $self->server($port)->info('replication', 'master_port') || next;

		$due{$port} = $self->server($master)->info('replication', 'master_repl_offset') || 0;
	}
	$self->_wait('the replicas', sub {
		return !grep { ($self->server($_)->info('replication', 'slave_repl_offset')
			|| 0) < $due{$_} } keys %due;
	});
	return;
}

sub wait_until_ok
{
	my ($self) = @_;

	$self->_wait('the cluster', sub { $self->_is_ok });
	$self->_wait_for_replicas;
	return;
}

# wait_for_state(STATE): each node that is alive says that of the cluster.
sub wait_for_state
{
	my ($self, $state) = @_;

	$self->_wait("cluster_state:$state", sub {
		return !grep { $self->server($_)->cli('cluster',
			'info') !~ /^cluster_state:$state/m } $self->_alive;
	});
	return;
}

# wait_for_failover(PORT): until this master, which is dead or hangs, is replaced
# in the eyes of every node that is alive; returns the port of its replacement.
sub wait_for_failover
{
	my ($self, $old) = @_;
	my ($alive) = $self->_alive;
	my %replicas = map { $_ => 1 } $self->replicas_of($old);
	my $new;

	$self->_wait('the failover', sub {
		my %masters;

		$masters{$_}++ foreach map { $self->masters($_) } $self->_alive;
		($new) = grep { $replicas{$_} && $masters{$_} == $self->_alive } keys %masters;
		return defined $new && !$masters{$old};
	});
	$self->wait_for_state('ok');
	return $new;
}

# ------------------------------------------------------------------------
# Trouble
# ------------------------------------------------------------------------

sub kill9 { my ($self, $port) = @_; $self->server($port)->kill9; return }
sub start { my ($self, $port) = @_; $self->server($port)->start; return }

sub freeze
{
	my ($self, $port) = @_;
	$self->server($port)->freeze;
	$self->{frozen}{$port} = 1;
	return;
}

sub thaw
{
	my ($self, $port) = @_;
	$self->server($port)->thaw;
	delete $self->{frozen}{$port};
	return;
}

# cut_off(PORT): from the other nodes, and from its replicas, but from nobody else;
# heal() ends that.
sub cut_off
{
	my ($self, $port) = @_;

	$self->{cut} = $port;
	$self->{cables}->cut($self->{number}{$port} - 1);
	$self->server($port)->cli(qw(acl setuser default -psync -sync));
	$self->server($port)->cli(qw(client kill type replica));
	return;
}

sub heal
{
	my ($self) = @_;

	$self->server(delete $self->{cut})->cli(qw(acl setuser default +psync +sync));
	$self->{cables}->cut;
	return;
}

# From now on it has its keys again when it is killed and started.
sub keep_keys
{
	my ($self, $port) = @_;
	my $server = $self->server($port);

	push @{ $server->{options} }, '--appendonly', 'yes';
	$self->_order($port, 'config', 'set', 'appendonly', 'yes');
	$self->_wait('the append-only file', sub {
		return $server->info('persistence', 'aof_rewrite_in_progress') eq '0'
		  && $server->info('persistence', 'aof_rewrite_scheduled') eq '0';
	});
	return;
}

# Its replica takes over in good order; returns its port.
sub fail_over
{
	my ($self, $port) = @_;
	my ($replica) = $self->replicas_of($port);

	$self->_order($replica, 'cluster', 'failover');
	$self->_wait('the failover',
		sub { !grep { $_ eq $port } map { $self->masters($_) } $self->_alive });
	$self->wait_until_ok;
	return $replica;
}

# A master without slots; returns its port.
sub add_master
{
	my ($self) = @_;
	my ($alive) = $self->_alive;
	my $port = $self->_start_server;

	$self->_meet($alive, $port);
	$self->_wait('the new node', sub { $self->_all_know_all });
	$self->wait_for_state('ok');
	return $port;
}

# begin_move(SLOT, TO): whatever moves now, the rest of the slot's keys is still
# at its master, which redirects with ASK for what it has not.
sub begin_move
{
	my ($self, $slot, $to) = @_;
	my $from = $self->master_of_slot($slot);

	$self->_order($to, 'cluster', 'setslot', $slot, 'importing', $self->_id($from));
	$self->_order($from, 'cluster', 'setslot', $slot, 'migrating', $self->_id($to));
	$self->{moving}{$slot} = [ $from, $to ];
	return;
}

# Some keys of a slot on the move, all unless told.
sub move_keys
{
	my ($self, $slot, @keys) = @_;
	my ($from, $to) = @{ $self->{moving}{$slot} };
	my $all = !@keys;
	my @password = defined $self->{password} ? ('auth', $self->{password}) : ();

	while (1)
	{
		@keys = split /\n/, $self->server($from)->cli('cluster', 'getkeysinslot',
			$slot, 1000) if $all;
		return unless @keys;
		my $answer = $self->server($from)->cli('migrate', $self->{host}, $to, '', 0, 5000,
			@password, 'keys', @keys);
		die "MIGRATE: $answer" unless $answer =~ /^(OK|NOKEY)/;
		return unless $all;
	}
}

# The move is over, and every master knows it.
sub end_move
{
	my ($self, $slot) = @_;
	my ($from, $to) = @{ delete $self->{moving}{$slot} };
	my $id = $self->_id($to);

	$self->_order($_, 'cluster', 'setslot', $slot, 'node', $id)
	  foreach $to, grep { $_ ne $to } $self->masters($from);
	return;
}

# The slot stays where it was; what has moved comes back.
sub cancel_move
{
	my ($self, $slot) = @_;
	my ($from, $to) = @{ delete $self->{moving}{$slot} };

	my @keys = split /\n/, $self->server($to)->cli('cluster', 'getkeysinslot', $slot, 1000);
	if (@keys)
	{
		my @password = defined $self->{password} ? ('auth', $self->{password}) : ();
		my $answer = $self->server($to)->cli('migrate', $self->{host}, $from, '', 0, 5000,
			@password, 'keys', @keys);

		die "MIGRATE: $answer" unless $answer =~ /^(OK|NOKEY)/;
	}
	$self->_order($_, 'cluster', 'setslot', $slot, 'stable') foreach $to, $from;
	return;
}

# Move whole slots with all their keys.
sub move_slots
{
	my ($self, $to, @moving) = @_;

	foreach my $slot (@moving)
	{
		$self->begin_move($slot, $to);
		$self->move_keys($slot);
		$self->end_move($slot);
	}
	return;
}

# pipeline(PORT, LINE...): send commands, without braces or the like, that this
# server carries out one after the other, whatever others send it meanwhile.
# answers() waits for the answers, each of one line, and gives them with blanks
# between.
sub pipeline
{
	my ($self, $port, @lines) = @_;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $self->server($port)->socket)
	  or die "could not connect: $!";

	unshift @lines, "auth $self->{password}" if defined $self->{password};
	print $socket map { "$_\r\n" } @lines;
	$socket->flush;
	return bless { socket => $socket, count => scalar @lines }, 'RedisCluster::Pipeline';
}

# ------------------------------------------------------------------------
# As if it were one RedisServer
# ------------------------------------------------------------------------

# cli(WORD...): redirections are followed.  Several keys must be of one slot.
sub cli
{
	my ($self, @words) = @_;
	my ($alive) = $self->_alive;

	return $self->server($alive)->cli_by([ '-c', '-h', $self->{host}, '-p', $alive ], @words);
}

# The answers of all masters that are alive.
sub cli_at_masters
{
	my ($self, @words) = @_;
	my %alive = map { $_ => 1 } $self->_alive;

	return map { $self->server($_)->cli(@words) } grep { $alive{$_} } $self->masters;
}

# Every master is given all keys, and takes those that it serves.
sub _fill
{
	my ($self, $count, $script, @arguments) = @_;
	my $taken = 0;

	$taken += $_ foreach $self->cli_at_masters('eval',
		"local n = 0 $script return n", 0, @arguments);
	die "of $count keys $taken were taken" unless $taken == $count;
	return;
}

sub fill
{
	my ($self, @keys) = @_;

	$self->_fill(scalar @keys,
		'for _, k in ipairs(ARGV) do if redis.pcall("set", k, 1).ok then n = n + 1 end end', @keys);
	return;
}

sub fill_range
{
	my ($self, $prefix, $first, $last) = @_;

	$self->_fill($last - $first + 1, 'for i = ARGV[2], ARGV[3] do '
		  . 'if redis.pcall("set", ARGV[1] .. string.format("%d", i), 1).ok then n = n + 1 end end',
		$prefix, $first, $last);
	return;
}

# All keys, sorted; or those that match a glob; or how many.
sub keys
{
	my ($self, $glob) = @_;
	my @keys = sort map { split /\n/ } $self->cli_at_masters('keys', $glob // '*');

	return @keys;
}

sub has { my ($self, $key) = @_; return $self->cli('exists', $key) eq '1' }

package RedisCluster::Pipeline;

sub answers
{
	my ($self) = @_;

	return join ' ',
		map { (readline($self->{socket}) // '') =~ s/^[+:]|\r\n//gr } 1 .. $self->{count};
}

1;
