# The stream (uncache.stream): what it says of keys and patterns, what it does not say, and that
# no COMMIT waits for it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisProxy;
use RedisServer;
use Stream;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', $proxy, 'uncache.wait_timeout = 60s',
	'uncache.command_timeout = 60s');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }
sub named { return named_in($redis, 'news') }

sub set_to
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET uncache.$name = '$value'");
	$node->reload;
	return;
}

# --- off, and on ---

sql(q{SELECT uncache.invalidate_keys('before')});
ok(delivered($node), 'without uncache.stream keys are delivered');
is($redis->calls('xadd'), 0, 'and nothing is announced');
is(stat_of(q{stream_entries || ' ' || stream_entries_lost}), '0 0', 'the columns say so');
is(sql('SHOW uncache.stream_maxlen'), '100000', 'the default length');
set_to('stream', 'news');
ok(poll_until(sub {
	sql(q{SELECT uncache.invalidate_keys('first')});
	return $redis->has('news');
}), 'a reload begins the stream');
ok(delivered($node), 'all is delivered');
my ($entry) = entries($redis, 'news');
is_deeply([ sort keys %$entry ], [qw(database id keys)], 'an entry has database and keys');
is($entry->{database}, 'postgres', 'the database');
is_deeply($entry->{keys}, ['first'], 'the key');
cmp_ok(stat_of('stream_entries'), '>=', 1, 'it is counted');
is(stat_of('stream_entries'), $redis->cli('xlen', 'news'), 'as often as there are entries');

# --- texts ---

my @texts = ('with "quotes"', 'a\\backslash', "line\nbreak and\ttab", "\x01 control", 'ümlaut:€',
	'{tag}:1', ' ', 'x' x 9000);
foreach my $text (@texts)
{
	my $copy = $text;

	utf8::encode($copy) if utf8::is_utf8($copy);
	sql('SELECT uncache.invalidate_keys($key$' . $copy . '$key$)');
}
ok(delivered($node), 'keys of all kinds are delivered');
my %named = named();
foreach my $text (@texts)
{
	my $copy = $text;

	utf8::decode($copy) unless utf8::is_utf8($copy);
	is($named{$copy}, 1, 'named once: ' . substr($text, 0, 20) =~ s/[^ -~]/?/gr);
}

is(sql('SHOW server_encoding'), 'SQL_ASCII', 'a database of which the encoding is not known');
sql(q{SELECT uncache.invalidate_keys(E'latin*\\xfc:1', 'beside')});
ok(delivered($node), 'a key that is not UTF-8 is delivered');
is({ patterns_in($redis, 'news') }->{'latin\\*?:1'}, 1, 'it is announced as a pattern');
is({ named() }->{beside}, 1, 'and the key beside it as a key');
sql(q{SELECT uncache.invalidate_pattern(E'latin:\\xfc*')});
ok(delivered($node), 'a pattern that is not UTF-8 is delivered');
is({ patterns_in($redis, 'news') }->{'latin:*'}, 1, 'it is announced by its beginning');

# --- many keys ---

sql(q{SELECT count(uncache.invalidate_keys('many:' || i)) FROM generate_series(1, 1000) i});
ok(delivered($node), 'a thousand keys are delivered');
%named = named();
is(scalar(grep { ($named{"many:$_"} // 0) == 1 } 1 .. 1000), 1000, 'each is named once');
is(scalar(grep { @{ $_->{keys} // [] } > 128 } entries($redis, 'news')), 0,
	'no entry has more than 128 keys');

# --- patterns ---

sql(q{CREATE TABLE item (id int PRIMARY KEY);
	SELECT uncache.attach('item', 'item:{id}', 'odd*[{id}]')});
$redis->fill('glob:1', 'item:1', 'other');
sql(q{SELECT uncache.invalidate_pattern('glob:*')});
sql(q{TRUNCATE item});
sql(q{SELECT uncache.invalidate_pattern('*')});
ok(delivered($node), 'patterns are delivered');
my %patterns = patterns_in($redis, 'news');
is($patterns{'glob:*'}, 1, 'a glob is announced');
is($patterns{'item:*'}, 1, 'a template of a TRUNCATE, as a glob');
is($patterns{'odd\\*\\[*\\]'}, 1, 'with its literal text escaped');
is($redis->cli('exists', 'other'), '0', 'the pattern * deletes keys');
ok($redis->has('news'), 'and not the stream');
is(scalar(grep { $_->{keys} && $_->{patterns} } entries($redis, 'news')), 0,
	'no entry has keys and patterns');

# --- not announced: second deletes ---

$redis->cli('del', 'news');
set_to('second_delete_delay', '100ms');
$proxy->forget_keys;
ok(poll_until(sub {
	sql(q{SELECT uncache.invalidate_keys('twice')});
	my %times = $proxy->times_seen;
	return ($times{twice} // 0) >= 4;
}), 'keys are deleted a second time');
set_to('second_delete_delay', '0');
my $commits = 0;
ok(poll_until(sub {
	my %times;

	$proxy->forget_keys;
	$commits++;
	sql("SELECT uncache.invalidate_keys('once:$commits')");
	%times = $proxy->times_seen;
	return $times{"once:$commits"} == 1 && keys %times == 1;
}), 'until that is switched off again');
ok(delivered($node), 'all is delivered');
my %seen = named();
is(scalar(grep { $seen{"once:$_"} != 1 } 1 .. $commits), 0, 'each commit is announced once')
	or diag explain \%seen;

# --- nobody waits for an entry ---

$proxy->hold_word('XADD');
$redis->fill('held');
my ($status, undef, $err) = $node->psql('postgres', q{SELECT uncache.invalidate_keys('held')});
is("$status$err", '0', 'a COMMIT returns, without a warning, while XADD is not answered');
is($redis->cli('exists', 'held'), '0', 'and its key is deleted');
is($proxy->held, 1, 'the entry is under way');
is(sql(q{SELECT uncache.wait('0')}), 'f', 'the row is not delivered yet');
is(sql('SELECT count(*) FROM uncache.backlog'), '1', 'as uncache.backlog says');
is(stat_of('wait_timeouts'), '0', 'no wait was in vain');
$proxy->hold_word('');
ok(delivered($node), 'with the answer it is');
is(sql('SELECT count(*) FROM uncache.backlog'), '0', 'as uncache.backlog says');
ok(are_named($redis, 'news', 'held'), 'the key is named');

# A key in several rows: each of them waits for the entry, and no COMMIT for any.
$proxy->hold_word('XADD');
my $long = 'k' x 20000;
($status, undef, $err) = $node->psql('postgres', "SELECT uncache.invalidate_keys('$long')");
is("$status$err", '0', 'a COMMIT with a key of several rows returns, without a warning');
is(sql(q{SELECT uncache.wait('0')}), 'f', 'its rows are not delivered yet');
$proxy->hold_word('');
ok(delivered($node), 'with the answer they are');
is({ named() }->{$long}, 1, 'the key is named once');

# --- how long it gets ---

set_to('stream_maxlen', '100');
my $before = stat_of('stream_entries');
sql(q{DO $$ BEGIN
	FOR i IN 1..600 LOOP PERFORM uncache.invalidate_keys('entry:' || i); COMMIT; END LOOP;
	END $$});
ok(delivered($node), 'hundreds of transactions are delivered');
cmp_ok(stat_of('stream_entries'), '>', $before + 300, 'with hundreds of entries');
cmp_ok($redis->cli('xlen', 'news'), '<=', 200,
	'the stream is kept at about uncache.stream_maxlen entries');

# --- several targets: each has its own ---

my $other = RedisServer->new;
$other->start;
sql(q{ALTER SYSTEM SET uncache.redis_url = '} . $proxy->url . ' ' . $other->url . q{'});
$node->reload;
ok(poll_until(sub {
	sql(q{SELECT uncache.invalidate_keys('both')});
	return $other->has('news');
}), 'a second target gets a stream');
$redis->cli('del', 'news');
sql(q{SELECT uncache.invalidate_keys('for both')});
sql(q{SELECT uncache.invalidate_pattern('all:*')});
ok(delivered($node), 'all is delivered');
foreach my $each ($redis, $other)
{
	%named = named_in($each, 'news');
	%patterns = patterns_in($each, 'news');
	is($named{'for both'}, 1, 'each target names the key');
	is($patterns{'all:*'}, 1, 'and the pattern');
}

set_to('stream', '');
ok(poll_until(sub {
	$redis->cli('del', 'news');
	sql(q{SELECT uncache.invalidate_keys('last')});
	return !$redis->has('news');
}), 'an empty name ends it');
isnt($node->psql('postgres', q{ALTER SYSTEM SET uncache.stream = '} . 'n' x 1025 . q{'}), 0,
	'a name may be 1024 bytes long');

$node->stop;
done_testing();
