# A name server that is silent holds up what needs the name, and nothing else: not
# DROP DATABASE elsewhere, not a shutdown, not another Redis.

use strict;
use warnings;

use NameServer;
BEGIN { NameServer::enter() }

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use RedisServer;
use Uncache;

# What takes no time must not take longer; a silent name server costs 5 s and more.
my $soon = 4 * Uncache::crowd();

my $names = NameServer->new("127.0.0.1 by-file.test\n", 'by-dns.test' => ['127.0.0.1']);
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $redis = RedisServer->new('--port', $port, '--bind', '127.0.0.1');
$redis->start;

my $node = new_node('main', $redis);

sub sql { return $node->safe_psql('postgres', @_) }

my $library = `'$ENV{PG_CONFIG}' --pkglibdir`;
chomp $library;
if (`ldd '$library/pg_uncache.so'` !~ /libcares/)
{
	$node->stop;
	plan skip_all => 'this build has no c-ares';
}

sub take_address
{
	my ($url) = @_;

	sql('SELECT uncache.stat_reset()');
	sql("ALTER SYSTEM SET uncache.redis_url = '$url'");
	$node->reload;
	return;
}

# Whether the name is being resolved since now: the name server is asked for it.
sub is_asked_for
{
	my ($name) = @_;
	my $before = $names->asked($name);

	return poll_until(sub { $names->asked($name) > $before });
}

sub takes_no_time
{
	my ($what, $code) = @_;
	my $start = time;

	$code->();
	cmp_ok(time - $start, '<', $soon, "$what takes no time");
	return;
}

# All that a worker can be asked for meanwhile.
sub is_not_held_up
{
	my ($kind, $name, $url) = @_;

	take_address($url);
	ok(is_asked_for($name), "$kind: the name server is asked");
	sql('CREATE DATABASE other');
	takes_no_time("$kind: DROP DATABASE elsewhere", sub { sql('DROP DATABASE other') });
	takes_no_time("$kind: a reload", sub {
		ok(is_asked_for($name), "$kind: it is asked again");
		take_address($redis->url);
		ok(wait_for_state($node, 'connected'), "$kind: another address is taken");
	}) if $kind eq 'a server';
	take_address($url);
	ok(is_asked_for($name), "$kind: and again");
	takes_no_time("$kind: a fast shutdown", sub { $node->stop('fast') });
	$node->start;
	return;
}

is_not_held_up('a server', 'redis.silent.test', 'redis://redis.silent.test');
ok($node->poll_query_until('postgres',
	q{SELECT last_error LIKE
		'%redis.silent.test:6379: the host name could not be resolved: no name server has answered%'
		FROM uncache.stat}),
	'last_error says why');
is_not_held_up('Sentinels', 'one.silent.test',
	'redis+sentinel://one.silent.test,two.silent.test,three.silent.test/cache');
ok(is_asked_for('three.silent.test'), 'Sentinels: all of them are tried');
is_not_held_up('a cluster', 'one.silent.test', 'redis+cluster://one.silent.test,two.silent.test');

# The files and the answers of the machine count.
foreach my $name (qw(by-file.test by-dns.test localhost))
{
	take_address("redis://$name:$port");
	ok(wait_for_state($node, 'connected'), "$name is found");
	is(sql('SELECT redis FROM uncache.stat'), "redis://$name:$port/0", '... and connected to');
}
is($names->asked('by-file.test'), 0, 'what /etc/hosts has is not asked for');

# One target is served while the name of another is being resolved.
take_address("redis://redis.silent.test " . $redis->url);
ok(is_asked_for('redis.silent.test'), 'one of two names is silent');
$redis->fill('key');
takes_no_time('a key of the other target', sub {
	sql(q{SELECT uncache.invalidate_keys('key')});
	ok(gone($redis, 'key'), 'it is deleted');
});

$node->stop;
done_testing();
