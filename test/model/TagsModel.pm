package TagsModel;

# Fenced tags: a page that depends on many rows lies under a key with a nonce in it, and the
# nonce under a key that a rule invalidates.  Writers, beats, the worker, the standby and
# Redis that forgets are those of FenceModel.pm, whose key "k" holds the nonce here.  A page
# lies under a key of its own for each nonce; no rule invalidates it.
#
# A reader gets the nonce, or fills it with one that was never used; then it gets the page of
# that nonce, and on a miss fills it, with a snapshot of its own.
#
# Oracle: where there is a nonce, and a page of that nonce, the page includes every writer
# whose invalidation of the nonce has been answered.
#
# What a case may contain, beside what FenceModel.pm takes for these:
#   readers   list of "a/b": with which snapshot the nonce is filled, and the page; each is
#             fresh, standby, or old (taken first of all)
# and, to break a rule of the reader: reversed (the page's token is taken before the nonce
# is filled), again (a nonce is stored a second time), plain_page (the page is stored by SET).

use strict;
use warnings;
use FenceModel;

my $TTL = 300000;

sub has_epoch { return FenceModel::has_epoch(@_) }
sub snapshot_now { return FenceModel::snapshot_now(@_) }
sub must_fill { return 1 }

sub end_key
{
	my ($s) = @_;
	return join ' ', FenceModel::end_key($s), map { $s->{$_} } grep { /^p[vr]_/ } sort keys %$s;
}

sub initial
{
	my ($case, $empty) = @_;
	my $s = FenceModel::initial($case, $empty);

	# old snapshot and what it reads, nonce, token of the page; page and record of each nonce
	@{$s}{ "os$_", "oy$_", "q$_", "t$_", "pv_n$_", "pr_n$_" } = ('') x 6
	  for 1 .. @{ $case->{readers} };
	@{$s}{qw(gv gr)} = ('', '');
	return $s;
}

sub stale
{
	my ($case, $s) = @_;
	my $page = $s->{v} eq '' ? '' : $s->{"pv_$s->{v}"};

	return '' if $page eq '';
	for my $i (1 .. @{ $case->{writers} })
	{
		return "w$i was delivered, the page of the nonce is older: $page"
		  if $s->{"o$i"} && index($page, "(w$i)") < 0;
	}
	return '';
}

sub change
{
	my ($s, %set) = @_;
	return { %$s, %set };
}

# A call for the page of the nonce: its value and its record take the places of the nonce's.
sub page_move
{
	my ($s, $nonce, $label, $call, $then) = @_;
	my $n = change($s, v => $s->{"pv_$nonce"}, r => $s->{"pr_$nonce"},
		gv => $s->{v}, gr => $s->{r});

	return [ $label, $n, $call, sub {
		my ($n, $answer) = @_;
		@{$n}{ "pv_$nonce", "pr_$nonce" } = @{$n}{qw(v r)};
		@{$n}{qw(v r gv gr)} = (@{$n}{qw(gv gr)}, '', '');
		$then->($n, $answer);
	} ];
}

# Snapshot and value of a kind, as fields "s" and "y" of the reader.
sub look
{
	my ($case, $s, $i, $kind) = @_;
	return ("s$i" => $s->{"os$i"}, "y$i" => $s->{"oy$i"}) if $kind eq 'old';
	my ($text, $value) = FenceModel::snapshot($case, $s,
		$kind eq 'standby' ? $s->{lag} : scalar FenceModel::history($s), $s->{t},
		$kind eq 'fresh' ? 1 : 0);
	return ("s$i" => $text, "y$i" => $value);
}

sub token_in { my ($answer) = @_; return $answer =~ /^~,([\w.]+:\d+)$/ ? $1 : '' }

# Phases: begin, get (the nonce), early (the page's token, reversed), look, fill, page (its
# token), read, store, done.
sub reader_moves
{
	my ($case, $s, $i) = @_;
	my ($for_nonce, $for_page) = split m{/}, $case->{readers}[ $i - 1 ];
	my ($name, $phase, $own) = ("reader$i ($for_nonce/$for_page)", $s->{"p$i"}, "n$i");
	my $fill = sub {
		my ($value) = @_;
		return [ 'uncache_set', qq($s->{"k$i"}:$s->{"s$i"}), $TTL, $value ];
	};

	if ($phase eq '0')
	{
		my ($text, $value) = FenceModel::snapshot($case, $s, scalar FenceModel::history($s),
			$s->{t}, 0);
		return [ "$name takes its snapshot",
			change($s, "p$i" => 'get', "os$i" => $text, "oy$i" => $value) ]
		  if "$for_nonce$for_page" =~ /old/;
		return reader_moves($case, change($s, "p$i" => 'get'), $i);
	}
	if ($phase eq 'get')
	{
		return [ "$name looks for the nonce", change($s), ['uncache_get'], sub {
			my ($n, $answer) = @_;
			my $token = token_in($answer);
			@{$n}{ "p$i", "k$i", "q$i" } =
			    $answer !~ /^~/ ? ('page', '', $answer)
			  : $token eq '' ? ('done', '', '')
			  : ($case->{reversed} ? 'early' : 'look', $token, $own);
		} ];
	}
	if ($phase eq 'early')
	{
		return page_move($s, $own, "$name takes the token of the page", ['uncache_get'], sub {
			my ($n, $answer) = @_;
			$n->{"t$i"} = token_in($answer);
			$n->{"p$i"} = 'look';
		});
	}
	return [ "$name reads the database for the nonce",
		change($s, "p$i" => 'fill', look($case, $s, $i, $for_nonce)) ] if $phase eq 'look';
	if ($phase eq 'fill')
	{
		return [ "$name fills the nonce", change($s), $fill->($own), sub {
			my ($n, $answer) = @_;
			$n->{"p$i"} = $answer eq '0' ? 'done' : $n->{"t$i"} ne '' ? 'read' : 'page';
			@{$n}{ "k$i", "s$i", "y$i" } = ($n->{"t$i"}, '', '');
		} ];
	}
	if ($phase eq 'page')
	{
		return page_move($s, $s->{"q$i"}, "$name looks for the page", ['uncache_get'], sub {
			my ($n, $answer) = @_;
			my $token = token_in($answer);
			@{$n}{ "p$i", "k$i" } = ($token eq '' ? 'done' : 'read', $token);
		});
	}
	return [ "$name reads the database for the page",
		change($s, "p$i" => 'store', look($case, $s, $i, $for_page)) ] if $phase eq 'read';
	if ($phase eq 'store')
	{
		my $done = sub { @{ $_[0] }{ "p$i", "k$i", "s$i", "y$i" } = ('done', '', '', '') };
		my $nonce = $s->{"q$i"};
		return page_move($s, $nonce, "$name fills the page", $fill->($s->{"y$i"}), $done)
		  if !$case->{plain_page};
		my $n = change($s, "pv_$nonce" => $s->{"y$i"});
		$done->($n);
		return [ "$name stores the page by SET", $n ];
	}
	return if !($case->{again} && $phase eq 'done' && $s->{"q$i"} eq $own);
	return [ "$name looks for the nonce again", change($s), ['uncache_get'], sub {
		my ($n, $answer) = @_;
		my $token = token_in($answer);
		@{$n}{ "p$i", "k$i", "t$i" } = ('look', $token, '') if $token ne '';
	} ];
}

sub moves
{
	my ($case, $s) = @_;

	return (
		(map { FenceModel::writer_moves($case, $s, $_) } 1 .. @{ $case->{writers} }),
		(map { reader_moves($case, $s, $_) } 1 .. @{ $case->{readers} }),
		(map { FenceModel::beat_moves($case, $s, $_) } 1 .. ($case->{beats} || 0)),
		FenceModel::worker_moves($case, $s), FenceModel::fault_moves($case, $s));
}

1;
