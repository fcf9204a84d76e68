# Redis Cluster in good health: keys, tags and patterns over all masters, the
# ways to reach it, and what the views say.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use IO::Socket::IP;

use Fence;
use RedisCluster;
use RedisServer;
use Uncache;

my $rows = 3000;
my $redis = RedisCluster->new;
my @masters = $redis->masters;
my $node = new_node('main', $redis);

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

# Use another address from now on.
sub connect_to
{
	my ($url) = @_;

	sql("ALTER SYSTEM SET uncache.redis_url = '$url'");
	$node->reload;
	return;
}

# Whether keys of every master are deleted, by themselves and by a pattern.
my $rounds = 0;

sub works
{
	my ($name) = @_;
	my $prefix = 'round' . ++$rounds . ':';
	my @keys = map { $redis->keys_at($_, $prefix, 2) } @masters;

	$redis->fill(@keys);
	sql('SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @keys[ 0, 2, 4 ]) . ')');
	ok(delivered($node), "$name: delivered");
	is(join(' ', $redis->keys("$prefix*")), join(' ', sort @keys[ 1, 3, 5 ]),
		"$name: keys of every master are deleted");
	sql("SELECT uncache.invalidate_pattern('$prefix*')");
	ok(delivered($node), "$name: a pattern is delivered");
	is(join(' ', $redis->keys("$prefix*")), '', "$name: and has deleted the others");
	return;
}

# --- keys ---

is(scalar @masters, 3, 'there are three masters');
ok(wait_for_state($node, 'connected'), 'the worker is connected');
sql(qq{
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, $rows) i;
	SELECT uncache.attach('item', 'item:{id}');
	CREATE TABLE line (user_id int, n int);
	INSERT INTO line VALUES (42, 1), (43, 1);
	SELECT uncache.attach('line', 'cart:{{{user_id}}}', 'user:{user_id}')});
ok(delivered($node), 'and up to date');
$redis->fill_range('item:', 1, $rows);
$redis->fill_range('foreign:', 1, 500);

sql('UPDATE item SET n = n + 1 WHERE id % 2 = 0');
is(join(' ', $redis->keys('item:*')), join(' ', sort map { 'item:' . (2 * $_ - 1) } 1 .. $rows / 2),
	"after COMMIT the keys of $rows rows are gone from all masters, and no others");
is(scalar(grep { $redis->server($_)->calls('unlink') } @masters), 3, 'each master was told');

# A tag brings keys together; braces without one don't.
$redis->fill('cart:{42}', 'cart:{43}', 'user:42', '{42}:other');
sql('UPDATE line SET n = 2 WHERE user_id = 42');
is(join(' ', map { $redis->has($_) ? 1 : 0 } 'cart:{42}', 'cart:{43}', 'user:42',
	'{42}:other'), '0 1 0 1',
	'a key with a tag is deleted, and the others of its slot are not');
my @odd = ('{}', '{}a', '{a', 'a}b', '}{a}', '{{a}}', 'foo{}{bar}', "\xc3\xa9",
	'with blank', 'x' x 5000);
$redis->fill(@odd);
sql('SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @odd) . ')');
is(join(' ', grep { $redis->has($_) } @odd), '', 'keys with odd braces are deleted');

# Many keys of one slot, and of one row.
sql(q{CREATE TABLE many (id int, n int); SELECT uncache.attach('many', '{{one}}:{id}')});
$redis->fill_range('{one}:', 1, 1000);
sql('INSERT INTO many SELECT i, 0 FROM generate_series(1, 999) i');
is(join(' ', $redis->keys('{one}:*')), '{one}:1000', 'a thousand keys of one slot are deleted');

# --- waiting ---

foreach my $master (@masters)
{
	my ($key) = $redis->keys_at($master, 'wait:', 1);
	my $waits = stat_of('waits');

	$redis->fill($key);
	my (undef, undef, $err) = $node->psql('postgres', "SELECT uncache.invalidate_keys('$key')");
	ok(!$redis->server($master)->has($key), 'COMMIT returns when the key is gone');
	is($err, '', 'without a warning');
	is(stat_of('waits'), $waits + 1, 'it has waited');
}
my @keys = map { $redis->keys_at($_, 'eventual:', 100) } @masters;
$redis->fill(@keys);
is(sql(join ';', 'SET uncache.consistency = eventual',
	(map { "SELECT uncache.invalidate_keys('$_')" } @keys),
	q{SELECT 'all: ' || uncache.wait('60 s')}) =~ s/^.*\n//sr, 'all: true', 'wait() is true');
is(join(' ', $redis->keys('eventual:*')), '', 'and all is gone, on all masters');
is(stat_of('state || wait_timeouts'), 'connected0', 'nobody has waited in vain');

# --- patterns ---

$redis->fill('item:7:session', 'item:x', 'itemized');
sql(q{SELECT uncache.invalidate_table('item')});
ok(delivered($node), 'invalidate_table is delivered');
is(join(' ', $redis->keys('item*')), 'item:7:session item:x itemized',
	'it deletes what the rule can make, and nothing else');
$redis->fill_range('item:', 1, $rows);
sql('TRUNCATE item');
ok(delivered($node), 'TRUNCATE is delivered');
is(join(' ', $redis->keys('item*')), 'item:7:session item:x itemized', 'likewise');
is(scalar(my @foreign = $redis->keys('foreign:*')), 500, 'keys of others are untouched');

# --- ways to reach it ---

my @unused = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
my ($replica) = $redis->replicas_of($masters[2]);
connect_to($redis->url(@unused, $replica, $masters[0]));
ok(wait_for_state($node, 'connected'), 'seeds that are dead are passed over');
works('seeds that are dead');
connect_to($redis->url($replica));
works('a replica as the only seed');

connect_to($redis->url(@unused));
ok($node->poll_query_until('postgres',
	q{SELECT state = 'down' AND last_error LIKE '%127.0.0.1:} . $unused[0]
	. q{%' OR last_error LIKE '%127.0.0.1:} . $unused[1] . q{%' FROM uncache.stat}),
		'only dead seeds: down, and the error names one');
sql(q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_keys('item:x')});
my $single = RedisServer->new('--port', $unused[0]);
$single->start;
ok($node->poll_query_until('postgres', q{SELECT last_error ~ 'cluster' FROM uncache.stat}),
	'a Redis that is no cluster: the error says so');
connect_to($redis->url);
ok(delivered($node), 'with the right address what was kept is delivered');
ok(!$redis->has('item:x'), 'and the key is gone');

# --- a connection that is lost is made again, and named ---

foreach my $master (@masters)
{
	my $reconnects = stat_of('reconnects');

	$redis->server($master)->cli(qw(client kill type normal));
	ok($node->poll_query_until('postgres',
		qq{SELECT reconnects > $reconnects AND state = 'connected'
		AND last_error LIKE '%127.0.0.1:$master%' FROM uncache.stat}),
			'a lost connection: made again, and the error names the node');
}
works('after lost connections');

# --- a user with the smallest rights, and a password ---

my ($rights, $fenced) = slurp_file("$ENV{TESTDIR}/docs/redis.md")
	=~ /^ACL SETUSER pg_uncache (.*\+cluster\|slots.*)$/mg;
ok($fenced, 'the documentation has two lines for clusters');

# A user with these rights and no others, on every node.
sub set_rights
{
	my ($line) = @_;
	my @answers = map { $redis->server($_)->cli('acl', 'setuser', 'pg_uncache', 'reset', split / /,
		$line) } $redis->ports;

	is("@answers", join(' ', ('OK') x @answers), 'a user on every node');
	return;
}

set_rights($fenced);
sql(q{ALTER SYSTEM SET uncache.fence_ttl = '5min'});
connect_to($redis->url =~ s{//}{//pg_uncache:secret\@}r);
ok(fence_is_on($node), 'the fence is on');
sql('SELECT uncache.stat_reset()');
foreach my $key (map { $redis->keys_at($_, 'fenced:', 1) } @masters)
{
	my $snapshot = sql(q{SELECT uncache.snapshot('} . miss($redis, $key) . q{')});

	is(fill($redis, $key, $snapshot, 'value'), '1', 'a fill is let through');
	sql("SELECT uncache.invalidate_keys('$key')");
	ok(gone($redis, $key), 'and its key is deleted');
}
works('the smallest rights for the fence');
is(stat_of('last_error'), '', 'no error');
sql('ALTER SYSTEM RESET uncache.fence_ttl');
$_->cli(qw(function flush)) foreach map { $redis->server($_) } @masters;

set_rights($rights);
connect_to($redis->url =~ s{//}{//pg_uncache:wrong\@}r);
ok($node->poll_query_until('postgres', q{SELECT state = 'down' AND last_error ~ 'WRONGPASS|password'
	AND last_error ~ '127.0.0.1:\d+' FROM uncache.stat}),
	'a wrong password: the error says so, and at which node') or diag stat_of('last_error');
connect_to($redis->url =~ s{//}{//pg_uncache:secret\@}r);
ok(wait_for_state($node, 'connected'), 'the right one');
sql('SELECT uncache.stat_reset()');
works('the smallest rights');
is(stat_of('last_error'), '', 'no error');
unlike(stat_of('redis'), qr/secret/, 'the password is not shown');
unlike(slurp_file($node->logfile), qr/secret/, 'nor logged');

# With these rights slots that move are followed, too.
my ($moving) = $redis->keys_at($masters[0], 'moving:', 1);
$redis->fill($moving);
$redis->begin_move($redis->slot($moving), $masters[1]);
$redis->move_keys($redis->slot($moving));
sql("SELECT uncache.invalidate_keys('$moving')");
ok(delivered($node), 'a key of a slot on the move is delivered');
ok(!grep({ $_ eq $moving } $redis->keys('moving:*')), 'and gone');
$redis->end_move($redis->slot($moving));

# A token in place of a password: it is replaced while nobody connects, and read when
# somebody does.
{
	my $file = $node->basedir . '/token';
	my $rotate = sub {
		my ($token) = @_;

		append_to_file("$file.new", "$token\n");
		chmod 0600, "$file.new";
		rename "$file.new", $file or die $!;
		$redis->server($_)->cli(qw(acl setuser pg_uncache resetpass), ">$token")
			foreach $redis->ports;
	};

	$rotate->('first');
	sql("ALTER SYSTEM SET uncache.redis_password_file = '$file'");
	connect_to($redis->url =~ s{//}{//pg_uncache\@}r);
	works('a token');
	$rotate->('second');
	$redis->server($_)->cli(qw(client kill user pg_uncache)) foreach $redis->ports;
	works('the next token, after it has cut all connections');
	sql('ALTER SYSTEM RESET uncache.redis_password_file');
}

# --- addresses of IPv6 ---

SKIP:
{
	my $probe = IO::Socket::IP->new(LocalHost => '::1', Listen => 1);

	skip 'this machine has no ::1', 8 unless $probe;
	close $probe;
	$redis = RedisCluster->new(host => '::1', replicas => 0);
	@masters = $redis->masters;
	connect_to($redis->url($masters[0]));
	works('IPv6');
	is(stat_of('redis'), "redis+cluster://[::1]:$masters[0]/0 (3 nodes)", 'uncache.stat shows it');
	my ($moved) = $redis->keys_at($masters[0], 'moved:', 1);
	$redis->fill($moved);
	$redis->begin_move($redis->slot($moved), $masters[1]);
	$redis->move_keys($redis->slot($moved));
	sql("SELECT uncache.invalidate_keys('$moved')");
	ok(delivered($node), 'ASK names an address of IPv6: delivered');
	is(join(' ', $redis->keys('moved:*')), '', 'and followed');
	$redis->end_move($redis->slot($moved));
	$redis->fill($moved);
	sql("SELECT uncache.invalidate_keys('$moved')");
	ok(delivered($node), 'MOVED, too');
	is(join(' ', $redis->keys('moved:*')), '', 'likewise');
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
