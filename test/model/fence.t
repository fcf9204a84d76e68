#!/usr/bin/perl
#
# Model check of the fence: every interleaving of small cases, driven against
# src/lua/uncache.lua in a redis-server of its own.
#
#	prove test/model/fence.t                       under two minutes
#	UNCACHE_MODEL=long prove -v test/model/fence.t  bigger cases, by hand
#	UNCACHE_MODEL_ONLY=beat ...                    only what has this in its name
#
# First the shipped library: no state of any case may be stale, and from every
# quiet end the key must become cacheable again, for a standby too.  Then each
# rule is taken out in turn, by editing the text of the library or the behaviour
# of the model's worker: now a stale schedule must be found.  It is printed, and
# happens again when played through plain FCALLs.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time);
use PrivateRedis;
use FenceModel;
use FenceSearch;

my $long = ($ENV{UNCACHE_MODEL} || '') eq 'long';
my $only = $ENV{UNCACHE_MODEL_ONLY} || '';

sub slurp
{
	my ($name) = @_;
	open my $file, '<', "$FindBin::Bin/$name" or die "$name: $!";
	local $/;
	return scalar <$file>;
}

# Edit the library: pairs of text and its replacement, each found exactly once.
sub edited
{
	my ($text, @edits) = @_;
	while (my ($from, $to) = splice @edits, 0, 2)
	{
		my @found = $text =~ /\Q$from\E/g;
		die 'found ' . @found . " times in uncache.lua: $from" if @found != 1;
		$text =~ s/\Q$from\E/$to/;
	}
	return $text;
}

# Deadlines of doubts would make every state a new one; a set of 16 xids is
# never full in a small world.
my $hook = slurp('hook.lua');
my $library = edited(slurp('../../src/lua/uncache.lua'),
	"	local time = redis.call('TIME')\n	return time[1] * 1000 + math.floor(time[2] / 1000)",
	'	return 0');
my @small_set = ('local MAX_XIDS = 16', 'local MAX_XIDS = 1');

my %case = (
	'late fills' => {
		writers => [qw(plain plain)], readers => [qw(fresh late)], dups => 1, lose => 1, evict => 1 },
	'three writers, a full set' => {
		edits => \@small_set,
		writers => [qw(plain plain plain)], readers => ['fresh:2'], dups => 1 },
	'old snapshots and a beat' => {
		writers => ['plain'], readers => [qw(old standby:2)], beats => 1, lose => 1 },
	'beats that arrive late or again' => {
		writers => ['plain'], readers => [qw(old standby)], beats => 1, lostbeats => 1, dupbeats => 1 },
	'a pattern' => {
		writers => [qw(plain pattern)], readers => [qw(fresh)], lateepoch => 1, lose => 1 },
	'a pattern and old snapshots' => {
		writers => ['pattern'], readers => [qw(fresh old)], lateepoch => 1, beats => 1 },
	'Redis that forgets' => {
		writers => ['plain'], readers => [qw(fresh fresh)], restart => 1, reload => 1 },
	'Redis that forgets, and old snapshots' => {
		writers => ['plain'], readers => ['old'], beats => 1, restart => 1 },
	'strict' => {
		edits => \@small_set,
		writers => [qw(strict plain)], readers => ['fresh:2'], epochs => 1, latedoubts => 1 },
	'a standby is promoted' => {
		writers => [ 'plain', 'plain@B' ], readers => [qw(fresh replaced)], reload => 1 },
	'a commit lost in a crash' => {
		writers => [ 'plain', 'plain@B' ], readers => [qw(fresh old)], crash => 1, lose => 1,
		xids => { w1 => '9', w2 => '9' } },
);
$case{'a standby is promoted'}{promote} = 1;

my %long_case = (
	'long: patterns' => {
		writers => [qw(plain pattern)], readers => [qw(fresh old)], epochs => 1, lateepoch => 1, beats => 1 },
	'long: everything at once' => {
		writers => [qw(plain pattern)], readers => [qw(fresh old standby:2)], beats => 1, dups => 1,
		evict => 1, lose => 1, restart => 1 },
	'long: three writers, three readers' => {
		edits => \@small_set,
		writers => [qw(plain plain plain)], readers => [qw(fresh old standby:2)], dups => 1, beats => 1 },
	'long: two strict writers' => {
		writers => [qw(strict strict plain)], readers => [qw(fresh fresh old)], latedoubts => 1, lose => 1, epochs => 1 },
	'long: forgetting' => {
		writers => [qw(plain plain)], readers => [qw(fresh fresh old)], restart => 1, reload => 1, dups => 1 },
);

# ---- what is left out, how, and the case that must find it out
my @mutations = (
	[ 'delete the value', 'late fills', "existed[i] = redis.call('UNLINK', key)", 'existed[i] = 0' ],
	[ 'add the xid to the record', 'late fills', 'record.incarnation, record.xids = incarnation, with(record.xids, xid)', '' ],
	[ 'every xid must be visible', 'late fills', 'if not visible(snapshot, record.incarnation, xid) then return false end', '' ],
	[ 'xids at or above xmax are not visible', 'late fills', '(before(xid, snapshot.xmax) and not has(snapshot.xip, xid))', 'not has(snapshot.xip, xid)' ],
	[ 'xids in progress are not visible', 'late fills', ' and not has(snapshot.xip, xid)', '' ],
	[ 'xids compare by length first', 'three writers, a full set', '#a < #b or (#a == #b and a < b)', 'a < b' ],
	[ 'the generation must be the record\'s', 'late fills', 'record.counter == s.counter', 'true' ],
	[ 'no generation is used twice', 'late fills', 'memory.counter = memory.counter + 1', '' ],
	[ 'a full set makes a new record', 'three writers, a full set', 'commas + 1 >= MAX_XIDS', 'false', 'with(record.xids, xid)', 'xid' ],
	[ 'only fresh snapshots do without a beat', 'old snapshots and a beat', "snapshot.fresh == '1'", 'true' ],
	[ 'the beat is of after the birth', 'old snapshots and a beat', 'math.max(record.beats + 1, memory.announced - MAX_BEATS + 1)', '1' ],
	[ 'the beat must be visible', 'old snapshots and a beat', 'return visible(snapshot, beat.incarnation, beat.xid)', 'return true' ],
	[ 'the beat must be confirmed', 'beats that arrive late or again', 'beat.confirmed and ', '' ],
	[ 'a beat is announced once', 'beats that arrive late or again', 'server and before(server.beat, xid)', 'server' ],
	[ 'a pattern sets an epoch', 'a pattern', { no_pattern_epoch => 1 } ],
	[ 'the token is of the node\'s epoch', 'a pattern', 's.epoch ~= memory.epoch', 'false', ],
	[ 'the record is of the node\'s epoch', 'a pattern', 'record.epoch == s.epoch and ', '', 'record and record.epoch == memory.epoch', 'record' , 'return {false, record.epoch', 'return {false, memory.epoch' ],
	[ 'no epoch comes twice', 'a pattern', "args[1] .. '.' .. memory.epochs", 'args[1]' ],
	[ 'the epoch is not in the data', 'Redis that forgets', { locals_in_image => 1 } ],
	[ 'doubts must be visible', 'strict', "if not visible(snapshot, incarnation, xid) then return false end\n\tend\n\treturn true", "end return true" ],
	[ 'a doubt makes a record', 'strict', 'record or string.byte(entry) == 63', 'record' ],
	[ 'a full set keeps the doubts', 'strict', 'new_record(record.doubts)', "new_record('')" ],
	[ 'a new epoch keeps the doubts', 'strict', "new_record(record and record.doubts or '')", "new_record('')" ],
	[ 'xids are of the snapshot\'s incarnation', 'a commit lost in a crash', "incarnation == snapshot.incarnation\n\t\tand ", '', 'if not (server and server.live) then return false end', '', 's.epoch ~= memory.epoch', 'false', 'record.epoch == s.epoch', 'true' ],
	[ 'a replaced primary is not live', 'a standby is promoted', 'if not (server and server.live) then return false end', '' ],
);

# ---- liveness

# One reader; returns 1 where its fill was stored.
sub fill_by
{
	my ($model, $case, $s, $fresh) = @_;
	my $step = sub {
		return FenceSearch::step_answer($s,
			$model->{redis}->call(@{ FenceSearch::step_command($s, @_) }));
	};
	my $token = $step->('uncache_get') =~ /^~,([^~]+)/ ? $1 : '';
	my $n = scalar FenceModel::history($s);
	my ($text, $value) = FenceModel::snapshot($case, $s, $n, $s->{t}, $fresh);
	return $step->('uncache_set', "$token:$text", 1000, $value);
}

# Returns what is wrong with a quiet end, or ''.
sub stuck
{
	my ($model, $case, $s) = @_;
	my $call = sub {
		return FenceSearch::step_answer($s,
			$model->{redis}->call(@{ FenceSearch::step_command($s, @_) }));
	};
	$s = { %$s, v => '' };
	return 'there is no epoch' if !FenceModel::has_epoch($s);
	return 'a fresh reader is refused' if !fill_by($model, $case, $s, 1);

	# an older snapshot may be refused once, then one beat later it is not
	$s->{v} = '';
	if (!fill_by($model, $case, $s, 0))
	{
		$s->{b3} = 0;
		$call->('uncache_beat', 'announce', $s->{t}, FenceModel::xid($case, 'b3'));
		FenceModel::add_history($s, 'b3');
		$call->('uncache_beat', 'confirm', $s->{t}, FenceModel::xid($case, 'b3'));
		return 'a standby is refused, one beat later' if !fill_by($model, $case, $s, 0);
	}
	return '';
}

# ---- run

my $redis = PrivateRedis->start;
diag 'redis-server ' . ($redis->call('INFO', 'server') =~ /redis_version:(\S+)/)[0];
my %all = $long ? (%case, %long_case) : %case;

for my $name (grep { index($_, $only) >= 0 } sort keys %all)
{
	my $case = $all{$name};
	my $model = FenceSearch->new($redis, edited($library, @{ $case->{edits} || [] }));
	my $begin = time;
	my $found = $model->search($hook, $case);
	my @schedule = @{ $found->{path} || [] };

	ok(!$found->{stale}, "$name: nothing stale")
	  or diag join "\n", $found->{stale}, map { "  $_" } @schedule;
	my @ends = values %{ $found->{ends} };
	my @stuck = grep { $_ ne '' } map { stuck($model, $case, $_) } @ends;
	ok(@ends && !@stuck, "$name: cacheable again")
	  or diag @ends . ' ends, stuck: ' . join ', ', @stuck;
	diag sprintf '%s: %d states, %d moves, %d ends, %.1f s', $name, $found->{states}, $found->{moves},
	  scalar @ends, time - $begin;
}

for my $mutation (grep { index($_->[0], $only) >= 0 } @mutations)
{
	my ($rule, $name, @edits) = @$mutation;
	my %change = ref $edits[0] ? %{ shift @edits } : ();
	my $case = { %{ $case{$name} }, %change };
	my $model = FenceSearch->new($redis, edited($library, @{ $case->{edits} || [] }, @edits));
	my $found = $model->search($hook, $case);
	my @schedule = @{ $found->{path} || [] };

	ok($found->{stale}, "without the rule \"$rule\" a stale schedule is found") or next;
	note join "\n", "without \"$rule\":", (map { "    $_" } @schedule), "    => $found->{stale}";
	next if $case->{locals_in_image};
	is($model->replay($case, @schedule), $found->{stale}, '... and it happens with plain FCALLs');
}

done_testing;
