package FenceSearch;

# Tries every interleaving of a case of FenceModel.pm, breadth first, each state
# once.  A state of Redis is put back before every call (hook.lua), so that a
# step costs one command however deep it lies; commands travel in pipelines.  What a
# call answers, and leaves behind, depends on the state of Redis alone: of states that
# differ in something else only the first makes it, the others take its reply.

use strict;
use warnings;
use Digest::MD5 ();
use FenceModel;
use ServersModel;
use TagsModel;

# The world of a case: its moves and its oracle.
sub world { my ($case) = @_; return $case->{world} || 'FenceModel' }

# new(redis, library text)
sub new
{
	my ($class, $redis, $library) = @_;
	return bless { redis => $redis, library => $library }, $class;
}

sub load
{
	my ($self, $hook) = @_;
	my $answer = $self->{redis}->call('FUNCTION', 'LOAD', 'REPLACE',
		$self->{library} . ($hook || ''));
	die "FUNCTION LOAD: $answer" if $answer ne 'uncache';
	return;
}

# A case's states all have the same fields.
sub key_of
{
	my ($s, $fields) = @_;
	return Digest::MD5::md5(join "\t", @{$s}{@$fields});
}

sub step_command
{
	my ($s, @call) = @_;
	return [ 'FCALL', 'model_step', 2, $FenceModel::KEY, $FenceModel::RECORD,
		@{$s}{qw(v r m)}, @call ];
}

# Take the answer of step_command into the state; returns the library's answer.
sub step_answer
{
	my ($s, $reply) = @_;
	my @fields = split /\n/, $reply, -1;

	die "model_step: $reply" if @fields != 5;
	(my $answer, @{$s}{qw(v r m)}, my $wanted) = @fields;
	die "the library failed: $answer" if $answer =~ /user_function|^ERR/;
	return wantarray ? ($answer, $wanted) : $answer;
}

sub empty_locals
{
	my ($self, $hook) = @_;
	$self->load($hook);
	my $s = { v => '', r => '', m => '' };
	step_answer($s, $self->{redis}->call(@{ step_command($s) }));
	return $s->{m};
}

# search(case, most states): returns { states, moves, stale, path, ends }; "path"
# is the shortest schedule that ends stale, "ends" the states where all is quiet.
sub search
{
	my ($self, $hook, $case, $limit) = @_;
	my $world = world($case);
	my ($moves_of, $stale, $end_key) = map { $world->can($_) } qw(moves stale end_key);
	my $first = $world->can('initial')->($case, $self->empty_locals($hook));
	my @fields = grep { $_ ne 'empty' } sort keys %$first;
	my %seen = (key_of($first, \@fields) => 1);
	my (@parent, @label, %ends, %replies);
	my @level = ([ 0, $first ]);
	my $result = { states => 1, moves => 0, ends => \%ends };

	@parent = @label = (undef);
	my $visit = sub {
		my ($node, $label, $s, $next) = @_;
		my $key = key_of($s, \@fields);
		my $from = $node->[0];
		$result->{moves}++;
		$node->[2] ||= $key ne key_of($node->[1], \@fields);
		return if $seen{$key}++;
		my $id = @parent;
		push @parent, $from;
		push @label, $label;
		push @$next, [ $id, $s ];
		$result->{states}++;
		$result->{stale} = $stale->($case, $s) or return;
		$result->{path} = [];
		for (my $at = $id; $at; $at = $parent[$at]) { unshift @{ $result->{path} }, $label[$at] }
	};
	while (@level)
	{
		my @next;
		while (my @some = splice @level, 0, 300)
		{
			my @calls;
			for my $node (@some)
			{
				for my $move ($moves_of->($case, $node->[1]))
				{
					my ($label, $s, $call) = @$move;
					if ($call)
					{
						push @calls, [ $node, $move, join "\0", @{$s}{qw(v r m)}, @$call ];
					}
					else { $visit->($node, $label, $s, \@next) }
					return $result if $result->{stale};
				}
			}
			my %new = map { $_->[2] => $_ } grep { !exists $replies{ $_->[2] } } @calls;
			my @new = sort keys %new;
			@replies{@new} = $self->{redis}->pipeline(map {
				step_command($_->[1][1], @{ $_->[1][2] }) } @new{@new});
			$result->{calls} += @new;
			for my $made (@calls)
			{
				my ($node, $move, $key) = @$made;
				my ($label, $s, undef, $then) = @$move;
				$then->($s, scalar step_answer($s, $replies{$key}));
				$visit->($node, $label, $s, \@next);
				return $result if $result->{stale};
			}
			# Quiet: there is nothing more to do, or nothing that changes anything.
			$ends{ $end_key->($_->[1]) } ||= $_->[1] foreach grep { !$_->[2] } @some;
			die "more than $limit states" if $limit && $result->{states} > $limit;
		}
		@level = @next;
		$result->{depth}++;
	}
	return $result;
}

# The library without the hook, and a life of no meaning, which asks for the epoch.
sub load_real
{
	my ($self) = @_;
	$self->load;
	$self->has_real_epoch;
	return;
}

# Its server, database and prefix are its own, so that it is in no one's way.
sub has_real_epoch
{
	my ($self) = @_;
	my $status = $self->{redis}->call('FCALL', 'uncache_status', 0, 'probe', 1, 'probe', 99,
		'probe:', 0, 0, '', '', 1000);
	return defined $status->[1];
}

# The same schedule without the hook: calls are FCALLs of the library alone, and
# Redis keeps its own state.  Returns what the oracle says at the end.
sub replay
{
	my ($self, $case, @path) = @_;
	my $redis = $self->{redis};
	my $world = world($case);
	my $s = $world->can('initial')->($case, '');

	$redis->call('FLUSHALL');
	$self->load_real;
	for my $label (@path)
	{
		$s = $self->real_move($s, grep { $_->[0] eq $label } $world->can('moves')->($case, $s));
	}
	return $world->can('stale')->($case, $s);
}

# Walk at random on the real thing, as far as it goes.  Returns the steps taken
# and what the oracle says.
sub walk
{
	my ($self, $case) = @_;
	my $s = FenceModel::initial($case, '');
	my @path;

	$self->{redis}->call('FLUSHALL');
	$self->load_real;
	while (my @moves = FenceModel::moves($case, $s))
	{
		my $move = $moves[ rand @moves ];
		push @path, $move->[0];
		$s = $self->real_move($s, $move);
		my $stale = FenceModel::stale($case, $s);
		return ($stale, @path) if $stale;
	}
	return ('', @path);
}

# One move on the real thing.  The locals cannot be seen: "m" only says whether
# there is an epoch.
sub real_move
{
	my ($self, $s, $move) = @_;
	my $redis = $self->{redis};
	my ($label, $n, $call, $then) = @{ $move || die "the schedule cannot be replayed" };

	if ($call)
	{
		my ($name, @args) = @$call;
		my @keys = $name =~ /status|epoch|beat/ ? () : ($FenceModel::KEY);
		my $reply = $redis->call('FCALL', $name, scalar(@keys), @keys, @args);
		my $answer = ref $reply ? join ',', map { $_ // '~' } @$reply : $reply // '~';
		die "$name: $answer" if $answer =~ /^(?!UNREGISTERED|FULL|SUPERSEDED)[A-Z]+ /;
		$then->($n, $answer);
	}
	else
	{
		$self->load_real if $label =~ /loaded again|restarted/;
		for my $pair ([ v => $FenceModel::KEY ], [ r => $FenceModel::RECORD ])
		{
			my ($field, $key) = @$pair;
			next if $n->{$field} eq $s->{$field};
			$redis->call($n->{$field} eq '' ? ('DEL', $key) : ('SET', $key, $n->{$field}));
		}
	}
	@{$n}{qw(v r)} = map { $_ // '' }
	  $redis->pipeline([ 'GET', $FenceModel::KEY ], [ 'GET', $FenceModel::RECORD ]);
	$n->{m} = $self->has_real_epoch ? '"epoch":' : '';
	return $n;
}

1;
