# Invalidations that are longer than a row of the outbox: keys and patterns, by every way
# that they can take.  And rows that are full, of which everything is refused twice.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);

sub sql { return $node->safe_psql('postgres', @_) }

# Keys of a table whose template begins with so many bytes, and one that is not of it.
my %long;

sub make_table
{
	my ($table, $bytes) = @_;

	$long{$table} = "$table:" . ('x' x ($bytes - length("$table:")));
	sql(qq{
		CREATE TABLE $table (id int PRIMARY KEY);
		INSERT INTO $table SELECT generate_series(1, 3);
		SELECT uncache.attach('$table', '$long{$table}' || '{id}')});
	fill($table);
	return;
}

sub fill
{
	my ($table) = @_;

	$redis->fill(map { "$long{$table}$_" } 1 .. 3, '1:session');
	return;
}

# Only the key that is not of the table is left.
sub cleared
{
	my ($table) = @_;

	return join(' ', map { substr $_,
		length $long{$table} } $redis->keys("$table:*")) eq '1:session';
}

sub backlog { return sql('SELECT coalesce(sum(keys), 0) FROM uncache.backlog') }

# --- every length, and what asks for it ---

foreach my $case (['just', 7850], ['over', 8000], ['long', 60_000])
{
	my ($table, $bytes) = @$case;

	make_table($table, $bytes);
	sql("TRUNCATE $table");
	ok(delivered($node), "a template of $bytes bytes: TRUNCATE is delivered");
	ok(cleared($table), 'and the keys are gone');

	fill($table);
	sql("SELECT uncache.invalidate_table('$table')");
	ok(delivered($node), 'invalidate_table() is delivered');
	ok(cleared($table), 'and the keys are gone');

	fill($table);
	sql("INSERT INTO $table VALUES (1), (2), (3)");
	ok(delivered($node), 'and so are single keys');
	ok(cleared($table), 'they are gone');
}

fill('over');
fill('long');
sql('TRUNCATE just, over, long');
ok(delivered($node), 'several in one transaction are delivered');
ok(cleared('over') && cleared('long'), 'each as a whole');

# --- in the backlog, and through the side table ---

sub reload_with
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

reload_with('uncache.delivery', 'off');
ok(wait_for_state($node, 'paused'), 'delivery is off');
fill('over');
sql('TRUNCATE over');
is(backlog(), '1', 'a pattern in pieces counts once');
$node->restart;
ok($redis->has("$long{over}1"), 'its keys stay');
reload_with('uncache.delivery', 'on');
ok(delivered($node), 'until a later worker delivers it');
ok(cleared('over'), 'they are gone');

fill('over');
sql(q{BEGIN; TRUNCATE over; PREPARE TRANSACTION 'two'});
sql(q{COMMIT PREPARED 'two'});
ok(delivered($node), 'in a prepared transaction');
ok(cleared('over'), 'the keys are gone');

fill('over');
sql('TRUNCATE over');
ok(delivered($node) && cleared('over'), 'a pattern is delivered');
reload_with('uncache.second_delete_delay', '1s');
ok($node->poll_query_until('postgres', q{SELECT setting = '1000' FROM pg_settings
	WHERE name = 'uncache.second_delete_delay'}), 'with a second delete');
# Where the machine is so slow that the second delete comes before the keys, once more.
ok(poll_until(sub {
	sql('INSERT INTO over VALUES (1); TRUNCATE over');
	delivered($node) or die 'not delivered';
	fill('over');
	return poll_until(sub { cleared('over') }, 5);
}), 'it is delivered, and once more');
reload_with('uncache.second_delete_delay', '0');

# --- strict ---

reload_with('uncache.fence_ttl', '1min');
ok($node->poll_query_until('postgres', q{SELECT fence = 'on' FROM uncache.stat}),
	'the fence is on');
fill('over');
sql(q{SET uncache.consistency = strict; TRUNCATE over});
ok(delivered($node), 'strict: a long pattern is delivered, as short ones are');
ok(cleared('over'), 'the keys are gone');
my ($code, undef, $err) = $node->psql('postgres',
	q{SET uncache.consistency = strict; INSERT INTO over VALUES (1)});
like($err, qr/a key is too long for uncache.consistency = strict/, 'a long key is refused');
reload_with('uncache.fence_ttl', '0');
ok($node->poll_query_until('postgres', q{SELECT fence = 'off' FROM uncache.stat}),
	'the fence is off');

# --- refused by Redis ---

sub acl
{
	my ($at, @rights) = @_;

	$at->cli(qw(acl setuser limited), @rights) eq 'OK' or die "not an ACL: @rights";
	return;
}

acl($redis, qw(on >secret ~* &* +@all));
reload_with('uncache.redis_url', 'unix://limited:secret@' . $redis->socket);
ok(poll_until(sub { $redis->cli('client', 'list') =~ /user=limited/ }), 'a user with rights');
ok(delivered($node), 'what it is sent again is delivered');
acl($redis, '-scan');
fill('over');
fill('long');
sql('TRUNCATE over, long');
ok($node->poll_query_until('postgres', 'SELECT max(attempts) > 0 FROM uncache.backlog'),
	'patterns in pieces are refused');
is(backlog(), '2', 'and kept');
ok(!cleared('over'), 'with their keys');
acl($redis, '+scan');
ok(delivered($node), 'until they are let through');
ok(cleared('over') && cleared('long'), 'as wholes');

# --- a row of the outbox that is full, and refused by two targets ---

my @targets = map { RedisServer->new } 1 .. 2;
my @keys = map { sprintf 'denied:%06d', $_ } 1 .. 2000;
foreach my $target (@targets)
{
	$target->start;
	acl($target, qw(on >secret resetkeys ~allowed:* &* +@all));
	$target->fill('allowed:1', @keys);
}
my $two = new_node('two', undef, "uncache.redis_url = '" .
	join(' ', map { 'unix://limited:secret@' . $_->socket } @targets) . "'");

ok(wait_for_state($two, 'connected'), 'a server with two targets');
my $worker = $two->safe_psql('postgres', 'SELECT worker_pid FROM uncache.stat');
$two->safe_psql('postgres', q{SET uncache.wait_timeout = 0; SELECT count(*) FROM
	(SELECT uncache.invalidate_keys('denied:' || to_char(g, 'FM000000'), 'allowed:' || g)
		FROM generate_series(1, 2000) g) s});
# Of all rows: the view has the attempts of the one that was tried most.
ok($two->poll_query_until('postgres', 'SELECT min(k.attempts) > 0 FROM uncache.backlog b,
	uncache.backlog_keys(b.xid) k'), 'both refuse what fills rows');
is($two->safe_psql('postgres', 'SELECT sum(keys) FROM uncache.backlog'), '2000',
	'each key is kept once');
is(join(' ', map { $_->keys('allowed:*') } @targets), '', 'what is allowed is deleted');
is($two->safe_psql('postgres', 'SELECT worker_pid FROM uncache.stat'), $worker,
	'the worker goes on');
acl($_, '~denied:*') foreach @targets;
ok(delivered($two), 'all is delivered once both may');
is(join(' ', map { $_->keys('denied:*') } @targets), '', 'to both');
unlike(slurp_file($two->logfile), qr/too big|damaged|PANIC|TRAP/, 'every row had its place');
$two->stop;

# --- an encoding in which a template is shorter than in Redis ---

sql(q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$node->safe_psql('latin', 'CREATE EXTENSION pg_uncache; CREATE TABLE wide (id int)');
(undef, undef, $err) = $node->psql('latin',
	q{SELECT uncache.attach('wide', repeat(chr(233), 40000) || '{id}')});
like($err, qr/ERROR:  template is too long/,
	'a template that is too long in UTF-8 is refused at once');

unlike(slurp_file($node->logfile), qr/damaged|PANIC|TRAP/, 'nothing was damaged');
$node->stop;
done_testing();
