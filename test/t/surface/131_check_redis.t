# uncache.check_redis(): what it says of a Redis that works, and of each that does not.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisCluster;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);
ok(wait_for_state($node, 'connected'), 'connected');

# check(NAME): ok and detail of a check; '' where it is not made.
sub check
{
	my ($name) = @_;

	return $node->safe_psql('postgres',
		"SELECT ok, detail FROM uncache.check_redis() WHERE \"check\" = '$name'");
}

sub all_checks
{
	return $node->safe_psql('postgres',
		'SELECT "check", ok FROM uncache.check_redis() WHERE ok IS NOT NULL ORDER BY 1');
}

sub reload
{
	my (@settings) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $_") foreach @settings;
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# A Redis at which all is well.
is($node->safe_psql('postgres', 'SELECT count(*) FROM uncache.check_redis() WHERE NOT ok'), '0',
	'no check fails') or diag(all_checks());
is(check('reachable'), 't|' . $redis->url . ': connected', 'reachable');
like(check('version'), qr/^t\|(Redis|Valkey) \d+\.\d+/, 'version');
is(check('name resolution'), 't|there is no name to resolve', 'a socket has no name');
like(check('TLS'), qr/^\|not asked for/, 'no TLS');
like(check('latency'), qr/^t\|a round trip takes [\d.]+ to [\d.]+ ms; uncache.wait_timeout is/,
	'latency');
like(check('eviction policy'), qr/^t\|noeviction, without a limit/, 'no limit of memory');
is(check('fence'), '|off: uncache.fence_ttl is 0', 'no fence');
is(check('user'), 't|default', 'the user');
is(check('right: UNLINK'), 't|allowed', 'the right to delete');
like(check('right: SCAN'), qr/^t\|allowed/, 'and to look for patterns');

# It touches no key, and changes nothing.
$redis->fill('a', 'b');
like(check('keys'), qr/^t\|2, /, 'keys are counted');
$redis->cli('config', 'resetstat');
check('keys');
my @touched = grep { $redis->calls($_) > 0 } qw(unlink del get set fcall xadd touch expire);
is("@touched", '', 'no command with a key is carried out');
is($redis->cli('object', 'freq', 'a') =~ /^ERR/ ? 1 : 0, 1, 'Redis keeps no frequencies');

# Rights: of each command, and of the keys of each rule.
$node->safe_psql('postgres', q{
	CREATE TABLE item (id int, kind text);
	SELECT uncache.attach('item', 'item:{id}', 'shop:{{{id}}}:{kind}', '{kind}');
	CREATE TABLE secret (id uuid);
	SELECT uncache.attach('secret', 'secret:{id}')});
is(check('right: UNLINK item:*'), 't|allowed', 'keys of a rule may be deleted');
is(check('right: UNLINK shop:{*}:*'), 't|allowed', 'with a hash tag');
$redis->cli('acl', 'setuser', 'pg_uncache', 'on', '>pw', '~item:*', '~shop:*', 'resetchannels',
	'-@all', '+unlink', '+ping', '+info', '+acl|whoami', '+acl|dryrun');
(my $path = $redis->url) =~ s/^unix:\/\///;
append_to_file($node->data_dir . '/password', 'pw');
reload("uncache.redis_url = 'unix://pg_uncache\@$path'",
	"uncache.redis_password_file = '" . $node->data_dir . "/password'");
ok($node->poll_query_until('postgres', q{SELECT ok AND detail = 'pg_uncache'
	FROM uncache.check_redis() WHERE "check" = 'user'}), 'another user is connected');
is(check('right: UNLINK'), 't|allowed', 'it may delete');
is(check('right: UNLINK item:*'), 't|allowed', 'keys of one rule');
like(check('right: UNLINK secret:*'), qr/^f\|refused \(/, 'and not those of another');
like(check('right: SCAN'), qr/^f\|refused .*: for patterns$/, 'nor scan');
like(check('right: ROLE'), qr/^f\|refused .*: recommended$/, 'what is recommended says so');
like(check('keys'), qr/^\|the server does not count them/, 'what is hidden is unknown');

# Without the right to ask for rights nothing is known of them, and the rest is told.
$redis->cli('acl', 'setuser', 'pg_uncache', '-acl|dryrun', '-acl|whoami');
like(check('user'), qr/^\|not known, so that no right can be checked/, 'the user is not known');
is(check('right: UNLINK'), '', 'nor its rights');
like(check('reachable'), qr/^t\|/, 'but it is connected');
$redis->cli('acl', 'setuser', 'pg_uncache', '+acl|whoami');
like(check('right: UNLINK'), qr/^\|the server does not tell: /, 'a right that is not told is NULL');

# The fence, with its rights.
reload("uncache.redis_url = '" . $redis->url . "'", "uncache.redis_password_file = ''",
	"uncache.fence_ttl = '5min'");
ok($node->poll_query_until('postgres',
	q{SELECT ok FROM uncache.check_redis() WHERE "check" = 'fence'}), 'the fence is on');
like(check('functions'), qr/^t\|the library/, 'with its functions');
is(check('right: SET uncache:{item:*}'), 't|allowed: for fenced fills', 'and its records');
like(check('right: FCALL'), qr/^t\|/, 'which may be called');
reload('uncache.wait_replicas = 1');
ok($node->poll_query_until('postgres',
	q{SELECT NOT ok FROM uncache.check_redis() WHERE "check" = 'replicas'}),
	'a missing replica is told');
reload('uncache.wait_replicas = 0', "uncache.fence_ttl = 0");

# A limit of memory without eviction.
$redis->cli('config', 'set', 'maxmemory', '100mb');
like(check('eviction policy'), qr/^f\|noeviction with maxmemory 104857600/, 'noeviction is told');
$redis->cli('config', 'set', 'maxmemory-policy', 'allkeys-lru');
is(check('eviction policy'), 't|allkeys-lru with maxmemory 104857600', 'and a policy for caches');

# A database in LATIN1: its names are the same characters in Redis; what it lacks is "?".
sub check_in_latin
{
	my ($name) = @_;

	return $node->safe_psql('latin', "SET client_encoding = 'UTF8';
		SELECT ok, detail FROM uncache.check_redis() WHERE \"check\" = '$name'");
}

$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C'
	LC_CTYPE 'C' TEMPLATE template0});
$node->safe_psql('latin', "SET client_encoding = 'UTF8';
	ALTER DATABASE latin SET uncache.stream = 'str\xC3\xA9am'; CREATE EXTENSION pg_uncache");
ok(wait_for_state($node, 'connected', 'latin'), 'a database in LATIN1');
$redis->cli('hset', "str\xC3\xA9am", 'field', 'value');
is(check_in_latin('stream'), "f|the key \"str\xC3\xA9am\" holds a hash: choose another name, or "
	. 'delete it', 'the stream has its UTF-8 name');
$redis->cli('acl', 'setuser', "\xCE\xB1\xC3\xA9", 'on', '>pw', '~*', '+@all');
reload("uncache.redis_url = 'unix://%CE%B1%C3%A9\@$path'",
	"uncache.redis_password_file = '" . $node->data_dir . "/password'");
ok($node->poll_query_until('latin', q{SELECT detail = '?' || chr(233)
	FROM uncache.check_redis() WHERE "check" = 'user'}),
	'a character that the database lacks is no error');
reload("uncache.redis_url = '" . $redis->url . "'", "uncache.redis_password_file = ''");
$node->safe_psql('postgres', 'DROP DATABASE latin');

# A Redis that hangs, that is away, and whose name nobody knows: an answer all the same.
$redis->freeze;
like(check('reachable'), qr/^f\|.*: no connection: /, 'a Redis that hangs is told');
$redis->thaw;
$redis->kill9;
like(check('reachable'), qr/^f\|.*: no connection: /, 'a Redis that is away is told');
is(check('right: UNLINK'), '', 'and has no rights to tell');
reload("uncache.redis_url = 'redis://nosuch.invalid:1'");
ok($node->poll_query_until('postgres', q{SELECT NOT ok AND detail LIKE '%nosuch.invalid%'
	FROM uncache.check_redis() WHERE "check" = 'name resolution'}),
	'a name that is not known is told');

# Two servers: what differs names the server.
$redis->start;
my $other = RedisServer->new;
$other->start;
reload("uncache.redis_url = '" . $redis->url . ' ' . $other->url . "'");
ok(wait_for_state($node, 'connected'), 'connected to two');
is(check('reachable'), 't|connected (all 2 servers)', 'both are reachable');
$other->fill('only');
like(check('keys'), qr/^t\|\Q${\$redis->url}\E: 0, .*\nt\|\Q${\$other->url}\E: 1, /,
	'each has its keys');
$other->kill9;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM uncache.check_redis()
	WHERE "check" = 'reachable' AND NOT ok}), 'one of them is away');

# A cluster.
my $cluster = RedisCluster->new(replicas => 0);
reload("uncache.redis_url = '" . $cluster->url . "'");
ok(wait_for_state($node, 'connected'), 'connected to a cluster');
is(check('reachable'), 't|connected (all 3 servers)', 'all masters are reachable');
is(check('right: CLUSTER SLOTS'), 't|allowed (all 3 servers)', 'with the rights for a cluster');

# Switched off, and no worker.
reload("uncache.redis_url = '" . $redis->url . "'", 'uncache.delivery = off');
ok(wait_for_state($node, 'paused'), 'paused');
like(check('reachable'), qr/^\|not checked: uncache.delivery is off/, 'a pause is told');
reload('uncache.delivery = on');
ok(wait_for_state($node, 'connected'), 'connected');
$node->safe_psql('postgres', 'CREATE DATABASE standard_template IS_TEMPLATE true');
my ($ret, $out, $err) = $node->psql('postgres', 'SELECT 1');
$node->safe_psql('standard_template', 'CREATE EXTENSION pg_uncache');
($ret, $out, $err) = $node->psql('standard_template', 'SELECT * FROM uncache.check_redis()');
like($err, qr/no worker has answered uncache.check_redis\(\) in time.*HINT:.*uncache\.stat/s,
	'without a worker there is an error with a hint');

# Many sessions at once, of which some give up: each gets its own answer.
my $worker = $node->safe_psql('postgres', 'SELECT worker_pid FROM uncache.stat');
kill 'STOP', $worker;
($ret, $out, $err) = $node->psql('postgres',
	q{SET statement_timeout = '200ms'; SELECT * FROM uncache.check_redis()});
like($err, qr/canceling statement due to statement timeout/, 'a question can be cancelled');
kill 'CONT', $worker;
is($node->safe_psql('postgres', 'SELECT count(*) > 10 FROM uncache.check_redis()'), 't',
	'and the next one is answered');
$node->pgbench('--client=8 --transactions=5 --no-vacuum', 0, [qr{processed: 40/40}], [qr{^$}],
	'eight sessions ask at once',
	{ '131_check' => q{SELECT 1 / (count(*) > 10)::int FROM uncache.check_redis();} });

# Rights in PostgreSQL.
$node->safe_psql('postgres', 'CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE stranger;
	CREATE ROLE reader IN ROLE pg_read_all_data');
is($node->psql('postgres', 'SET ROLE watcher; SELECT * FROM uncache.check_redis()'), 0,
	'pg_monitor may check');
isnt($node->psql('postgres', 'SET ROLE stranger; SELECT * FROM uncache.check_redis()'), 0,
	'others may not');
is($node->psql('postgres', q{SET ROLE reader; SELECT * FROM uncache.backlog_keys('3')}), 0,
	'pg_read_all_data may see keys of the backlog');

# Locked tables do not hold it up.
my $locked = $node->background_psql('postgres', on_error_stop => 0)
	if $node->can('background_psql');
SKIP:
{
	skip 'no background sessions', 1 unless ref $locked && $locked->can('query_until');
	$locked->query_until(qr/locked/, "BEGIN; LOCK TABLE item;\n\\echo locked\n");
	is($node->safe_psql('postgres', q{SET statement_timeout = '60s';
		SELECT count(*) FROM uncache.check_redis() WHERE "check" = 'right: UNLINK item:*'}), '0',
		'a table that is locked is left out');
	$locked->quit;
}

done_testing();
