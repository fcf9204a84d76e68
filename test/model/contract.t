#!/usr/bin/perl
#
# What src/fence/uncache.lua promises beyond the model check: arguments and
# errors, expiry, names in a Cluster, rights, maxmemory, and what Redis itself
# does with the memory of a function library.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Time::HiRes qw(sleep time);
use PrivateRedis;

open my $file, '<', "$FindBin::Bin/../../src/fence/uncache.lua" or die "uncache.lua: $!";
my $library = do { local $/; <$file> };
my $redis = PrivateRedis->start;
my $TTL = 300000;

sub fcall
{
	my ($name, $keys, @args) = @_;
	return $redis->call('FCALL', "uncache_$name", scalar @$keys, @$keys, @args);
}

sub load_library
{
	return $redis->call('FUNCTION', 'LOAD', 'REPLACE', $library);
}

# A worker of incarnation i1 comes: it says who it is, and sets an epoch.
my $epochs = 0;
sub worker_comes
{
	fcall('status', [], 'sys', 1, 'i1');
	return fcall('epoch', [], 'e' . ++$epochs, $_[0] || $TTL);
}

# A miss, then a fill from a fresh snapshot that sees everything below xmax.
sub token { return fcall('get', [ $_[0] ])->[1] }

sub fill
{
	my ($key, $xmax, $value, $token) = @_;
	$token //= token($key) // '';
	return fcall('set', [$key], "$token:i1:1:$xmax:$xmax:", 60000, $value // 'x');
}

sub wait_for
{
	my ($what) = @_;
	my $deadline = time + 10;
	while (time < $deadline) { return 1 if $what->(); sleep 0.02 }
	return 0;
}

# ---- without worker, without epoch
is(load_library(), 'uncache', 'the library loads');
is_deeply(fcall('get', ['k']), [ undef, undef ], 'no epoch: a miss without token');
is($redis->call('EXISTS', 'uncache:{k}'), 0, '... and without a record');
is(fcall('set', ['k'], 'e.1:1:i1:1:9:9:', 1000, 'x'), 0, '... and the fill is refused');
like(fcall('invalidate', ['k'], $TTL, 'i1', 7), qr/^UNREGISTERED /,
	'a worker that delivers must have said who it is');
is_deeply([ @{ fcall('status', [], 'sys', 1, 'i1') }[ 0 .. 2 ] ], [ 3, undef, 0 ],
	'status: version, no epoch, no beat wanted');
my $epoch = fcall('epoch', [], 'abc', $TTL);
like($epoch, qr/^abc\.1\.[0-9a-f]+$/, 'an epoch is set');
is(fcall('status', [], 'sys', 1, 'i1')->[1], $epoch, '... and seen');
is(fcall('status', [], 'sys', 0, 'i0')->[1], undef, 'an incarnation of a lower timeline sees none');
is(fcall('status', [], 'sys', 1, 'i1')->[1], $epoch, '... and disturbs nobody');
is(fcall('epoch', [], '', $TTL), undef, 'an epoch is cleared');
is_deeply(fcall('get', ['k']), [ undef, undef ], '... and no token is given');

# ---- arguments
worker_comes();
my $ms = 'must be a positive whole number of milliseconds';
my $of_invalidate = 'takes 1 to 5000 keys, fence_ttl, incarnation and one entry for each key';
my $of_entry = 'an entry must be a transaction id, after ? or ! if it is in doubt';
my $number = 'must be a whole number of at most 10 digits';
my $of_lease = 'lease_ms must be a whole number of milliseconds from 1 to 60000';
my $of_report = 'takes no keys, checked, a number, stale and a number';
my $of_status = 'takes no keys, server, timeline and incarnation, or these with database, '
  . 'prefix, claim, place_claim, superseded, told and next_xid';
my %wrong = (
	get => [
		[ 'takes 1 key and at most lease_ms, got 0 keys and 0 arguments', [] ],
		[ 'takes 1 key and at most lease_ms, got 1 key and 2 arguments', ['k'], 5, 'x' ],
		[ 'takes 1 key and at most lease_ms, got 2 keys and 0 arguments', [ 'k', 'l' ] ],
		map { [ "$of_lease, got '$_'", ['k'], $_ ] } '', 0, -1, '5s', '1.5', 60001, '05',
			'1e3', 'x' x 7 ],
	token => [
		[ 'takes 1 key and at most lease_ms, got 0 keys and 0 arguments', [] ],
		[ 'takes 1 key and at most lease_ms, got 1 key and 2 arguments', ['k'], 'x', 'y' ],
		[ "$of_lease, got '60001'", ['k'], 60001 ] ],
	report => [
		[ "$of_report, got 0 keys and 0 arguments", [] ],
		[ "$of_report, got 1 key and 4 arguments", ['k'], 'checked', 1, 'stale', 0 ],
		[ "$of_report, got 0 keys and 4 arguments", [], 'stale', 1, 'checked', 1 ],
		[ "$of_report, got 0 keys and 2 arguments", [], 'checked', 1 ],
		[ "checked $number, got '-1'", [], 'checked', -1, 'stale', 0 ],
		[ "stale $number, got ''", [], 'checked', 1, 'stale', '' ],
		[ "checked $number, got '12345678901'", [], 'checked', 12345678901, 'stale', 0 ],
		[ "stale must not be more than checked, got '2'", [], 'checked', 1, 'stale', 2 ] ],
	set => [
		[ 'takes 1 key, snapshot, ttl_ms and value, got 1 key and 2 arguments', ['k'], '', 1000 ],
		[ 'takes 1 key, snapshot, ttl_ms and value, got 0 keys and 3 arguments',
			[], '', 1000, 'x' ],
		(map { [ "ttl_ms $ms, got '$_'", ['k'], '', $_, 'x' ] } '60s', 0, -1, '', '1.5', ' 5',
			'0x10', '1e3', '05'),
		[ "ttl_ms $ms of at most 15 digits, got '1000000000000000'", ['k'], '',
			'1000000000000000', 'x' ],
		[ "ttl_ms $ms of at most 15 digits, got '" . 'x' x 40 . "...'", ['k'], '', 'x' x 41, 'x' ],
		[ "ttl_ms $ms, got 'a??b??'", ['k'], '', "a\r\nb\xc3\xa9", 'x' ] ],
	invalidate => [
		[ "$of_invalidate, got 1 key and 2 arguments", ['k'], $TTL, 'i1' ],
		[ "$of_invalidate, got 0 keys and 2 arguments", [], $TTL, 'i1' ],
		[ "$of_invalidate, got 5001 keys and 5003 arguments", [ ('k') x 5001 ],
			$TTL, 'i1', (5) x 5001 ],
		(map { [ "$of_entry, got '$_'", ['k'], $TTL, 'i1', $_ ] } '?x5', '', '?', '??5', '0', '5 '),
		(map { [ "fence_ttl $ms, got '$_'", ['k'], $_, 'i1', '?5' ] } 0, -1, 'x', '') ],
	release => [
		[ 'takes keys, incarnation and one xid for each key, got 1 key and 1 argument', ['k'],
			'i1' ] ],
	status => [
		[ "$of_status, got 0 keys and 1 argument", [], 'sys' ],
		[ "$of_status, got 0 keys and 4 arguments", [], 'sys', 1, 'i1', 0 ],
		[ "timeline $number, got 'first'", [], 'sys', 'first', 'i1' ],
		[ "claim $number, got ''", [], 'sys', 1, 'i1', 0, '', '', 0, '', '', 1 ],
		[ "place_claim $number, got '0x1'", [], 'sys', 1, 'i1', 0, '', 0, '0x1', '', '', 1 ] ],
	epoch => [
		[ 'takes no keys, random, fence_ttl and incarnation, got 0 keys and 1 argument', [], 'ab' ],
		[ "random must be letters and digits, got 'a b'", [], 'a b', $TTL ],
		[ "fence_ttl $ms, got '0'", [], 'ab', 0 ] ],
	beat => [
		[ 'takes no keys, step, incarnation and xid, got 0 keys and 2 arguments',
			[], 'announce', 'i1' ],
		[ "step must be announce or confirm, got 'start'", [], 'start', 'i1', 5 ],
		[ "xid must be a transaction id, got 'x'", [], 'announce', 'i1', 'x' ] ],
);
$redis->call('SET', 'k', 'kept');
for my $name (sort keys %wrong)
{
	for my $case (@{ $wrong{$name} })
	{
		my ($words, @call) = @$case;
		is(fcall($name, @call), "ERR uncache_$name: $words",
			"wrong arguments: $words" =~ s/[^ -~]/?/gr);
	}
}
is($redis->call('GET', 'k'), 'kept', 'after an error of arguments nothing is done');
$redis->call('DEL', 'k');
is(fcall('set', ['k'], '', '999999999999999', 'x'), 0, 'the longest time to live is no error');
for my $bad ('', 'nonsense', 'abc.1:1', 'abc.1:1:i1:2:9:9:', 'abc.1:x:i1:1:9:9:')
{
	is(fcall('set', ['k'], $bad, 1000, 'x'), 0,
		"no such snapshot, refused without an error: '$bad'");
}

# ---- values
is(fill('k', 10, "a\0\r\nb"), 1, 'a fill is stored');
is_deeply(fcall('get', ['k']), ["a\0\r\nb"], '... any bytes');
ok($redis->call('PTTL', 'k') > 50000, '... with its time to live');
is(fill('empty', 10, ''), 1, 'an empty value is a value');
is_deeply(fcall('get', ['empty']), [''], '... and a hit');
$redis->call('LPUSH', 'list', 'x');
like(fcall('get', ['list']), qr/^WRONGTYPE/, 'a key of another type answers as for GET');
is(fcall('invalidate', [ 'k', 'none', 'list', 'k' ], $TTL, 'i1', 11, 11, 11, 12), 2,
	'values deleted, of any type, and counted');
is($redis->call('EXISTS', 'k', 'list'), 0, '... and gone');
like($redis->call('GET', 'uncache:{k}'), qr/:i1:11,12:$/, 'a key twice in one call adds both xids');
is($redis->call('EXISTS', 'uncache:{none}'), 0, 'an invalidation makes no record');

# ---- a token although there is a value
worker_comes();
my $refresh = fcall('token', ['fresh']);
like($refresh, qr/^[\w.]+:\d+$/, 'a token without a value, in a string');
is(token('fresh'), $refresh, '... is that of a miss');
is(fill('fresh', 20, 'old', $refresh), 1, '... and good for a fill');
is(fcall('token', ['fresh']), $refresh, 'a token with a value');
is(fill('fresh', 20, 'new', $refresh), 1, '... is good for another one');
is_deeply(fcall('get', ['fresh']), ['new'], '... which takes its place');
fcall('invalidate', ['fresh'], $TTL, 'i1', 20);
is(fill('fresh', 20, 'late', $refresh), 0,
	'... and for none that has not seen what was delivered since');
is(fcall('token', ['a}b']), undef, 'no token where no record can be');
$redis->call('SET', 'without', 'x');
like(fcall('token', ['without']), qr/^[\w.]+:\d+$/, 'a value without a record gets one');
fcall('epoch', [], '', $TTL);
is(fcall('token', ['fresh']), undef, 'no token without an epoch');
worker_comes();

# ---- leases
sub lease { return fcall('get', [ $_[0] ], $_[1] // 60000) }

my $holder = lease('herd');
is(scalar @$holder, 2, 'the first miss takes the lease');
like($holder->[1], qr/^[\w.]+:\d+$/, '... and gets a token, of the shape that all tokens have');
my $waits = lease('herd');
is_deeply([ @$waits[ 0, 1 ] ], [ undef, undef ], '... the second gets none');
cmp_ok($waits->[2], '>', 0, '... is told to wait');
cmp_ok($waits->[2], '<=', 60000, '... for as long as the lease lasts at most');
$waits = fcall('token', ['herd'], 1);
is_deeply([ @$waits[ 0, 1 ], $waits->[2] > 1 ], [ undef, undef, 1 ],
	'... as is one that would refresh, whatever it asks for');
like(token('herd'), qr/^[\w.]+:\d+$/, 'a reader that asks for no lease gets a token');
isnt(token('herd'), $holder->[1], '... without the lease');
is(fill('herd', 30, 'other'), 1, '... and may fill');
is_deeply(lease('herd'), ['other'], '... which is a hit for those that wait');
is(scalar @{ fcall('token', ['herd'], 60000) }, 3, '... and leaves the lease to its holder');
is(fill('herd', 30, 'mine', $holder->[1]), 1, 'the holder fills');
my $next = fcall('token', ['herd'], 60000);
like($next, qr/^[\w.]+:\d+$/, '... and its lease has ended: the next one that refreshes has one');
isnt($next, $holder->[1], '... of its own');
is(fill('herd', 30, 'again', $holder->[1]), 1, 'the former holder may fill again');
is(ref fcall('token', ['herd'], 60000), 'ARRAY', '... but ends no lease of another');
fcall('invalidate', ['herd'], $TTL, 'i1', 31);
$next = lease('herd');
is(scalar @$next, 2, 'an invalidation ends the lease');
is(fill('herd', 31, 'late', $next->[1]), 0, 'the holder is refused');
$next = lease('herd');
is(scalar @$next, 2, '... and has no lease any more');
is(fcall('set', ['herd'], $next->[1], 60000, ''), 0, 'a holder that will not store says so');
$next = lease('herd');
is(scalar @$next, 2, '... with its token');
is(fcall('set', ['herd'], $holder->[1], 60000, ''), 0, 'so does one that is no holder any more');
is(scalar @{ lease('herd') }, 3, '... and changes nothing');
is(fcall('set', ['herd'], 'e.1:1:i1:1:9:9:', 60000, ''), 0, '... nor does a token of before');
is(scalar @{ lease('herd') }, 3, '... change anything');
is(fcall('set', ['herd'], '', 60000, ''), 0, 'one that has no snapshot sends an empty one');
is(scalar @{ lease('herd') }, 2, '... which ends the lease, too');
$redis->call('DEL', 'herd', 'uncache:{herd}');
is(scalar @{ lease('herd', 300) }, 2, 'a reader takes the lease and dies');
cmp_ok((lease('herd', 300)->[2] // 0), '<=', 300, '... the others are told for how long they wait');
ok(wait_for(sub { @{ lease('herd', 300) } == 2 }), '... then the next one has it');

# What the lease is written beside stays as it is.
$redis->call('PEXPIRE', 'uncache:{herd}', 100_000);
fcall('set', ['herd'], '', 60000, '');
lease('herd');
cmp_ok($redis->call('PTTL', 'uncache:{herd}'), '<=', 100_000, 'a lease does not prolong a record');
like($redis->call('GET', 'uncache:{herd}'), qr/::\d+\@\d{13}$/, '... it stands at its end');
fcall('set', ['herd'], '', 60000, '');
like($redis->call('GET', 'uncache:{herd}'), qr/:$/, '... and leaves nothing behind');
fcall('invalidate', ['herd'], $TTL, 'i1', 32);
my $text = $redis->call('GET', 'uncache:{herd}');
lease('herd');
is($redis->call('GET', 'uncache:{herd}') =~ s/:\d+\@\d+$//r, $text,
	'... the xids stay in the record');
fcall('invalidate', ['doubtful'], $TTL, 'i1', '?40');
$next = lease('doubtful');
is(fill('doubtful', 40, 'x', $next->[1]), 0, '... as does a doubt');
is(fill('doubtful', 41, 'x', $next->[1]), 1, '... which the holder may have seen');
$redis->call('SET', 'uncache:{herd}', $redis->call('GET', 'uncache:{herd}')
	  =~ s/\@\d+$/\@9999999999999/r);
is(scalar @{ lease('herd') }, 2, 'a lease that the clock has left far behind does not last');
$redis->call('SET', 'uncache:{herd}', $text . ':@:@@');
is(scalar @{ lease('herd') }, 2, 'nor does anything else that stands there');
is_deeply(lease('a}b'), [ undef, undef ], 'no lease where no record can be');
fcall('epoch', [], '', $TTL);
is_deeply(lease('herd'), [ undef, undef ], '... nor without an epoch');
is(fcall('token', ['herd'], 5), undef, '... to refresh neither');
worker_comes();
# As full as doubts can make it: there is room for a part of a lease.
token('crowd');
$text = $redis->call('GET', 'uncache:{crowd}');
my $doubt = '/1@9999999999999';
$text .= 'i' x (4090 - length "$text$doubt") . $doubt;
$redis->call('SET', 'uncache:{crowd}', $text, 'PX', $TTL);
$next = lease('crowd');
is(scalar @$next, 2, 'a record without room for a lease: a token without one');
is(lease('crowd')->[1], $next->[1], '... for each that asks');
is($redis->call('GET', 'uncache:{crowd}'), $text, '... and the record stays as it is');

# ---- what readers report
is(fcall('report', [], 'checked', 1000, 'stale', 2), 'OK', 'a report');
is(fcall('report', [], 'checked', 9999999999, 'stale', 0), 'OK', '... and another');
is_deeply([ @{ fcall('status', [], 'sys', 1, 'i1') }[ 16, 17 ] ], [ 10000000999, 2 ],
	'... the status has their sum');

# ---- values that are stored plainly, where one record in eight is watched
sub plain_seen { return fcall('status', [], 'sys', 1, 'i1')->[18] }

worker_comes();
is(plain_seen(), 0, 'no value was stored plainly');
for my $i (1 .. 16)
{
	is(fill("watched:$i", 50), 1, 'a fill');
	is(fill("watched:$i", 50, 'y', fcall('token', ["watched:$i"])), 1, '... another');
	fcall('invalidate', ["watched:$i"], $TTL, 'i1', 50);
	fill("watched:$i", 51);
	$redis->call('DEL', "watched:$i");
	fcall('invalidate', [ "watched:$i", "not there" ], $TTL, 'i1', 51, 51);
	$redis->call('SET', "refreshed:$i", 'from before');
	fill("refreshed:$i", 51, 'x', fcall('token', ["refreshed:$i"]));
	fcall('invalidate', ["refreshed:$i"], $TTL, 'i1', 51);
	$redis->call('SET', "strict:$i", 'from before');
	fcall('invalidate', ["strict:$i"], $TTL, 'i1', '?51');
	fcall('release', ["strict:$i"], 'i1', 51);
}
is(plain_seen(), 0, 'fenced fills are none of these, nor what was there before');
for my $i (1 .. 16)
{
	token("watched:$i");
	$redis->call('SET', "watched:$i", 'plain');
	fcall('invalidate', ["watched:$i"], $TTL, 'i1', 52);
}
my $plain = plain_seen();
cmp_ok($plain, '>', 0, 'values of SET are seen when their keys are invalidated');
cmp_ok($plain, '<', 16, '... of some keys');
for my $i (1 .. 16)
{
	my $token = token("watched:$i");
	$redis->call('SET', "watched:$i", 'plain');
	fill("watched:$i", 53, 'x', $token);
	fill("watched:$i", 53, 'x', $token);
}
is(plain_seen(), 2 * $plain, '... and when a fenced fill meets them, once');

# ---- beyond 53 bits
my $token = token('big');
fcall('invalidate', ['big'], $TTL, 'i1', '9007199254740993');
is(fcall('set', ['big'], "$token:i1:1:9007199254740992:9007199254740993:", 1000, 'x'), 0,
	'xid 2^53 + 1 is not below 2^53 + 1');
is(fcall('set', ['big'], "$token:i1:1:9007199254740994:9007199254740994:", 1000, 'x'), 1,
	'... and is below 2^53 + 2');
fcall('invalidate', ['big'], $TTL, 'i1', '18446744073709551614');
is(fill('big', '18446744073709551614'), 0, 'the largest xids');
is(fill('big', '18446744073709551615'), 1, '... compare as well');

# ---- the set is bounded
$token = token('full');
fcall('invalidate', ['full'], $TTL, 'i1', 100 + $_) for 1 .. 64;
is(token('full'), $token, 'sixty-four writers fit into a record');
fcall('invalidate', ['full'], $TTL, 'i1', 164);
is(token('full'), $token, '... one of them twice');
fcall('invalidate', ['full'], $TTL, 'i1', 165);
isnt(token('full'), $token, 'one more makes a new one');
like($redis->call('GET', 'uncache:{full}'), qr/:i1:165:$/, '... with its xid alone');
is(fill('full', 200, 'x', $token), 0, '... and the old token is void');

# ---- expiry
my $rec = 'uncache:{ttl}';
$token = token('ttl');
$redis->call('PEXPIRE', $rec, 100_000);
token('ttl');
fill('ttl', 300, 'x', $token);
ok($redis->call('PTTL', $rec) <= 100_000, 'neither get nor set prolongs a record');
fcall('invalidate', ['ttl'], $TTL, 'i1', 300);
ok($redis->call('PTTL', $rec) > 290000, 'an invalidation does');
worker_comes(200);
token('short');
ok(wait_for(sub { !$redis->call('EXISTS', 'uncache:{short}') }),
	'a record expires fence_ttl after its birth');
worker_comes();

# ---- doubts
$token = token('strict');
is(fcall('invalidate', ['strict'], $TTL, 'i1', '?400'), '0', 'a doubt');
is(fill('strict', 400, 'x', $token), 0, '... refuses who has not seen it');
is(fcall('release', [ 'strict', 'strict', 'a}b' ], 'i1', 400, 400, 400), 3, '... is taken out');
is(fill('strict', 400, 'x', $token), 1, '... and no longer refuses');
fcall('invalidate', ['strict'], $TTL, 'i1', '?401');
fcall('invalidate', ['strict'], $TTL, 'i1', '401');
like($redis->call('GET', 'uncache:{strict}'), qr/:i1:401:$/,
	'a delivered doubt is an ordinary xid');
fcall('invalidate', ['strict'], $TTL, 'i1', '?401');
like($redis->call('GET', 'uncache:{strict}'), qr/:i1:401:$/, '... and never in doubt again');
is($redis->call('EXISTS', 'uncache:{unread}'), 0, 'no record yet');
fcall('invalidate', ['unread'], $TTL, 'i1', '?402');
is(fill('unread', 402), 0, 'a doubt makes a record');
fcall('invalidate', ['unread'], 100, 'i1', '?403');
fcall('invalidate', ['unread'], $TTL, 'i1', '402');
ok(wait_for(sub { fill('unread', 403) == 1 }),
	'a doubt that nobody renews expires, however long its record lives');
fcall('invalidate', ['slow'], $TTL, 'i1', '?404');
fcall('invalidate', ['slow'], 100, 'i1', '405');
ok($redis->call('PTTL', 'uncache:{slow}') > 290000,
	'an invalidation with a short fence_ttl leaves the doubts their time');
worker_comes(100);
token('slow');
ok($redis->call('PTTL', 'uncache:{slow}') > 290000, '... as does a new epoch with one');
worker_comes();

# ---- a record is bounded, whatever is in doubt
my $big = 'uncache:{many}';
my ($asked, $answer) = (0, 0);
while ($asked < 200 && $answer !~ /^FULL/)
{
	$answer = fcall('invalidate', ['many'], $TTL, 'i1', '?' . (5000000000 + ++$asked));
}
is($answer, 'FULL too many strict transactions are about to commit changes of one key',
	"doubt $asked of one key is refused");
cmp_ok($asked, '>', 64, '... but not before there are many');
cmp_ok($redis->call('STRLEN', $big), '<=', 4096, '... while the record has at most 4 kB');
is(fcall('invalidate', [ 'many', 'few' ], $TTL, 'i1', '?5000000999', '?5000000999'), $answer,
	'beside another key, too');
like($redis->call('GET', 'uncache:{few}'), qr{:i1/5000000999\@\d+$}, '... which has its doubt');
unlike($redis->call('GET', $big), qr/5000000999/, '... the full one not');
like(token('many'), qr/:/, 'a full record still has a token');
fcall('release', ['many'], 'i1', 5000000001);
is(fcall('invalidate', ['many'], $TTL, 'i1', '?5000000999'), '0', 'a rollback makes room');
is(fill('many', 5000000002), 0, '... all others count');

# What must be remembered, and finds no room, closes the record: until it expires.
$token = token('many');
is(fcall('invalidate', ['many'], $TTL, 'i1', '!5000001000'), '0',
	'a doubt that is renewed is never refused');
like($redis->call('GET', $big), qr/^closed\@\d+$/, '... the record is closed instead');
is_deeply(fcall('get', ['many']), [ undef, undef ], '... gives no token');
is(fcall('token', ['many']), undef, '... neither to refresh');
is(fcall('set', ['many'], "$token:i1:1:6000000000:6000000000:", 1000, 'x'), 0,
	'... refuses every fill');
is(fcall('invalidate', ['many'], $TTL, 'i1', '?5000001001'), $answer, '... and every new doubt');
is(fcall('invalidate', ['many'], $TTL, 'i1', '5000001000'), '0', 'deliveries go on');
fcall('release', ['many'], 'i1', 5000001000);
fcall('epoch', [], 'later', $TTL);
is_deeply(fcall('get', ['many']), [ undef, undef ], 'a new epoch does not open it');
fcall('invalidate', ['many'], 100, 'i1', '!5000001002');
ok($redis->call('PTTL', $big) > 290000, 'it lives as long as the last of its doubts');
fcall('invalidate', ['many'], 2 * $TTL, 'i1', '!5000001003');
ok($redis->call('PTTL', $big) > 2 * $TTL - 10000, '... also of one that came later');
$redis->call('PEXPIRE', $big, 1);
ok(wait_for(sub { fill('many', 6000000000) == 1 }),
	'after it has expired the key is cacheable again');

# One that is longer, whoever wrote it.
$redis->call('SET', 'uncache:{long}',
	'e.1:1:0:::' . join(',', map { "i1/$_\@9999999999999" } 1 .. 5000), 'PX', 60000);
is_deeply(fcall('get', ['long']), [ undef, undef ], 'a record over 4 kB gives no token');
is(fcall('invalidate', ['long'], $TTL, 'i1', '?6'), $answer, '... takes no new doubt');
is(fcall('invalidate', ['long'], $TTL, 'i1', '7'), '0', '... holds up no delivery');
ok($redis->call('PTTL', 'uncache:{long}') <= 60000, '... and expires when it would have');
$redis->call('SET', 'uncache:{odd}', 'x' x 5000);
is_deeply(fcall('get', ['odd']), [ undef, undef ], 'whatever it is');

# ---- the work of a call is linear in what it is given
# Each of these was quadratic, or multiplied two inputs: minutes where it takes milliseconds.
my $much = 2_000_000;
# Processor time, since other tests may run at the same time.
sub cpu_seconds
{
	my $seconds = 0;

	$seconds += $_ foreach $redis->call('INFO', 'cpu') =~ /^used_cpu_(?:user|sys):([\d.]+)/mg;
	return $seconds;
}

sub quick
{
	my ($what, $call) = @_;
	my $before = cpu_seconds();

	$call->();
	my $seconds = cpu_seconds() - $before;
	cmp_ok($seconds, '<', 10, sprintf '%s: %.1f s', $what, $seconds);
	return;
}

$redis->call('SET', 'uncache:{k}',
	'e.1:1:0:::' . join(',', map { "i1/$_\@9999999999999" } 1 .. $much / 20));
quick('a record of megabytes',
	sub { fcall('invalidate', [ ('k') x 128 ], $TTL, 'i1', ('?5') x 128) });
$redis->call('DEL', 'uncache:{k}');
quick('a key of braces', sub { fcall('get', [ '}' . '{' x $much ]) });
quick('a time to live of megabytes', sub { fcall('set', ['k'], '', '9' x $much, 'x') });
quick('a snapshot of colons', sub { fcall('set', ['k'], ':' x $much, 1000, 'x') });
$token = token('k');
fcall('invalidate', ['k'], $TTL, 'i1', '?' . (7000000000 + $_)) for 1 .. 60;
quick('a snapshot with many that run', sub {
	fcall('set', ['k'], "$token:i1:1:1:9000000000:" . join(',', 1 .. $much / 8), $TTL, 'x') });
is($redis->call('GET', 'k'), 'x', '... which is stored, as all doubts have ended in it');
$redis->call('DEL', 'k');

# ---- two servers: a beat is asked of the one whose snapshot was refused
sub wanted
{
	my ($server, $incarnation) = @_;
	return fcall('status', [], $server, 1, $incarnation)->[2];
}

load_library();
worker_comes();
fcall('status', [], 'other', 1, 'j1');
worker_comes();
$token = token('two');
is(fcall('set', ['two'], "$token:j1:0:900:900:", 60000, 'x'), 0,
	'an old snapshot of the second server is refused');
is(wanted('sys', 'i1') . wanted('other', 'j1'), '01', '... which asks that server for a beat');
is(fcall('beat', [], 'announce', 'i1', 800), 1, 'the first one beats nevertheless');
is(fcall('beat', [], 'confirm', 'i1', 800), 1, '...');
is(wanted('other', 'j1'), 1, '... which changes nothing for the second');
is(fcall('beat', [], 'announce', 'j1', 850), 1, 'the second one does');
is(wanted('other', 'j1'), 0, '... is not asked any more');
is(fcall('beat', [], 'confirm', 'j1', 849), 0, 'another beat than the last is not confirmed');
is(fcall('beat', [], 'confirm', 'j1', 850), 1, '... the last one is');
is(fcall('beat', [], 'announce', 'j1', 850), 0, '... and not announced again');
is(fcall('set', ['two'], "$token:j1:0:850:850:", 60000, 'x'), 0,
	'a snapshot that has not seen it is refused');
is(fcall('set', ['two'], "$token:j1:0:900:900:", 60000, 'x'), 1, '... one that has seen it fills');

# ---- a beat is of a transaction in progress
sub beat { return fcall('beat', [], 'announce', @_) }
fcall('status', [], 'busy', 1, 'b1', 0, '', 0, 0, '', '', '1000000');
is(beat('b1', 999_999), 0, 'below what was next when its server first called: refused');
is(beat('b1', 1_000_050), 1, '... what was given away since may be announced');
fcall('status', [], 'busy', 1, 'b1', 0, '', 0, 0, '', '', '1000100');
fcall('status', [], 'busy', 1, 'b1', 0, '', 0, 0, '', '', '1000200');
is(beat('b1', 1_000_099), 0, 'below what was next a call ago: refused');
is(beat('b1', 1_000_100), 1, '... what was given away since may be announced');
fcall('invalidate', ['x'], $TTL, 'b1', '9007199254750993');
is(beat('b1', '9007199254740900'), 0, 'far below what was delivered: refused');
is(beat('b1', '9007199254741000'), 1, '... but for what can have come in between');
is(fcall('invalidate', ['x'], $TTL, 'b1', 5), '0',
	'a prepared transaction may be as old as it likes');

# ---- servers
# What a worker of version 2 says, and what it is told: superseded, or the epoch.
sub says
{
	my ($server, $timeline, $incarnation, %own) = @_;
	my $answer = fcall('status', [], $server, $timeline, $incarnation,
		$own{database} // 0, $own{prefix} // '',
		$own{claim} // 0, $own{place} // 0, $own{superseded} // '', $own{told} // '', 1000);

	return { version => $answer->[0], epoch => $answer->[1], superseded => $answer->[7],
		claim => $answer->[8], place => $answer->[9], clean => $answer->[10],
		by => $answer->[11], timeline => $answer->[12], by_claim => $answer->[13],
			unheard => $answer->[14], server => $answer->[15] };
}

sub is_superseded
{
	my ($said, $by, $what) = @_;
	is("$said->{superseded} by $said->{by}", "server by $by", $what);
	return;
}

sub is_live { my ($said, $what) = @_; is($said->{superseded}, '', $what); return }
sub epoch_by { return fcall('epoch', [], 'e' . ++$epochs, $TTL, @_) }

sub fills
{
	my ($incarnation, $key) = @_;
	my $text = token($key // "key of $incarnation") // '';
	return fcall('set', [ $key // "key of $incarnation" ], "$text:$incarnation:1:9:9:", 60000, 'x');
}

# A standby is promoted, and the old primary lives on.
load_library();
is_live(says('sys', 1, 'old'), 'a primary');
is(fcall('status', [], 'sys', 2, 'new')->[1], undef,
	'one of a higher timeline, by a worker of version 1');
my $said = says('sys', 1, 'old');
is_superseded($said, 'new', 'the first is superseded');
is("$said->{timeline} $said->{server}", '2 sys', '... it is told by whom');
cmp_ok($said->{unheard}, '<', 10000, '... and when that was heard of');
is(epoch_by('old'), undef, '... sets no epoch');
ok(epoch_by('new'), 'the second does');
is(fills('old'), '0', 'no fill by the first');
is(fills('new', 'both'), '1', 'but by the second');
$token = token('poisoned');
fcall('invalidate', [ 'both', 'poisoned' ], $TTL, 'old', 7, 7);
is($redis->call('EXISTS', 'both'), 0, 'the first goes on deleting');
is(fcall('set', ['poisoned'], "$token:new:1:9:9:", 60000, 'x'), '1',
	'... and is in no reader\'s way');
is_superseded(says('sys', 1, 'old'), 'new', 'nothing changes that');
like(says('sys', 2, 'new')->{epoch}, qr/^e$epochs\./, '... and the epoch stays');

# The first reclaims: the second is a copy.
$said = says('sys', 1, 'old', claim => 1, superseded => '');
is_live($said, 'reclaimed');
is($said->{clean} . ($said->{epoch} // ''), 0,
	'... there is no epoch, and the other has stored something');
ok(epoch_by('old'), '... sets one');
is(fills('old') . fills('new'), '10', '... and fills, alone');
is_superseded(says('sys', 2, 'new'), 'old', 'the copy is superseded, on a higher timeline');
is_live(says('sys', 1, 'old again', claim => 1), 'a restart of the first');
is_superseded(says('sys', 2, 'new again', superseded => 'server'), 'old again',
	'... and one of the copy');
is_live(says('sys', 2, 'new again', claim => 2), 'the copy reclaims');
is(says('sys', 2, 'new again', claim => 2)->{clean}, 0,
	'... before its restart the other has stored something');

# Redis forgets.
# Which of several is named does not depend on their names, nor on a hash of these.
srand(1);
for my $round (1 .. 12)
{
	my @name = map { sprintf 'life%08x', rand 2**32 } 1 .. 9;
	load_library();
	says('sys', 3, $name[0], prefix => 'p:');
	says('sys', 3, $_, prefix => 'p:') foreach @name[ 1 .. 5 ];
	is_superseded(says('sys', 2, $name[6], prefix => 'p:'), $name[5],
		"of equal rank the newest is named ($round)");
	is_superseded(says('sys', 3, $name[0], prefix => 'p:'), $name[1],
		'... to one that was superseded the one that did it');
	says('sys', 3, $name[1], prefix => 'p:', told => $name[5]);
	is_superseded(says('sys', 2, $name[7], prefix => 'p:'), $name[5],
		'... of those that are superseded, too');
	says('sys', 3, $name[2], prefix => 'p:', claim => 1);
	is_superseded(says('sys', 2, $name[6], prefix => 'p:'), $name[2],
		'... and the highest rank before all');
	says("sys $_", 1, "$name[8] $_", prefix => 'p:', place => 3 - $_ % 3) foreach 1 .. 9;
	is(says('sys', 3, $name[2], prefix => 'p:', claim => 1)->{by}, "$name[8] 9",
		'... of strangers the highest claim, the newest of equal ones');
	is(says('sys 1', 1, "$name[8] 1", prefix => 'p:')->{by}, "$name[8] 9", '... to these as well');
	is(says('sys', 3, $name[2], prefix => 'p:', claim => 1, place => 2)->{by}, "$name[8] 9",
		'... a claim that is not the highest changes nothing');
	is(says('sys 2', 1, "$name[8] 2", prefix => 'p:')->{by}, "$name[8] 9",
		'... for others either');
}
like(fcall('status', [], 'sys', 'x', 'i1', 0, '', 'y', 'z', '', '', 1),
	qr/^ERR uncache_status: timeline /, 'of several wrong arguments the first is named');

load_library();
is_superseded(says('sys', 1, 'old', superseded => 'server'), '',
	'a server that knows that it is superseded stays so');
is(epoch_by('old'), undef, '... though nobody else has come');
is_live(says('sys', 2, 'new'), '... the other fills');
is_superseded(says('sys', 1, 'old'), 'new', '... alone');
is_live(says('sys', 1, 'old', claim => 1), 'one that reclaims');
is(says('sys', 1, 'old', claim => 1)->{clean}, 0,
	'... what the other has stored before that is not known');

# Whether the other has stored anything while it had the fence.
load_library();
is_live(says('sys', 1, 'old'), 'a primary');
is_live(says('sys', 2, 'new'), '... its successor');
is(says('sys', 1, 'old')->{clean}, 0, 'a superseded server is not clean');
is(says('sys', 1, 'old', claim => 1)->{clean}, 1,
	'one that reclaims: the other has stored nothing');
is(says('sys', 1, 'old', claim => 1)->{clean}, 1, '... which it may ask again');
epoch_by('old');
is(fills('old', 'o'), '1', '... then it stores something itself');
is_live(says('sys', 2, 'new', claim => 2), 'the other reclaims');
is(says('sys', 2, 'new', claim => 2)->{clean}, 0, '... and has to flush');
is_live(says('sys', 1, 'old', claim => 3), '... the first has it back');
is(says('sys', 2, 'new', claim => 4)->{clean}, 0,
	'... what was stored once counts until that life ends');

# A strict transaction of who is superseded: nothing would keep old values out.
load_library();
says('sys', 1, 'old');
epoch_by('old');
is(fcall('invalidate', ['s'], $TTL, 'old', '?7'), 0, 'a doubt');
is_live(says('sys', 2, 'new'), '... then a successor comes');
epoch_by('new');
like(fcall('invalidate', ['l'], $TTL, 'old', '?8'), qr/^SUPERSEDED /,
	'... another doubt is refused, before the commit');
is($redis->call('EXISTS', 'uncache:{l}'), 0, '... and makes no record');
is(fills('new', 's'), '0', '... the first holds');
is(fcall('invalidate', ['s'], $TTL, 'old', '7'), 0, '... until its transaction is delivered');
is(fills('new', 's'), '1', '... it is in no reader\'s way then');

# Equal timelines.
load_library();
is_live(says('sys', 1, 'a'), 'a server');
ok(epoch_by('a'), '...');
is_live(says('sys', 1, 'b'), 'another of the same timeline replaces it: it has been started again');
is_superseded(says('sys', 1, 'a'), 'b', '... what was under way of the first changes nothing');
is_live(says('sys', 1, 'b'), '...');
is_superseded(says('sys', 1, 'a', told => 'b'), 'b',
	'the first calls again, and knows of the second');
is_superseded(says('sys', 1, 'b'), 'a', '... now neither fills');
is_superseded(says('sys', 1, 'b', told => 'a'), 'a', '...');
ok(!epoch_by('a') && !epoch_by('b'), '... neither sets an epoch');
is_live(says('sys', 1, 'b', claim => 1), 'one is reclaimed');
is_superseded(says('sys', 1, 'a', told => 'b'), 'b', '... the other is not');
load_library();
fcall('status', [], 'sys', 1, $_) foreach qw(a b a);
is(join('', map { fcall('status', [], 'sys', 1, $_)->[7] } qw(a b)), 'serverserver',
	'with workers of version 1, too, neither fills');

# Databases of Redis, and other servers.
load_library();
is_live(says('sys', 1, 'here'), 'a server');
ok(epoch_by('here'), '...');
is_live(says('sys', 2, 'there', database => 5), 'a copy with another database of the same Redis');
is_live(says('sys', 1, 'here'), '... supersedes nobody');
ok(!defined says('sys', 1, 'here')->{epoch}, '... and the epoch is of both');
ok(epoch_by('there'), '...');
is(fills('here') . fills('there'), '11', '... both fill');
is_live(says('new sys', 1, 'stranger', prefix => 'app:'), 'a server of another identifier');
is_live(says('sys', 1, 'here', prefix => 'app:'), '... fills like the first');
is_live(says('new sys', 1, 'stranger', prefix => 'app:', place => 1), 'it lays claim to a prefix');
epoch_by('stranger');
is(join(' ', @{ says('sys', 1, 'here', prefix => 'app:') }{qw(superseded by server)}),
	'place stranger new sys', '... there the first is superseded');
is_live(says('sys', 1, 'here'), '... but not elsewhere');
is(fills('here', 'app:1') . fills('here', 'other:1') . fills('stranger', 'app:1'), '011',
	'... as its readers find');
load_library();
is(says('sys', 1, 'here', prefix => 'app:', superseded => 'place')->{superseded}, 'place',
	'... also when Redis has forgotten');
is_live(says('sys', 1, 'here', prefix => 'app:', place => 2), '... until it lays claim itself');

# ---- what is not needed is forgotten
load_library();
is_live(says('sys', 2, 'kept'), 'a server');
sub vm { return $redis->call('INFO', 'memory') =~ /used_memory_vm_total:(\d+)/ ? $1 : die }
my $before = vm();
my @calls = map { [ 'FCALL', 'uncache_status', 0, 'sys', 1, "copy $_" ] } 1 .. 20000;
while (my @some = splice @calls, 0, 500) { $redis->pipeline(@some) }
cmp_ok(vm() - $before, '<', 4 * 1024 * 1024,
	'20,000 servers come and go: little is remembered of them');
is_live(says('sys', 2, 'kept'), '... and the one that may fill is not forgotten');
@calls = map { [ 'FCALL', 'uncache_status', 0, 'sys', 2, 'kept', 0, "prefix $_", 0, 0, '',
	'', 1 ] } 1 .. 5000;
while (my @some = splice @calls, 0, 500) { $redis->pipeline(@some) }
cmp_ok(vm() - $before, '<', 4 * 1024 * 1024, '... nor of many prefixes');
@calls = map { [ 'FCALL', 'uncache_status', 0, "sys $_", 1, "life $_" ] } 1 .. 200;
$redis->pipeline(@calls);
like(fcall('invalidate', ['k'], $TTL, 'kept', 7), qr/^UNREGISTERED/,
	'too many at a time: one that has not called is asked to say who it is');
is_live(says('sys', 2, 'kept'), '... and is back');
ok(!defined says('sys', 2, 'kept')->{epoch}, '... without an epoch');
load_library();
worker_comes();

# ---- names in a Cluster
for my $key ('k', 'user:42', '{a}b', 'a{b}c', 'a{b', 'a{b{c', '{{a}', '{a}{b}',
	'a{b}}', "\xc3\xa9", '{ }')
{
	$redis->call('FLUSHALL');
	ok(token($key), "fenced: $key");
	my ($name) = @{ $redis->call('KEYS', '*') };
	is(crc_slot($name), crc_slot($key), "... by a record in its slot: $name");
}
for my $key ('', 'a}b', 'a{}b', '}{', 'a}{')
{
	is_deeply(fcall('get', [$key]), [ undef, undef ], "not fenced: '$key'");
	is(fcall('invalidate', [$key], $TTL, 'i1', '?5'), '0', '... yet invalidated');
}
$redis->call('FLUSHALL');
token('{x}');
token('x');
is($redis->call('DBSIZE'), 2, 'x and {x} have records of their own');

# CRC16 of the hash tag, as the Cluster specification has it
sub crc_slot
{
	my ($key) = @_;
	my $crc = 0;
	$key = $1 if $key =~ /^[^{]*\{([^}]+)\}/s;
	for my $byte (unpack 'C*', $key)
	{
		$crc ^= $byte << 8;
		$crc = ($crc & 0x8000 ? $crc << 1 ^ 0x1021 : $crc << 1) & 0xffff for 1 .. 8;
	}
	return $crc % 16384;
}

# ---- something else under the record's name
$redis->call('LPUSH', 'uncache:{foreign}', 'x');
is_deeply(fcall('get', ['foreign']), [ undef, undef ],
	'a list where the record should be: no token');
is(fcall('invalidate', ['foreign'], $TTL, 'i1', 5), '0', '... and no trouble for the worker');
is($redis->call('TYPE', 'uncache:{foreign}'), 'list', '... and left alone');

# ---- rights
$redis->call('ACL', 'SETUSER', 'reader', 'on', '>pw', '~k*', '~uncache:*', '-@all',
	qw(+fcall +get +set +time));
$redis->call('ACL', 'SETUSER', 'narrow', 'on', '>pw', '~k*', '-@all', qw(+fcall +get +set));
my $reader = bless { %$redis, owner => 0 }, 'PrivateRedis';
$reader->connect;
$reader->call('AUTH', 'reader', 'pw');
fcall('invalidate', ['k1'], $TTL, 'i1', '?1');
my $got = $reader->call('FCALL', 'uncache_get', 1, 'k1');
is($reader->call('FCALL', 'uncache_set', 1, 'k1', "$got->[1]:i1:1:9:9:", 1000, 'x'), 1,
	'fcall, get, set and time are all a reader needs');
like($reader->call('DEL', 'k1'), qr/^NOPERM/, '... it has no others');
$reader->call('AUTH', 'narrow', 'pw');
is_deeply($reader->call('FCALL', 'uncache_get', 1, 'k1'), ['x'],
	'without a right on the records: hits');
like($reader->call('FCALL', 'uncache_get', 1, 'k2'), qr/^(NOPERM|ERR The user|ERR ACL failure)/,
	'... a miss is an error that says why');

# A reader that may call nothing but what readers need, for its own keys.
my $allowed = $redis->call('ACL', 'SETUSER', 'app', 'on', '>pw', '~user:*',
	'~uncache:{user:*', '-@all',
	qw(+get +set +time +fcall|uncache_get +fcall|uncache_set +fcall|uncache_token
	+fcall|uncache_report));
if ($allowed ne 'OK')
{
	note "this server grants no single functions: $allowed";
}
else
{
	$reader->call('AUTH', 'app', 'pw');
	my $own = $reader->call('FCALL', 'uncache_get', 1, 'user:1')->[1];
	is($reader->call('FCALL', 'uncache_set', 1, 'user:1', "$own:i1:1:9:9:", 1000, 'x'), 1,
		'a reader with single functions fills its keys');
	is(scalar @{ $reader->call('FCALL', 'uncache_get', 1, 'user:2', 60000) }, $_,
		'... takes a lease, or waits')
	  foreach 2, 3;
	is($reader->call('FCALL', 'uncache_report', 0, 'checked', 5, 'stale', 0), 'OK',
		'... and report');
	like($reader->call('FCALL', "uncache_$_->[0]", @{$_}[ 1 .. $#$_ ]), qr/^NOPERM/,
		"... and may not call uncache_$_->[0]")
	  foreach [ 'beat', 0, 'announce', 'i1', 3 ], [ 'status', 0, 'sys', 2147483647, 'mine' ],
		[ 'epoch', 0, 'abc', $TTL ],
	  [ 'invalidate', 1, 'user:1', $TTL, 'i1', 9 ], [ 'release', 1, 'user:1', 'i1', 9 ];
	like($reader->call('FCALL', 'uncache_get', 1, 'order:1'), qr/^NOPERM|^ERR/,
		'... nor have a key of others');
	like($reader->call('SET', 'uncache:{order:1}', 'x'), qr/^NOPERM/, '... nor its record');
}

# ---- maxmemory
fill('kept', 10);
token('gone');
$redis->call('CONFIG', 'SET', 'maxmemory', 1);
like($redis->call('SET', 'x', 1), qr/^OOM/, 'at maxmemory nothing can be stored');
like(fcall('set', ['gone'], 'x', 1000, 'x'), qr/^OOM/, '... neither by a fill');
is_deeply(fcall('get', ['kept']), ['x'], '... but hits are served');
is(fcall('invalidate', ['kept'], $TTL, 'i1', 50), '1', '... and deletes are done');
like($redis->call('GET', 'uncache:{kept}'), qr/:i1:50:$/, '... and remembered');
$redis->call('CONFIG', 'SET', 'maxmemory', 0);

# ---- what Redis does with the library's memory
sub epoch_seen { my $t = token('probe'); return defined $t }
worker_comes();
$redis->call('FLUSHALL');
ok(epoch_seen(), 'the locals survive FLUSHALL');
load_library();
ok(!epoch_seen(), '... are empty after FUNCTION LOAD REPLACE');
worker_comes();
$redis->call('FUNCTION', 'FLUSH');
like(fcall('get', ['k']), qr/^ERR Function not found/, 'FUNCTION FLUSH: function not found');
load_library();
ok(!epoch_seen(), '... and no epoch after it is loaded again');
worker_comes();
$redis->call('SAVE');
$redis->stop(1);
$redis->boot;
ok(!epoch_seen(), 'after a restart the library is there, its locals are empty');

# a replica that is promoted, the old master that becomes its replica and is
# promoted again: the first has no epoch; the second may still have its own
worker_comes();
my $other = PrivateRedis->start('replicaof' => 'no one');
my $port = 20000 + $$ % 20000;
$redis->call('CONFIG', 'SET', 'port', $port);
$other->call('CONFIG', 'SET', 'port', $port + 1);
$other->call('REPLICAOF', '127.0.0.1', $port);
ok(wait_for(sub { $other->call('INFO', 'replication') =~ /master_link_status:up/ }), 'a replica');
like($other->call('FCALL', 'uncache_get', 1, 'k'), qr/^READONLY/, 'a replica answers READONLY');
like($other->call('FCALL', 'uncache_status', 0, 'sys', 1, 'i1'), qr/^READONLY/,
	'... also to a worker');
token('replicated');
ok(wait_for(sub { $other->call('EXISTS', 'uncache:{replicated}') }), 'records are replicated');
$other->call('REPLICAOF', 'NO', 'ONE');
is_deeply($other->call('FCALL', 'uncache_get', 1, 'k'), [ undef, undef ],
	'a promoted replica has no epoch');
$redis->call('REPLICAOF', '127.0.0.1', $port + 1);
ok(wait_for(sub { $redis->call('INFO', 'replication') =~ /master_link_status:up/ }),
	'the old master follows');
$redis->call('REPLICAOF', 'NO', 'ONE');
note 'an old master promoted again ' . (epoch_seen() ? 'still has its epoch' : 'has no epoch');

done_testing;
