package ServersModel;

# Two servers at one Redis, small enough to try everything: A, and B, which starts as a
# physical copy of A (or, with "stranger", as a server of its own that serves the same
# keys).  Each has its history, a worker with the row that it keeps (uncache.fence_standing),
# and readers.  The rest is as in FenceModel.pm; there what one server alone can do to
# itself is tried, and not again here: beats, patterns, evictions, old snapshots, standbys.
#
# Oracle: one server is the true one, and from when on is what the guarantee says.  Its
# writers count: a cached value includes each of them that was delivered since, or before
# it deleted everything; each strict one that has committed at all; and after it has taken
# the fence back no writer of the other alone.
#
# What a case may contain (all optional):
#   timeline  of B, 2 by default; with 1 it was started without promotion
#   successor 1: B is the true one from its start on (a failover); otherwise a copy of A,
#             so that nothing is promised from its start until A has taken the fence back,
#             or, on equal timelines, until A has called twice: then neither fills
#   early     1: B was copied before all that happens, and A may reclaim before B starts
#   stranger  1: B has another system identifier
#   writers   list of plain@A, strict@A, plain@B; readers: list of A, B, A:2 (tries)
#   knowing   1: reclaim_fence() is called only on a server that knows that it is superseded
#   reclaims  text of A and B, one letter for each reclaim_fence(); restarts likewise
#   promote   1: a standby of A is promoted to timeline 3, once A knows that it is superseded
#   reload    times that the memory of the functions is lost, and the data is not
#   xids      name of writer => xid
# and, to break a rule of the worker: no_flush, forgetful (it keeps no row), place_only
# (reclaim_fence() raises one claim).
#
# Left out, to keep the cases small: a reader has its snapshot as soon as its token
# (FenceModel.pm tries the moves in between); B is known to Redis when it starts; a worker
# knows no later than its answer whether it has to flush; only a server that does not know
# yet that it is superseded is started again.  The functions' memory is lost only after a
# server knows that it is superseded: one that has not heard of it, when Redis forgets it
# too, fills again until the other calls.

use strict;
use warnings;
use FenceModel;

my $TTL = 300000;
my %default_xid = (w1 => 9, w2 => 10, w3 => 11);

sub initial
{
	my ($case, $empty) = @_;
	my %s = (v => '', r => '', m => $empty, empty => $empty, truth => 'A', settled => 1,
		calls => 0);

	for my $x (qw(A B))
	{
		# life, timeline, claims, the row's mark and by whom, what was told last
		@s{ map { "$_$x" } qw(life tl cl pc mk bt bc told) } = ($x eq 'A' ? 1 : 0, 1,
			0, 0, '', 0, 0, '');
		# what the worker thinks of the fence; reclaiming; the flush; history; whether nothing
		# of the other alone is in the cache
		@s{ map { "$_$x" } qw(f rc fl h pure) } = ('unknown', 0, '', '', $x eq 'A' ? 1 : 0);
	}
	# phase; by whom it was delivered, whether, whether that counts
	@s{ "w$_", "d$_", "o$_", "q$_" } = ('run', '', 0, 0) for 1 .. @{ $case->{writers} || [] };
	@s{ "p$_", "k$_", "s$_", "y$_", "n$_" } = (1, '', '', '', 1)
		for 1 .. @{ $case->{readers} || [] };
	@s{qw(c_reclaimA c_reclaimB c_restartA c_restartB c_reload c_promote)} = (0) x 6;
	return \%s;
}

sub has_epoch { return $_[0]{m} =~ /"epoch":/ }
sub end_key { my ($s) = @_; return join ' ', @{$s}{qw(r m hA hB truth settled fA fB)} }

# ---- transactions and snapshots

sub xid { my ($case, $name) = @_; return $case->{xids}{$name} || $default_xid{$name} }
sub host { my ($case, $i) = @_; return substr $case->{writers}[ $i - 1 ], -1 }
sub incarnation { my ($s, $x) = @_; return $x . $s->{"life$x"} }
# How often the text of the case names the server.
sub letters
{
	my ($case, $what, $x) = @_;
	return scalar grep { $_ eq $x } split //, $case->{$what} || '';
}
sub has { my ($s, $x, $name) = @_; return index(",$s->{\"h$x\"},", ",$name,") >= 0 }

sub end_of
{
	my ($s, $x, $name) = @_;
	$s->{"h$x"} .= ($s->{"h$x"} eq '' ? '' : ',') . $name;
	return;
}

# "incarnation:fresh:xmin:xmax:xip" and the value, of server x now.
sub snapshot
{
	my ($case, $s, $x) = @_;
	my @history = split /,/, $s->{"h$x"};
	my %ended = map { s/^-//r => 1 } @history;
	my ($last) = sort { $b <=> $a } 8, map { xid($case, $_) } keys %ended;
	my $xmax = $last + 1;
	my @running = sort { $a <=> $b } grep { $_ < $xmax } map { xid($case, "w$_") }
	  grep { host($case, $_) eq $x && !$ended{"w$_"} } 1 .. @{ $case->{writers} };

	return (join(':', incarnation($s, $x), 1, $running[0] // $xmax, $xmax, join(',', @running)),
		'v' . join('', map { "($_)" } sort grep { /^w/ } @history));
}

sub snapshot_now { my ($case, $s) = @_; return snapshot($case, $s, $s->{truth}) }

# ---- the oracle

sub stale
{
	my ($case, $s) = @_;
	return '' if $s->{v} eq '' || !$s->{settled};
	for my $i (1 .. @{ $case->{writers} })
	{
		my ($mine, $there) = (has($s, $s->{truth}, "w$i"), index($s->{v}, "(w$i)") >= 0);
		return "w$i is not of $s->{truth}, the cached value has it: $s->{v}"
		  if $there && !$mine && $s->{"pure$s->{truth}"};
		next if $there || !$mine;
		return "w$i was delivered, the cached value is older: $s->{v}" if $s->{"q$i"};
		return "w$i is strict and committed, the cached value is older: $s->{v}"
		  if $case->{writers}[ $i - 1 ] =~ /^strict/;
	}
	return '';
}

sub doubt_it
{
	my ($s, $truth) = @_;
	@{$s}{qw(truth settled)} = ($truth, 0);
	$s->{$_} = 0 for grep { /^q/ } keys %$s;
	return;
}

sub settle
{
	my ($case, $s, $x) = @_;
	return if $s->{truth} ne $x;
	$s->{settled} = 1;
	$s->{"q$_"} = $s->{"o$_"} && has($s, $x, "w$_") ? 1 : 0 for 1 .. @{ $case->{writers} };
	return;
}

# At an end: whether a reader of the true server must be able to fill.
sub must_fill
{
	my ($case, $s) = @_;
	return $s->{settled} && !(($case->{timeline} || 2) == 1 && $s->{mkA} && $s->{mkB});
}

# ---- moves, as in FenceModel.pm

sub change { my ($s, %set) = @_; return { %$s, %set } }

sub moves
{
	my ($case, $s) = @_;
	my @up = grep { $s->{"life$_"} } qw(A B);

	return (
		(map { writer_moves($case, $s, $_) } 1 .. @{ $case->{writers} || [] }),
		(map { reader_moves($case, $s, $_) } 1 .. @{ $case->{readers} || [] }),
		(map { worker_moves($case, $s, $_), life_moves($case, $s, $_) } @up),
		world_moves($case, $s));
}

sub invalidate
{
	my ($s, $x, $entry) = @_;
	return [ 'uncache_invalidate', $TTL, incarnation($s, $x), $entry ];
}

sub writer_moves
{
	my ($case, $s, $i) = @_;
	my ($kind, $x) = split /\@/, $case->{writers}[ $i - 1 ];
	my ($w, $xid, $phase) = ("w$i", xid($case, "w$i"), $s->{"w$i"});
	my @moves;

	return if !$s->{"life$x"};
	if ($phase eq 'run' && $kind eq 'strict')
	{
		push @moves, [ "$w is fenced before its commit", change($s),
			invalidate($s, $x, "?$xid"), sub {
			my ($n, $answer) = @_;
			$n->{$w} = 'doubt';
			return if $answer !~ /^[A-Z]/;
			$n->{$w} = 'gone';
			end_of($n, $x, "-$w");
		} ] if $s->{"f$x"} eq 'on';
	}
	elsif ($phase =~ /^(run|doubt)$/)
	{
		my $n = change($s, $w => 'done');
		end_of($n, $x, $w);
		push @moves, [ "$w commits", $n ];
	}
	return @moves if $phase ne 'done';
	for my $by (grep { has($s, $_, $w) && $s->{"f$_"} ne 'unknown' && $s->{"d$i"} !~ $_ } qw(A B))
	{
		push @moves, [ "$w delivered by $by", change($s), invalidate($s, $by, $xid), sub {
			my ($n, $answer) = @_;
			return $n->{"f$by"} = 'unknown' if $answer =~ /^UNREG/;
			$n->{"o$i"} = 1;
			$n->{"d$i"} = join "", sort split(//, $n->{"d$i"}), $by;
			$n->{"q$i"} = 1 if $n->{settled} && has($n, $n->{truth}, $w);
		} ];
	}
	return @moves;
}

sub reader_moves
{
	my ($case, $s, $i) = @_;
	my ($x, $tries) = split /:/, $case->{readers}[ $i - 1 ];
	my ($name, $phase) = ("reader$i of $x", $s->{"p$i"});

	return if !$s->{"life$x"} || $phase == 9;
	if ($phase == 1)
	{
		return [ "$name misses and reads the database", change($s), ['uncache_get'], sub {
			my ($n, $answer) = @_;
			my ($token) = $answer =~ /^~,([\w.]+:\d+)$/;
			return if !defined $token;
			@{$n}{ "p$i", "k$i", "s$i", "y$i" } = (2, $token, snapshot($case, $n, $x));
		} ] if $s->{v} eq '' && has_epoch($s);
		return;
	}
	return [ "$name fills", change($s),
		[ 'uncache_set', qq($s->{"k$i"}:$s->{"s$i"}), $TTL, $s->{"y$i"} ], sub {
			my ($n) = @_;
			$n->{"p$i"} = $n->{"n$i"}++ < ($tries || 1) ? 1 : 9;
			@{$n}{ "k$i", "s$i", "y$i" } = ('', '', '');
			$n->{"p$i"} = 9 if $n->{"n$i"} > ($tries || 1);
		} ];
}

# ---- a worker: fence_standing.c

sub is_superseded
{
	my ($s, $x) = @_;
	my ($mark, $claim, $by) = @{$s}{ "mk$x", "cl$x", "bc$x" };
	return $s->{"pc$x"} <= $by if $mark eq 'place';
	return $mark eq 'server' && ($claim < $by || ($claim == $by && $s->{"tl$x"} <= $s->{"bt$x"}));
}

# What a status has answered.
sub note_answer
{
	my ($case, $n, $x, @a) = @_;
	my ($epoch, $kind, $claim, $place_claim, $clean, $by, $timeline, $by_claim, $unheard) =
	  @a[ 1, 7 .. 14 ];
	my $new = $n->{"mk$x"} ne $kind || !is_superseded($n, $x);
	my $higher = $by_claim > $n->{"bc$x"}
		|| ($by_claim == $n->{"bc$x"} && $timeline > $n->{"bt$x"});

	$n->{"f$x"} = $kind ne '' ? 'superseded' : $epoch eq '~' ? 'none' : 'on';
	$n->{"told$x"} = $by;
	$n->{"cl$x"} = $claim if $claim > $n->{"cl$x"};
	finish($case, $n, $x, $clean) if $kind eq '' && $place_claim >= $n->{"pc$x"};
	return if $kind eq '' || ($unheard < 0 && $n->{"mk$x"} ne '') || $case->{forgetful};
	return if !($new || $higher);
	@{$n}{ "mk$x", "bt$x", "bc$x" } = ($kind, $timeline, $by_claim);
	return;
}

sub status_move
{
	my ($case, $s, $x) = @_;
	my $told = $s->{"told$x"};
	my $word = is_superseded($s, $x) ? $s->{"mk$x"} : '';
	my $server = $x eq 'B' && $case->{stranger} ? 'other' : 'sys';

	return [ "$x says who it is", change($s),
		[ 'uncache_status', $server, $s->{"tl$x"}, incarnation($s, $x), 0, '',
			$s->{"cl$x"}, $s->{"pc$x"},
			$word, $told, 1000 ],
		sub {
			my ($n, $answer) = @_;
			note_answer($case, $n, $x, split /,/, $answer, -1);
			return if ($case->{timeline} || 2) != 1 || $x eq 'B';
			$n->{calls}++ if $n->{lifeB} && $n->{calls} < 2;
			$n->{settled} = 1 if $n->{calls} == 2 && !$n->{c_reclaimA};
		} ];
}

sub epoch_call
{
	my ($s, $x, $random) = @_;
	return [ 'uncache_epoch', $random, $TTL, incarnation($s, $x) ];
}

# All nodes have confirmed that it may fill: what fence_standing.c calls finish().
sub finish
{
	my ($case, $n, $x, $clean) = @_;

	return if is_superseded($n, $x) || !($n->{"mk$x"} || $n->{"rc$x"});
	# Of two calls of reclaim_fence() at once the one counts that is confirmed last.
	doubt_it($n, $x) if $n->{"rc$x"};
	$clean &&= $n->{"mk$x"} eq 'server';
	@{$n}{ "mk$x", "bt$x", "bc$x", "rc$x" } = ('', 0, 0, 0);
	settle($case, $n, $x) if $clean;
	$n->{"fl$x"} = 'due' if !$clean;
	return;
}

sub flush_move
{
	my ($case, $s, $x) = @_;
	my $memory = "e$s->{c_reload}";

	return [ "$x begins to flush", change($s),
		epoch_call($s, $x, $s->{"f$x"} eq 'on' ? $memory : ''),
		sub {
			my ($n, $answer) = @_;
			$n->{"f$x"} = $answer eq '~' ? 'none' : 'on' if $n->{"f$x"} ne 'superseded';
			$n->{"fl$x"} = 'scan';
		} ] if $s->{"fl$x"} eq 'due' && $s->{"f$x"} ne 'unknown';
	return if $s->{"fl$x"} ne 'scan';
	my $n = change($s, "fl$x" => '', "pure$x" => 1);
	$n->{v} = '' if !$case->{no_flush};
	settle($case, $n, $x) if !$s->{"mk$x"} && !$s->{"rc$x"};
	return [ "$x has flushed", $n ];
}

sub worker_moves
{
	my ($case, $s, $x) = @_;
	my @moves = status_move($case, $s, $x);

	push @moves, [ "$x sets an epoch", change($s), epoch_call($s, $x, "e$s->{c_reload}"),
		sub { my ($n, $answer) = @_; $n->{"f$x"} = $answer eq '~' ? 'none' : 'on' } ]
	  if $s->{"f$x"} eq 'none' && $s->{"fl$x"} eq '';
	my $again = $s->{"rc$x"} && is_superseded($s, $x);
	my $asked = ($s->{lifeB} || $case->{early}) && ($s->{"mk$x"} || !$case->{knowing}) &&
	  $s->{"c_reclaim$x"} < letters($case, reclaims => $x);
	if ($again || $asked)
	{
		my $n = change($s, "c_reclaim$x" => $s->{"c_reclaim$x"} + !$again, "rc$x" => 1);
		my $field = $s->{"mk$x"} eq 'server' ? "cl$x" : "pc$x";
		my $by = $s->{"mk$x"} ne '' && $s->{"bc$x"} > $s->{$field} ? $s->{"bc$x"} : $s->{$field};
		$n->{$field} = $by + 1;
		$n->{"cl$x"}++ if $field eq 'pc' . $x && !$case->{place_only};
		doubt_it($n, $x) if !$again;
		push @moves, [ $again ? "$x raises its claim again" : "reclaim_fence() on $x", $n ];
	}
	return (@moves, flush_move($case, $s, $x));
}

# ---- lives

sub begin_life
{
	my ($case, $s, $x) = @_;
	my $n = change($s, "life$x" => $s->{"life$x"} + 1, "f$x" => 'unknown', "told$x" => '',
		"rc$x" => 0);

	for my $i (1 .. @{ $case->{writers} })
	{
		next if host($case, $i) ne $x || $s->{"w$i"} ne 'doubt';
		end_of($n, $x, "-w$i");
		$n->{"w$i"} = 'gone';
	}
	return $n;
}

sub life_moves
{
	my ($case, $s, $x) = @_;
	my @moves;

	if (!$s->{"mk$x"} && $s->{"c_restart$x"} < letters($case, restarts => $x) &&
		$s->{lifeB} && $s->{"f$x"} ne 'unknown')
	{
		my $n = begin_life($case, $s, $x);
		$n->{"c_restart$x"}++;
		push @moves, [ "$x is started again", $n ];
	}
	if ($x eq 'A' && $case->{promote} && !$s->{c_promote} && $s->{mkA})
	{
		my $n = begin_life($case, $s, 'A');
		@{$n}{qw(tlA c_promote)} = (3, 1);
		doubt_it($n, 'A');
		push @moves, [ 'a standby of A is promoted', $n ];
	}
	return @moves;
}

sub world_moves
{
	my ($case, $s) = @_;
	my @moves;

	if (!$s->{lifeB})
	{
		my $n = change($s, lifeB => 1, tlB => $case->{timeline} || 2,
			$case->{stranger} || $case->{early} ? ()
			: map { ("${_}B" => $s->{"${_}A"}) } qw(cl pc mk bt bc h));
		doubt_it($n, $case->{successor} ? 'B' : 'A') if !$s->{c_reclaimA};
		$n->{settled} = 1 if $case->{successor};
		my (undef, @first) = @{ status_move($case, $n, 'B') };
		push @moves, [ 'B starts, and says who it is', @first ];
	}
	push @moves, [ 'the functions are loaded again',
		change($s, m => $s->{empty}, c_reload => $s->{c_reload} + 1, toldA => '', toldB => '') ]
	  if ($s->{mkA} || $s->{mkB} || $case->{forgetful}) && $s->{c_reload} < ($case->{reload} || 0);
	return @moves;
}

1;
