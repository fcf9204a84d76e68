package FenceModel;

# The world around the fence, small enough to try everything: transactions on
# one server, readers, a worker, and a Redis that forgets.  A state is a flat
# hash; moves() lists what can happen next in a state, each either a change of
# the model alone or one call of the Redis library together with what its answer
# means.  One key is cached.  Its true value is the set of the writers that have
# committed; a reader's value is the set that its snapshot saw.
#
# Oracle: a cached value always includes every writer whose invalidation has
# been answered; and every strict writer that has committed at all.  So a strict COMMIT of
# the model returns before its delivery, as with wait_timeout = 0.
#
# What a case may contain (all optional, counts):
#   writers   list of plain, strict, pattern; "plain\@B": on the next incarnation
#   readers   list of fresh, late (reads after its snapshot), old (snapshot, then
#             miss), standby, replaced (on the primary that was replaced), refresh
#             (fills whatever is there), plain (GET and SET, no fence); ":2" tries;
#             "fresh+" asks for a lease: it waits while another reader has that, and may
#             die, or give up, when it has it
#   beats; lostbeats (given up, announced late); dupbeats
#   dups, latedoubts, lateepoch (calls that arrive again, later)
#   epochs (of other workers); evict, lose (value, record); moved (the slot went
#   to another node and back); reload, restart; promote, oldworker (the replaced
#   primary's); crash
#   next      1: the worker tells its next xid, as one of version 2 does
#   xids      name of writer or beat => xid
# and, to break a rule of the worker or of the reader: no_pattern_epoch,
# locals_in_image, early_commit (of beats), and the reader "early" (reads before
# its snapshot).

use strict;
use warnings;

our $KEY = 'k';
our $RECORD = 'uncache:{k}';
my $TTL = 300000;

sub initial
{
	my ($case, $empty) = @_;
	my %s = (v => '', r => '', m => $empty, empty => $empty, h => '', t => 'A', lag => 0,
		cut => 0, reg => 0, ep => 0, image => '');
	my @readers = @{ $case->{readers} || [] };

	for my $i (1 .. @{ $case->{writers} || [] })
	{
		# phase, answered?, owed again?, duplicates, late doubts, doubt lost?
		@s{ "w$i", "o$i", "f$i", "d$i", "l$i", "g$i" } = ('run', 0, 0, 0, 0, 0);
	}
	@s{ "p$_", "k$_", "s$_", "y$_", "n$_" } = (0, '', '', '', 1) for 1 .. @readers;
	$s{"b$_"} = 0 for 1 .. ($case->{beats} || 0);
	$s{"c_$_"} = 0 for qw(evict lose moved reload save restart epochs
		lateepoch promote oldworker oldepoch crash lostbeats dupbeats);
	return \%s;
}

sub has_epoch { return $_[0]{m} =~ /"epoch":/ }

# The memory of the functions when Redis has forgotten it, at a later moment.
sub forgotten
{
	my ($s) = @_;
	my $moment = $s->{c_reload} + $s->{c_restart} + 1;
	return $s->{empty} =~ s/\}$/,"moment":$moment}/r;
}

# Ends that differ in nothing else are one.
sub end_key { my ($s) = @_; return join ' ', @{$s}{qw(r m h t)} }

# What a reader sees now, and whether it must be able to fill when all is quiet.
sub snapshot_now
{
	my ($case, $s, $fresh) = @_;
	return snapshot($case, $s, scalar history($s), $s->{t}, $fresh);
}

sub must_fill { return 1 }

# ---- transactions and snapshots

my %default_xid = (
	w1 => '99999999999999998', w2 => '99999999999999999', w3 => '100000000000000000',
		w4 => '100000000000000004',
	b1 => '100000000000000001', b2 => '100000000000000002', b3 => '100000000000000003');

sub xid
{
	my ($case, $name) = @_;
	return $case->{xids}{$name} || $default_xid{$name};
}

# Does the transaction run on the server of this incarnation?
sub home
{
	my ($case, $name, $incarnation) = @_;
	return 1 if $name =~ /^b/;
	my (undef, $where) = split /\@/, $case->{writers}[ substr($name, 1) - 1 ];
	return ($where || 'A') eq $incarnation;
}

# History: names of ended transactions in their order, "-" before an aborted one.
sub history { return split /,/, $_[0]{h} }

sub add_history
{
	my ($s, $name) = @_;
	$s->{h} = $s->{h} eq '' ? $name : "$s->{h},$name";
	return;
}

# "incarnation:fresh:xmin:xmax:xip" and the value, for the first n of history.
sub snapshot
{
	my ($case, $s, $n, $incarnation, $fresh) = @_;
	my @history = (history($s))[ 0 .. $n - 1 ];
	my (%ended, %committed);
	for my $name (@history)
	{
		$committed{$name} = 1;
		$ended{ $name =~ s/^-//r } = 1;
	}
	my @known = sort { $a <=> $b } map { xid($case, $_) }
	  grep { !$ended{$_} && exists $s->{$_} && home($case, $_, $incarnation) } keys %default_xid;
	my @ended = sort { $b <=> $a } map { xid($case, $_) } keys %ended;
	my $xmax = @ended ? $ended[0] + 1 : '99999999999999990';
	my @running = grep { $_ < $xmax } @known;
	my $xmin = @running ? $running[0] : $xmax;

	return ("$incarnation:$fresh:$xmin:$xmax:" . join(',', @running),
		'v' . join('', map { "($_)" } sort grep { /^w/ } keys %committed));
}

# ---- the oracle

sub stale
{
	my ($case, $s) = @_;
	return '' if $s->{v} eq '';
	for my $i (1 .. @{ $case->{writers} })
	{
		next if index($s->{v}, "(w$i)") >= 0;
		return "w$i was delivered, the cached value is older: $s->{v}" if $s->{"o$i"};
		return "w$i is strict and committed, the cached value is older: $s->{v}"
		  if $case->{writers}[ $i - 1 ] =~ /^strict/ && $s->{"w$i"} eq 'done' && !$s->{"g$i"};
	}
	return '';
}

# ---- moves: [label, next state] or [label, next state, call, sub (state, answer)]

sub change
{
	my ($s, %set) = @_;
	return { %$s, %set };
}

sub moves
{
	my ($case, $s) = @_;
	my @moves;

	push @moves, writer_moves($case, $s, $_) for 1 .. @{ $case->{writers} || [] };
	push @moves, reader_moves($case, $s, $_) for 1 .. @{ $case->{readers} || [] };
	push @moves, beat_moves($case, $s, $_) for 1 .. ($case->{beats} || 0);
	push @moves, worker_moves($case, $s), fault_moves($case, $s);
	return @moves;
}

sub invalidate
{
	my ($s, $entry) = @_;
	return [ 'uncache_invalidate', $TTL, $s->{t}, $entry ];
}

sub writer_moves
{
	my ($case, $s, $i) = @_;
	my ($kind, $where) = split /\@/, $case->{writers}[ $i - 1 ];
	my ($w, $xid, $phase) = ("w$i", xid($case, "w$i"), $s->{"w$i"});
	my @moves;
	my $to = sub { my ($phase) = @_; return sub { $_[0]{$w} = $phase if $_[1] !~ /^UNREG/ } };
	my $fenced = sub {
		my ($n, $answer) = @_;
		return $to->('doubt')->(@_) if $answer !~ /^FULL/;
		add_history($n, "-$w");
		$n->{$w} = 'aborted';
	};

	return if ($where || 'A') ne $s->{t} && $phase eq 'run';
	if ($phase eq 'run' && $kind eq 'strict')
	{
		push @moves, [ "$w is fenced before its commit", change($s),
			invalidate($s, "?$xid"), $fenced ];
	}
	elsif ($phase eq 'run' || $phase eq 'doubt')
	{
		my $n = change($s, $w => 'done');
		add_history($n, $w);
		push @moves, [ "$w commits", $n ];
		if ($phase eq 'doubt')
		{
			$n = change($s, $w => 'aborted');
			add_history($n, "-$w");
			push @moves, [ "$w aborts", $n ];
		}
	}
	elsif ($phase eq 'aborted')
	{
		push @moves, [ "$w released", change($s),
			[ 'uncache_release', $s->{t}, $xid ], $to->('gone') ];
	}
	elsif ($phase eq 'done' && $kind eq 'pattern')
	{
		push @moves, $case->{no_pattern_epoch}
		  ? [ "$w (no epoch set)", change($s, $w => 'epoch') ]
		  : epoch_move($s, "$w sets an epoch", $to->('epoch'));
	}
	elsif ($phase eq 'epoch')
	{
		push @moves, [ "$w scanned and deleted",
			change($s, v => '', $w => 'done', "o$i" => 1, "f$i" => 0) ]
		  if !$s->{"o$i"};
	}
	elsif ($phase eq 'done' && (!$s->{"o$i"} || $s->{"d$i"} < ($case->{dups} || 0)))
	{
		my $again = $s->{"o$i"};
		push @moves, [ "$w delivered" . ($again ? ' again' : ''), change($s), invalidate($s, $xid),
			sub {
				my ($n, $answer) = @_;
				return if $answer =~ /^UNREG/;
				@{$n}{ "o$i", "f$i" } = (1, 0);
				$n->{"d$i"} += $again;
			} ];
	}
	if ($kind eq 'strict' && $phase ne 'run' && $s->{"l$i"} < ($case->{latedoubts} || 0))
	{
		# deletes the value, too: whatever was lost before, it is strict again
		push @moves, [ "$w fenced again", change($s, "l$i" => $s->{"l$i"} + 1),
			invalidate($s, "!$xid"),
			sub { $_[0]{"g$i"} = 0 if $_[1] !~ /^UNREG/ } ];
	}
	@moves = () if $kind eq 'pattern' && $phase eq 'done' && $s->{"o$i"};
	return @moves;
}

# Stores what it has read on the primary, whoever has written since.
sub plain_reader_moves
{
	my ($case, $s, $i) = @_;
	my ($name, $phase) = ("reader$i (plain)", $s->{"p$i"});

	if ($phase == 0)
	{
		return [ "$name looks in the cache", change($s, "p$i" => $s->{v} eq '' ? 2 : 9) ];
	}
	if ($phase == 2)
	{
		my (undef, $value) = snapshot_now($case, $s, 1);
		return [ "$name reads the database", change($s, "p$i" => 4, "y$i" => $value) ];
	}
	if ($phase == 4)
	{
		return [ "$name stores", change($s, "p$i" => 9, "y$i" => '', v => $s->{"y$i"}) ];
	}
	return;
}

sub reader_moves
{
	my ($case, $s, $i) = @_;
	my ($kind, $tries) = split /:/, $case->{readers}[ $i - 1 ];

	return plain_reader_moves($case, $s, $i) if $kind eq 'plain';
	my ($name, $phase) = ("reader$i ($kind)", $s->{"p$i"});
	my @lease = $kind =~ s/\+$// ? (1000) : ();
	my $next = sub { change($s, "p$i" => $phase + 1, @_) };
	my $look = sub {
		my ($n, $incarnation, $fresh) = @_;
		my ($text, $value) = snapshot($case, $s, $n, $incarnation, $fresh);
		return $next->("s$i" => $text, "y$i" => $value);
	};
	my $all = scalar history($s);

	# phase 0: an old snapshot is taken; 1: miss; 2: snapshot; 3: late read; 4: fill
	if ($phase == 0)
	{
		return [ "$name takes its snapshot", $look->($all, $s->{t}, 0) ] if $kind eq 'old';
		return [ "$name reads the row", $look->($all, $s->{t}, 0) ] if $kind eq 'early';
		return reader_moves($case, change($s, "p$i" => 1), $i);
	}
	if ($phase == 1)
	{
		return if $kind eq 'old' && $case->{crash} && $s->{"s$i"} !~ /^$s->{t}:/;
		return if $kind eq 'replaced' && $s->{t} eq 'A';
		my $function = $kind eq 'refresh' ? 'uncache_token' : 'uncache_get';
		return [ "$name looks in the cache", change($s), [ $function, @lease ], sub {
			my ($n, $answer) = @_;
			return if $answer =~ /^~,~,/;
			my $token = $answer =~ /^(?:~,)?([\w.]+:\d+)$/ ? $1 : '';
			$n->{"p$i"} = $token eq '' ? 9 : $kind eq 'old' ? 4 : 2;
			$n->{"k$i"} = $token;
		} ];
	}
	if ($phase == 2)
	{
		my @look = $kind eq 'standby' ? $look->($s->{lag}, $s->{t}, 0)
		  : $kind eq 'replaced' ? $look->($s->{cut}, 'A', 1)
		  : $look->($all, $s->{t}, 1);
		$look[0]{"p$i"} = 4 if $kind ne 'late';
		$look[0]{"y$i"} = $s->{"y$i"} if $kind eq 'early';
		return ([ "$name reads the database", @look ],
			@lease ? [ "$name dies", change($s, "p$i" => 9, "k$i" => '', "s$i" => '') ] : ());
	}
	if ($phase == 3)
	{
		my (undef, $value) = snapshot($case, $s, $all, $s->{t}, 1);
		return [ "$name reads the row", $next->("y$i" => $value) ];
	}
	if ($phase == 4)
	{
		my @give_up = !@lease ? () : [ "$name gives up", change($s),
			[ 'uncache_set', '', $TTL, '' ],
			sub { @{ $_[0] }{ "p$i", "k$i", "s$i", "y$i" } = (9, '', '', '') } ];
		return @give_up, [ "$name fills", change($s),
			[ 'uncache_set', qq($s->{"k$i"}:$s->{"s$i"}), $TTL, $s->{"y$i"} ], sub {
				my ($n, $answer) = @_;
				my $more = $answer eq '0' && $n->{"n$i"} < ($tries || 1);
				$n->{"p$i"} = $more ? 0 : 9;
				$n->{"n$i"}++ if $more;
				@{$n}{ "k$i", "s$i", "y$i" } = ('', '', '');
			} ];
	}
	return;
}

sub beat_moves
{
	my ($case, $s, $i) = @_;
	my ($b, $phase) = ("b$i", $s->{"b$i"});
	my $call = sub { [ 'uncache_beat', $_[0], $s->{t}, xid($case, $b) ] };
	my $end = sub { my ($phase, $name) = @_; my $n = change($s,
		$b => $phase); add_history($n, $name); $n };
	my @moves;

	return if $i > 1 && $s->{ 'b' . ($i - 1) } eq '0';
	if ($phase eq '0' && $case->{early_commit})
	{
		push @moves, [ "$b commits", $end->('early', $b) ];
	}
	elsif ($phase eq 'early')
	{
		push @moves, [ "$b announced", change($s), $call->('announce'),
			sub { $_[0]{$b} = 'done' } ];
	}
	elsif ($phase eq '0')
	{
		push @moves, [ "$b announced", change($s), $call->('announce'),
			sub { $_[0]{$b} = $_[1] eq '1' ? 'announced' : 'refused' } ];
		if ($s->{c_lostbeats} < ($case->{lostbeats} || 0))
		{
			my $n = $end->('late', "-$b");
			$n->{c_lostbeats}++;
			push @moves, [ "$b given up by its worker, announcement on its way", $n ];
		}
	}
	elsif ($phase eq 'announced')
	{
		push @moves, [ "$b commits", $end->('done', $b) ];
	}
	elsif ($phase eq 'done')
	{
		push @moves, [ "$b confirmed", change($s), $call->('confirm'),
			sub { $_[0]{$b} = 'confirmed' } ];
	}
	elsif ($phase eq 'refused')
	{
		push @moves, [ "$b aborts", $end->('gone', "-$b") ];
	}
	elsif ($phase eq 'late')
	{
		push @moves, [ "$b announced, late", change($s), $call->('announce'),
			sub { $_[0]{$b} = 'gone' } ];
	}
	elsif ($phase =~ /^(confirmed|again)$/ && $s->{c_dupbeats} < ($case->{dupbeats} || 0))
	{
		my $step = $phase eq 'again' ? 'confirm' : 'announce';
		push @moves, [ "$b: $step arrives again", change($s), $call->($step), sub {
			$_[0]{$b} = $phase eq 'again' ? 'confirmed' : 'again';
			$_[0]{c_dupbeats}++ if $phase eq 'again';
		} ];
	}
	return @moves;
}

sub epoch_move
{
	my ($s, $label, $then) = @_;
	my $n = $s->{ep} + 1;
	return [ $label, change($s), [ 'uncache_epoch', "e$n", $TTL ],
		sub { $_[0]{ep} = $n; $then->(@_) if $then } ];
}

# Above all that has been given away, or not below the beats to come.
sub next_xid
{
	my ($case, $s) = @_;
	my ($beat) = grep { $s->{"b$_"} eq '0' } 1 .. ($case->{beats} || 0);
	return xid($case, $beat ? "b$beat" : 'b3');
}

# The worker: says who it is, sends again what it owes, then sets an epoch.
sub worker_moves
{
	my ($case, $s) = @_;
	my @moves;

	if ($s->{t} eq 'B' && $s->{c_oldworker} < ($case->{oldworker} || 0))
	{
		push @moves, [ "the old primary's worker says who it is", change($s),
			[ 'uncache_status', 'sys', 1, 'A' ], sub { $_[0]{c_oldworker}++ } ];
	}
	if ($s->{c_oldworker} > $s->{c_oldepoch})
	{
		push @moves, epoch_move($s, "the old primary's worker sets an epoch",
			sub { $_[0]{c_oldepoch}++ });
	}
	if (!$s->{reg})
	{
		my $timeline = $s->{t} eq 'A' ? 1 : 2;
		return @moves, [ 'worker says who it is', change($s),
			[ 'uncache_status', 'sys', $timeline, $s->{t},
				$case->{next} ? (0, '', 0, 0, '', '', next_xid($case, $s)) : () ],
			sub { $_[0]{reg} = 1 } ];
	}
	my $owed = grep { /^f\d/ && $s->{$_} } keys %$s;
	push @moves, epoch_move($s, 'worker sets an epoch')
	  if !has_epoch($s) && (!$owed || $case->{early_epoch});
	push @moves, epoch_move($s, 'another worker sets an epoch', sub { $_[0]{c_epochs}++ })
	  if $s->{c_epochs} < ($case->{epochs} || 0);
	push @moves, [ 'the first epoch arrives again', change($s), [ 'uncache_epoch', 'e1', $TTL ],
		sub { $_[0]{c_lateepoch}++ } ]
	  if $s->{ep} > ($s->{c_reload} + $s->{c_restart} ? 0 : 1) &&
	  $s->{c_lateepoch} < ($case->{lateepoch} || 0);
	push @moves, [ 'the standby replays', change($s, lag => $s->{lag} + 1) ]
	  if grep({ /standby/ } @{ $case->{readers} || [] }) && $s->{lag} < history($s);
	return @moves;
}

sub fault_moves
{
	my ($case, $s) = @_;
	my @moves;
	my $fault = sub {
		my ($name, $label, %set) = @_;
		return if $s->{"c_$name"} >= ($case->{$name} || 0);
		push @moves, [ $label, change($s, "c_$name" => $s->{"c_$name"} + 1, %set) ];
	};
	my @doubts = map { ("g$_" => 1) } grep { $s->{"w$_"} eq 'doubt' } 1 .. @{ $case->{writers} };
	my @writers = 1 .. @{ $case->{writers} };
	# An image may bring back a value from before a strict commit: until that is delivered again
	# its guarantee is that of read_your_writes.
	my @strict = map { ("g$_" => 1) } grep { $case->{writers}[ $_ - 1 ] =~ /^strict/ &&
		$s->{"w$_"} eq 'done' } 1 .. @{ $case->{writers} };
	my %forget = (@doubts, @strict, map { $s->{"o$_"} ? ("o$_" => 0, "f$_" => 1) : () } @writers);

	$fault->('evict', 'value evicted', v => '') if $s->{v} ne '';
	$fault->('lose', 'record lost', r => '', @doubts) if $s->{r} ne '';
	push @moves, [ 'the lease expires', change($s, r => $s->{r} =~ s/:\d+\@\d+$//r) ]
	  if $s->{r} =~ /:\d+\@\d+$/;
	$fault->('moved', 'slot moved to another node and back', v => '',
		r => 'other.1:1:0:::', @doubts);
	$fault->('reload', 'library loaded again', m => forgotten($s), reg => 0);
	if ($case->{restart} && $s->{c_save} < 1)
	{
		push @moves, [ 'image saved', change($s, c_save => 1, image => "$s->{v}|$s->{r}|$s->{m}") ];
	}
	if ($s->{image} ne '')
	{
		my ($v, $r, $m) = split /\|/, $s->{image}, 3;
		$fault->('restart', 'Redis restarted with the image', v => $v, r => $r, reg => 0,
			m => $case->{locals_in_image} ? $m : forgotten($s), %forget);
	}
	if ($s->{t} eq 'A')
	{
		$fault->('promote', 'standby promoted, the old primary lives on',
			t => 'B', cut => scalar history($s), reg => 0);
		my @history = history($s);
		my $last = pop @history;
		$fault->('crash', "server crashed, $last is lost",
			t => 'B', h => join(',', @history), reg => 0,
			$last => 'lost', 'o' . substr($last, 1) => 0, 'f' . substr($last, 1) => 0)
		  if $last && $last =~ /^w/;
	}
	return @moves;
}

1;
