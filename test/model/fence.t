#!/usr/bin/perl
#
# Model check of the fence: every interleaving of small cases, driven against
# src/fence/uncache.lua in a redis-server of its own.
#
#	prove test/model/fence.t                       about five minutes of CPU time
#	UNCACHE_MODEL=long prove -v test/model/fence.t  bigger cases, by hand (many
#	                                               minutes, 1 GB of memory)
#	UNCACHE_MODEL_ONLY=beat ...                    only what has this in its name
#
# First the shipped library: no state of any case may be stale, and from every
# quiet end the key must become cacheable again, for a standby too.  The cases of
# FenceModel.pm are of one server, and of what replaces it; those of ServersModel.pm of
# two at one Redis; those of TagsModel.pm of pages under the nonce of a tag.  In four of the
# second kind reclaim_fence() is called only on a server that knows that it is superseded; the
# long run has two of them without that.  Then each rule is taken out in turn, by editing the
# text of the library or the behaviour of the model's worker or reader: now a stale schedule
# must be found.  It is printed, and happens again when played through plain FCALLs.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(time);
use PrivateRedis;
use FenceModel;
use FenceSearch;
use ServersModel;
use TagsModel;

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

# Deadlines of doubts would make every state a new one; a set of 64 xids is
# never full in a small world.  A moment is the number of times that Redis has forgotten,
# which FenceModel.pm puts into the memory of the functions.
my $hook = slurp('hook.lua');
my $library = edited(slurp('../../src/fence/uncache.lua'),
	"	local time = redis.call('TIME')\n	return time[1] * 1000 + math.floor(time[2] / 1000)",
	'	return 0',
	"('%x%05x'):format(time[1], time[2])", "('%d'):format(memory.moment or 0)");
my @small_set = ('local MAX_XIDS = 64', 'local MAX_XIDS = 1');
my @small_record = (@small_set, 'local MAX_RECORD = 4096', 'local MAX_RECORD = 60');	# one doubt

my %case = (
	'late fills' => {
		writers => [qw(plain plain)], readers => [qw(fresh late)], dups => 1,
			lose => 1, evict => 1 },
	'three writers, a full set' => {
		edits => \@small_set,
		writers => [qw(plain plain plain)], readers => ['fresh:2'], dups => 1 },
	'Redis that forgets, and a late epoch' => {
		writers => ['plain'], readers => [qw(fresh fresh)], reload => 1, lateepoch => 1,
			lose => 1 },
	'Redis that forgets, and a beat that arrives again' => {
		writers => ['plain'], readers => [qw(standby)], beats => 1, reload => 1,
			dupbeats => 1, next => 1 },
	'leases' => {
		writers => [qw(plain plain)], readers => [qw(fresh+ late+)] },
	'leases, and strict' => {
		writers => [qw(strict)], readers => [qw(fresh+ refresh+)], lose => 1 },
	'leases, and old snapshots' => {
		writers => ['plain'], readers => [qw(old+ standby+)], beats => 1 },
	'leases, and Redis that forgets' => {
		writers => ['plain'], readers => [qw(fresh+ fresh+)], reload => 1, lose => 1 },
	'old snapshots and a beat' => {
		writers => ['plain'], readers => [qw(old standby:2)], beats => 1, lose => 1 },
	'beats that arrive late or again' => {
		writers => ['plain'], readers => [qw(old standby)], beats => 1,
			lostbeats => 1, dupbeats => 1 },
	'a pattern' => {
		writers => [qw(plain pattern)], readers => [qw(fresh)], lateepoch => 1, lose => 1 },
	'a pattern and old snapshots' => {
		writers => ['pattern'], readers => [qw(fresh old)], lateepoch => 1, beats => 1 },
	'Redis that forgets' => {
		writers => ['plain'], readers => [qw(fresh fresh)], restart => 1, reload => 1 },
	'Redis that forgets, and old snapshots' => {
		writers => ['plain'], readers => ['old'], beats => 1, restart => 1 },
	'strict, a full set' => {
		edits => \@small_set,
		writers => [qw(strict plain plain)], readers => ['fresh'] },
	'a slot that moves' => {
		writers => [qw(plain plain)], readers => ['fresh:2'], moved => 1 },
	'strict' => {
		edits => \@small_set,
		writers => [qw(strict plain)], readers => ['fresh:2'], epochs => 1, latedoubts => 1 },
	'strict, no COMMIT waits' => {
		writers => ['strict'], readers => [qw(fresh standby)], beats => 1 },
	'strict, no COMMIT waits, one is lost in a crash' => {
		writers => [ 'strict', 'strict@B' ], readers => [qw(fresh old)], crash => 1,
		xids => { w1 => '9', w2 => '9' } },
	'strict, no COMMIT waits, Redis forgets' => {
		writers => ['strict'], readers => [qw(standby)], beats => 1, reload => 1, next => 1,
		latedoubts => 1 },
	'a record without room' => {
		edits => \@small_record,
		writers => [qw(strict strict)], readers => ['fresh'], lose => 1, latedoubts => 1 },
	'a record without room for an xid' => {
		edits => [ @small_set, 'local MAX_RECORD = 4096', 'local MAX_RECORD = 50' ],
		writers => [qw(strict plain)], readers => [qw(fresh:2)], dups => 1 },
	'refreshing' => {
		writers => [qw(plain strict)], readers => [qw(fresh refresh)], lose => 1 },
	'a standby is promoted' => {
		writers => [ 'plain', 'plain@B' ], readers => [qw(fresh replaced)],
		promote => 1, oldworker => 1 },
	'a standby is promoted, Redis forgets' => {
		writers => [ 'plain', 'plain@B' ], readers => [qw(fresh replaced)],
			promote => 1, reload => 1 },
	'a commit lost in a crash' => {
		writers => [ 'plain', 'plain@B' ], readers => [qw(fresh old)], crash => 1, lose => 1,
		xids => { w1 => '9', w2 => '9' } },
);

my @two = (world => 'ServersModel');
my %servers_case = (
	'servers: a copy is promoted' => {
		@two, writers => ['plain@A'], readers => [qw(A B)], reclaims => 'A' },
	'servers: a copy is promoted, Redis forgets' => {
		@two, knowing => 1, writers => ['plain@A'], readers => [qw(B)], reclaims => 'A',
		reload => 1 },
	'servers: reclaimed, then a copy comes' => {
		@two, early => 1, writers => ['plain@A'], readers => [qw(B)], reclaims => 'A' },
	'servers: both reclaim' => {
		@two, knowing => 1, writers => ['plain@A'], readers => [qw(B)], reclaims => 'AB' },
	'servers: a copy, started again' => {
		@two, knowing => 1, writers => ['plain@A'], readers => [qw(B)], reclaims => 'A',
		restarts => 'B' },
	'servers: a copy, production started again' => {
		@two, knowing => 1, writers => ['plain@A'], readers => [qw(B)], reclaims => 'A',
		restarts => 'A' },
	'servers: a failover' => {
		@two, successor => 1, writers => [qw(plain@A plain@B)], readers => [qw(A)] },
	'servers: a failover, Redis forgets' => {
		@two, successor => 1, writers => [qw(plain@A plain@B)], readers => [qw(A)], reload => 1 },
	'servers: the one that was replaced is promoted again' => {
		@two, promote => 1, writers => [qw(plain@A)], readers => [qw(B)] },
	'servers: equal timelines' => {
		@two, timeline => 1, writers => [qw(plain@A)], readers => [qw(B)], reclaims => 'A' },
	'servers: equal timelines, started again' => {
		@two, timeline => 1, writers => [qw(plain@A)], readers => [qw(B)], restarts => 'A' },
	'servers: strict' => {
		@two, writers => [qw(strict@A)], readers => [qw(A)], reclaims => 'A' },
	'servers: strict, and a failover' => {
		@two, successor => 1, writers => [qw(strict@A)], readers => [qw(B)] },
	'servers: strangers' => {
		@two, stranger => 1, writers => [qw(plain@B)], readers => [qw(A)], reclaims => 'B' },
	'servers: strangers, Redis forgets' => {
		@two, stranger => 1, writers => [qw(plain@B)], readers => [qw(A)], reclaims => 'B',
		reload => 1 },
);

my @tags = (world => 'TagsModel');
my %tags_case = (
	'tags: a page of fresh readers' => {
		@tags, writers => [qw(plain plain)], readers => [qw(fresh/fresh fresh/fresh)] },
	'tags: a page read on a standby' => {
		@tags, writers => ['plain'], readers => [qw(fresh/standby)], beats => 1, lose => 1 },
	'tags: a page of an old snapshot' => {
		@tags, writers => ['plain'], readers => [qw(fresh/old standby/fresh)], beats => 1 },
	'tags: Redis forgets' => {
		@tags, writers => ['plain'], readers => [qw(fresh/fresh fresh/fresh)], reload => 1,
			evict => 1 },
);
%case = (%case, %servers_case, %tags_case);

my %long_case = (
	'long: patterns and beats' => {
		writers => [qw(plain pattern)], readers => [qw(fresh old)], beats => 1 },
	'long: two old snapshots' => {
		writers => [qw(plain plain)], readers => [qw(old standby)], beats => 1 },
	'long: three writers, two readers' => {
		edits => \@small_set,
		writers => [qw(plain plain plain)], readers => [qw(fresh fresh)], lose => 1 },
	'long: two strict writers' => {
		edits => \@small_set,
		writers => [qw(strict strict plain)], readers => [qw(fresh fresh)] },
	'long: strict, no COMMIT waits' => {
		writers => [qw(strict plain)], readers => [qw(fresh standby)], beats => 1 },
	'long: strict, no COMMIT waits, Redis forgets' => {
		writers => ['strict'], readers => [qw(fresh standby)], beats => 1, reload => 1,
		latedoubts => 1, next => 1 },
	'long: servers: both reclaim at once' => {
		@two, writers => ['plain@A'], readers => [qw(B)], reclaims => 'AB' },
	'long: servers: a copy is promoted, Redis forgets' => {
		@two, writers => ['plain@A'], readers => [qw(B)], reclaims => 'A', reload => 1 },
	'long: forgetting' => {
		writers => [qw(plain plain)], readers => [qw(fresh fresh)], restart => 1, reload => 1 },
);

# ---- what is left out, how, and the case that must find it out
my @mutations = (
	[ 'delete the value', 'late fills', "redis.call('UNLINK', unpack(keys))", '0' ],
	[ 'add the xid to the record', 'late fills',
		'record.incarnation, record.xids = incarnation, with(record.xids, xid)', '' ],
	[ 'every xid must be visible', 'late fills',
		'if not visible(snapshot, record.incarnation, xid) then return false end', '' ],
	[ 'xids at or above xmax are not visible', 'late fills',
		'(before(xid, snapshot.xmax) and not runs(snapshot, xid))', 'not runs(snapshot, xid)' ],
	[ 'xids in progress are not visible', 'late fills', ' and not runs(snapshot, xid)', '' ],
	[ 'xids compare by length first', 'three writers, a full set',
		'#a < #b or (#a == #b and a < b)', 'a < b' ],
	[ 'the generation must be the record\'s', 'late fills', 'record.counter == s.counter', 'true' ],
	[ 'no generation is used twice', 'late fills', 'memory.counter = memory.counter + 1', '' ],
	[ 'a full set makes a new record', 'three writers, a full set', 'commas + 1 >= MAX_XIDS',
		'false', 'with(record.xids, xid)', 'xid' ],
	[ 'only fresh snapshots do without a beat', 'old snapshots and a beat',
		"snapshot.fresh == '1'", 'true' ],
	[ 'the beat is of after the birth', 'old snapshots and a beat',
		'math.max(record.beats + 1, memory.announced - MAX_BEATS + 1)', '1' ],
	[ 'the beat must be visible', 'old snapshots and a beat',
		'return visible(snapshot, beat.incarnation, beat.xid)', 'return true' ],
	[ 'the beat must be confirmed', 'beats that arrive late or again', 'beat.confirmed and ', '' ],
	[ 'a beat is announced once', 'beats that arrive late or again',
		'life and before(life.xid, xid)', 'life' ],
	[ 'a beat commits after it is announced', 'old snapshots and a beat', { early_commit => 1 } ],
	[ 'the snapshot is not younger than the read', 'late fills', { readers => [qw(early)] } ],
	[ 'a pattern sets an epoch', 'a pattern', { no_pattern_epoch => 1 } ],
	[ 'the token is of the node\'s epoch', 'a pattern',
		's.incarnation and s.epoch == memory.epoch and is_live', 's.incarnation and is_live' ],
	[ 'the record is of the node\'s epoch', 'a slot that moves',
		'record.epoch == s.epoch and ', '' ],
	[ 'no epoch comes twice', 'a pattern', "('%s.%d.%s'):format(args[1], memory.epochs, moment())",
		'args[1]' ],
	[ 'no epoch comes twice, also when Redis has forgotten it',
		'Redis that forgets, and a late epoch', ', memory.epochs, moment())',
		', memory.epochs, 0)' ],
	[ 'no beat comes twice, also when Redis has forgotten it',
		'Redis that forgets, and a beat that arrives again',
		"is_new and (args[10] or '0') or life.next", 'life.next' ],
	[ 'the epoch is not in the data', 'Redis that forgets', { locals_in_image => 1 } ],
	[ 'doubts must be visible', 'strict',
		"if not visible(snapshot, incarnation, xid) then return false end\n\tend\n\treturn true",
		"end return true" ],
	[ 'strict without a wait: all readers are fenced', 'strict, no COMMIT waits',
		{ readers => [qw(fresh plain)] } ],
	[ 'a doubt makes a record', 'strict', "record or (name and mark ~= '')", 'record' ],
	[ 'values go before a strict commit', 'strict', "redis.call('UNLINK', unpack(keys))",
		"args[3]:find('?', 1, true) and 0 or redis.call('UNLINK', unpack(keys))" ],
	[ 'a doubt without room is refused', 'a record without room',
		'MAX_RECORD then return false end', 'MAX_RECORD then return true end' ],
	[ 'a doubt renewed without room closes the record', 'a record without room',
		'if ttl and #text > MAX_RECORD then return close_record(name, text, ttl) end',
		'if ttl and #text > MAX_RECORD then return end' ],
	[ 'a record without room for an xid is born again', 'a record without room for an xid',
		'if #text_of(record) > MAX_RECORD then record = new_record(record.doubts) end',
		"if #text_of(record) > MAX_RECORD then record.xids = '' end" ],
	[ 'a closed record is not born again', 'a record without room',
		"#text > MAX_RECORD or text:find(CLOSED, 1, true) == 1", 'false' ],
	[ 'a full set keeps the doubts', 'strict, a full set',
		"\t\t\trecord = new_record(record.doubts)\n", "\t\t\trecord = new_record('')\n" ],
	[ 'a new epoch keeps the doubts', 'strict',
		"new_record(record and doubts_without(record.doubts) or '')", "new_record('')" ],
	[ 'xids are of the snapshot\'s incarnation', 'a commit lost in a crash',
		"incarnation == snapshot.incarnation\n\t\tand ",
		'', "s.epoch == memory.epoch and is_live(s.incarnation, key)",
		'memory.incarnations[s.incarnation]', 'record.epoch == s.epoch', 'true' ],
	[ 'a lease proves nothing', 'leases', 'and saw_invalidations(s, record)',
		"and (s.lease ~= '' or saw_invalidations(s, record))" ],
	[ 'a lease makes no snapshot young', 'leases, and old snapshots',
		'and saw_birth(s, record)', "and (s.lease ~= '' or saw_birth(s, record))" ],
	[ 'a replaced primary is not live', 'a standby is promoted',
		"is_live(s.incarnation, key)", 'memory.incarnations[s.incarnation]' ],
	[ 'a lower timeline is not live', 'a standby is promoted',
		'(a.claim == b.claim and a.timeline > b.timeline)', 'false' ],
	[ 'a worker that delivers has said who it is', 'a standby is promoted',
		"if not life then\n\t\treturn redis.error_reply('UNREG",
		"life = life or {highest = '0'}\n\tif false then\n\t\treturn redis.error_reply('UNREG" ],
);

my @servers_mutations = (
	[ 'servers: the higher claim supersedes', 'servers: a copy is promoted',
		'if not (other.by and outranks(other.by, life)) then supersede(other, name, life) end',
		'' ],
	[ 'servers: an outranked server is superseded when it calls',
		'servers: a copy, started again',
		'elseif not outranked then', 'elseif false then' ],
	[ 'servers: a server that was superseded has an epoch of its own',
		'servers: a copy is promoted',
		'if not life.by and not was_live then memory.epoch = nil end', '' ],
	[ 'servers: Redis knows that others have stored something', 'servers: a copy is promoted',
		"other.clean then\n\t\t\tother.clean = false",
		"other.clean then\n\t\t\tother.clean = true" ],
	[ 'servers: Redis does not know that others stored nothing before',
		'servers: a copy, production started again',
		'if is_new and life.by then life.clean = false end', '' ],
	[ 'servers: a server that takes the fence back flushes', 'servers: a copy is promoted',
		{ no_flush => 1 } ],
	[ 'servers: a superseded server keeps that in mind', 'servers: a failover, Redis forgets',
		{ forgetful => 1 } ],
	[ 'servers: Redis believes a server that says that it is superseded',
		'servers: a copy is promoted, Redis forgets',
		"if superseded == 'server' and claim >= life.claim and not life.by then",
		'if false then' ],
	[ 'servers: a claim holds for copies that come later',
		'servers: reclaimed, then a copy comes', { place_only => 1 } ],
	[ 'servers: a server that is promoted again flushes',
		'servers: the one that was replaced is promoted again', { no_flush => 1 } ],
	[ 'servers: a replaced primary is not live', 'servers: a failover',
		'if not life or life.by then return false end', 'if not life then return false end' ],
	[ 'servers: of equal timelines the newer life replaces the older',
		'servers: equal timelines',
		"if other.number < life.number then\n\t\tif not other.by then supersede(other, "
			. "name, life) end",
		'if other.number < life.number then',
		"elseif not life.by then\n\t\tsupersede(life, other_name, other)",
		'elseif not life.by then' ],
	[ 'servers: of equal timelines neither fills', 'servers: equal timelines',
		"elseif told == other_name then\n\t\tif not other.by then supersede(other, name, life) end",
		'elseif told == other_name then' ],
	[ 'servers: a strict commit of a superseded server is refused', 'servers: strict',
		'live = false', '' ],
	[ 'servers: a server that lays claim supersedes strangers', 'servers: strangers',
		"there.by = {incarnation = name, claim = place.claim}", '' ],
	[ 'servers: readers of strangers are refused', 'servers: strangers',
		'if place.by and key:sub(1, #place.prefix) == place.prefix then return false end', '' ],
	[ 'servers: a server that takes a place flushes', 'servers: strangers', { no_flush => 1 } ],
	[ 'servers: Redis believes a server that says that it has lost a place',
		'servers: strangers, Redis forgets',
		"elseif superseded == 'place' and place_claim >= place.claim and not place.by then",
		'elseif false then' ],
);

my @tags_mutations = (
	[ 'tags: the token of a page is taken after the nonce was filled',
		'tags: a page read on a standby', { reversed => 1 } ],
	[ 'tags: likewise in REPEATABLE READ', 'tags: a page of an old snapshot',
		{ reversed => 1 } ],
	[ 'tags: a nonce is never stored again', 'tags: a page of fresh readers', { again => 1 } ],
	[ 'tags: a page is not stored by SET', 'tags: a page read on a standby', { plain_page => 1 } ],
);

# left out, these do not let anything stale in, but keys stay uncacheable
my @liveness_mutations = (
	[ 'a miss makes a record of this epoch', 'Redis that forgets',
		'record and record.epoch == memory.epoch', 'record' ],
	[ 'a refused fill asks for a beat', 'old snapshots and a beat',
		'memory.incarnations[snapshot.incarnation].wanted = true', '' ],
	[ 'an unconfirmed beat is not waited for',
		'beats that arrive late or again', 'if beat.confirmed and beat',
		'if beat', 'return visible(snapshot, beat.incarnation, beat.xid)',
		'return beat.confirmed and visible(snapshot, beat.incarnation, beat.xid) or false' ],
	[ 'a lease expires', 'leases', 'return left > 0 and left <= MAX_LEASE and left or 0',
		"return record.lease ~= '' and MAX_LEASE or 0" ],
	[ 'the holder ends the lease', 'leases', 'if not (is_holder or is_empty) then return end',
		'if not is_empty then return end' ],
	[ 'a holder that does not store ends the lease', 'leases',
		'if not (is_holder or is_empty) then return end',
		'if not is_holder then return end' ],
	[ 'an invalidation ends the lease', 'leases', "record.filled, record.lease = '', ''",
		"record.filled = ''" ],
	[ 'a lease refuses no fill', 'leases', "record.counter == s.counter\n\t\tand saw",
		"record.counter == s.counter\n\t\tand (record.lease == '' or s.lease ~= '') and saw" ],
	[ 'servers: a superseded server adds no xid', 'servers: a failover',
		'if is_live(incarnation, keys[i]) then', 'if true then' ],
	[ 'servers: a superseded server takes its doubts out', 'servers: strict, and a failover',
		"take_out(keys[i], incarnation .. '/' .. xid)", '' ],
	[ 'servers: a claim outranks a timeline', 'servers: a copy is promoted',
		'return a.claim > b.claim or (a.claim == b.claim and a.timeline > b.timeline)',
		'return a.timeline > b.timeline' ],
);

# ---- liveness

# One reader; returns what uncache_set did, and whether that asked for a beat.
sub fill_by
{
	my ($case, $s, $step, $fresh) = @_;
	my ($answer) = $step->('uncache_get');
	my $token = $answer =~ /^~,([^~]+)/ ? $1 : '';
	my ($text, $value) = FenceSearch::world($case)->can('snapshot_now')->($case, $s, $fresh);
	return $step->('uncache_set', "$token:$text", 1000, $value);
}

# What is wrong with the lease of the key at a quiet end, or ''.
sub lease_stuck
{
	my ($case, $s, $step) = @_;
	my $take = sub { my ($answer) = $step->('uncache_get', 60000); return $answer };
	my $is_wait = sub { return $_[0] =~ /^~,~,[1-9]/ };
	my $is_token = sub { return $_[0] =~ /^~,[^~]/ };
	my ($text, $value) = FenceModel::snapshot_now($case, $s, 1);

	$s->{v} = '';
	my $answer = $take->();
	return "a lease lasts after all: $answer" if !$is_token->($answer);
	return 'a second reader has the lease, too' if !$is_wait->($take->());
	my ($stored) = fill_by($case, $s, $step, 1);
	return 'a reader without a lease is refused' if !$stored;
	$s->{v} = '';
	$step->('uncache_set', substr($answer, 2) . ":$text", 1000, $value);
	$s->{v} = '';
	return 'its holder has filled, the lease lasts' if !$is_token->($answer = $take->());
	$step->('uncache_set', substr($answer, 2), 1000, '');
	return 'its holder has given up, the lease lasts' if !$is_token->($take->());
	$step->('uncache_set', '', 1000, '');
	return 'its holder has no snapshot, the lease lasts' if !$is_token->($take->());
	$step->('uncache_invalidate', 1000, $s->{t}, FenceModel::xid($case, 'w1'));
	return 'the key is invalidated, the lease lasts' if !$is_token->($take->());
	$s->{r} =~ s/:\d+\@\d+$/:1\@0/;	# its deadline is over
	return 'the lease has expired, and lasts' if !$is_token->($take->());
	return '';
}

# Returns what is wrong with a quiet end, or ''.
sub stuck
{
	my ($model, $case, $end) = @_;
	my $s = { %$end, v => '' };
	my $step = sub {
		my @command = @{ FenceSearch::step_command($s, @_) };
		return FenceSearch::step_answer($s, $model->{redis}->call(@command));
	};

	return 'reclaim_fence() is not confirmed' if $s->{rcA} || $s->{rcB};
	return '' if !FenceSearch::world($case)->can('must_fill')->($case, $s);
	return 'there is no epoch' if !FenceModel::has_epoch($s);
	my ($stored) = fill_by($case, $s, $step, 1);
	# A worker that comes after a crash renews no doubt of before.
	my $is_doubted = grep { $case->{writers}[ $_ - 1 ] =~ /^strict/ && $s->{"w$_"} eq 'lost' }
	  1 .. @{ $case->{writers} };
	if ($s->{r} =~ /^closed@/ || (!$stored && $is_doubted))
	{
		$s->{r} = '';	# it has expired, in the end
		($stored) = fill_by($case, $s, $step, 1);
	}
	return 'a fresh reader is refused' if !$stored;

	return '' if $case->{world};	# of one server, as below

	my $lease = grep({ /\+/ } @{ $case->{readers} }) ? lease_stuck($case, $s, $step) : '';
	return $lease if $lease ne '';

	# an older snapshot may be refused once, if that brings a beat
	$s->{v} = '';
	($stored, my $wanted) = fill_by($case, $s, $step, 0);
	return '' if $stored;
	return 'a standby is refused, and no beat wanted' if !$wanted;
	my @beat = ($s->{t}, FenceModel::xid($case, 'b3'));
	$s->{b3} = 0;
	$step->('uncache_beat', 'announce', @beat);
	FenceModel::add_history($s, 'b3');
	$step->('uncache_beat', 'confirm', @beat);
	($stored) = fill_by($case, $s, $step, 0);
	return $stored ? '' : 'a standby is refused, one beat later';
}

# ---- run

my $redis = PrivateRedis->start;

# Seconds of CPU, of this process and of Redis.
sub cpu
{
	my ($own) = times;
	my $info = $redis->call('INFO', 'cpu');
	return $own + ($info =~ /used_cpu_user:([\d.]+)/)[0];
}

diag 'redis-server ' . ($redis->call('INFO', 'server') =~ /redis_version:(\S+)/)[0];
my %all = $long ? (%case, %long_case) : %case;

for my $name (grep { index($_, $only) >= 0 } sort keys %all)
{
	my $case = $all{$name};
	my $model = FenceSearch->new($redis, edited($library, @{ $case->{edits} || [] }));
	my $begin = cpu();
	my $found = $model->search($hook, $case);
	my @schedule = @{ $found->{path} || [] };

	ok(!$found->{stale}, "$name: nothing stale")
	  or diag join "\n", $found->{stale}, map { "  $_" } @schedule;
	my @ends = values %{ $found->{ends} };
	my @stuck = grep { $_ ne '' } map { stuck($model, $case, $_) } @ends;
	ok(@ends && !@stuck, "$name: cacheable again")
	  or diag @ends . ' ends, stuck: ' . join ', ', @stuck;
	diag sprintf '%s: %d states, %d moves, %d ends, %.1f s', $name,
		$found->{states}, $found->{moves},
	  scalar @ends, cpu() - $begin;
}

for my $mutation (grep { index($_->[0], $only) >= 0 } @mutations, @servers_mutations,
	@tags_mutations)
{
	my ($rule, $name, @edits) = @$mutation;
	my %change = ref $edits[0] ? %{ shift @edits } : ();
	my $case = { %{ $case{$name} }, %change };
	my $model = FenceSearch->new($redis, edited($library, @{ $case->{edits} || [] }, @edits));
	my $found = $model->search($hook, $case);
	my @schedule = @{ $found->{path} || [] };

	ok($found->{stale}, "without the rule \"$rule\" a stale schedule is found") or next;
	note join "\n", "without \"$rule\":", (map { "    $_" } @schedule), "    => $found->{stale}";
	# In a replay there is one key, and no image of the functions' memory.
	next if $case->{locals_in_image} || ($case->{world} || '') eq 'TagsModel';
	is($model->replay($case, @schedule), $found->{stale}, '... and it happens with plain FCALLs');
}

for my $mutation (grep { index($_->[0], $only) >= 0 } @liveness_mutations)
{
	my ($rule, $name, @edits) = @$mutation;
	my $case = $case{$name};
	my $model = FenceSearch->new($redis, edited($library, @{ $case->{edits} || [] }, @edits));
	my $found = $model->search($hook, $case);
	my ($stuck) = grep { $_ ne '' } map { stuck($model, $case, $_) } values %{ $found->{ends} };

	ok($stuck, "without the rule \"$rule\" a key stays uncacheable");
	note "without \"$rule\": $stuck" if $stuck;
}

# The shipped text, unedited, through plain FCALLs alone.
my $seed = srand($ENV{UNCACHE_MODEL_SEED} || time);
my %wide = (
	writers => [qw(plain strict pattern plain)],
		readers => [qw(fresh:3 late:2 old:2 standby:3 refresh:2 fresh+:3 old+:2)], beats => 2,
	dups => 1, latedoubts => 1, evict => 1, lose => 1, restart => 1, reload => 1,
		epochs => 1, lateepoch => 1, dupbeats => 1, lostbeats => 1, next => 1);
my $walks = $only ne '' ? 0 : $long ? 5000 : 150;
my (@bad, $steps);
for (1 .. $walks)
{
	my ($stale, @path) = FenceSearch->new($redis,
		slurp('../../src/fence/uncache.lua'))->walk(\%wide);
	$steps += @path;
	push @bad, join "\n", @path, $stale if $stale;
}
if ($walks)
{
	is("@bad[0 .. ($#bad < 0 ? -1 : 0)]", '',
		"$walks random walks with plain FCALLs, $steps steps, seed $seed");
}

done_testing;
