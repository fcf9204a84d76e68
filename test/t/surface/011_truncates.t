# A thousand TRUNCATEs with a million keys in Redis share a few passes of SCAN,
# and take no key that only looks like one of the rule's.

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

$node->safe_psql('postgres', q{
	CREATE TABLE users (id int PRIMARY KEY);
	CREATE TABLE docs (id uuid PRIMARY KEY);
	SELECT uncache.attach('users', 'user:{id}');
	SELECT uncache.attach('docs', 'doc:{id}')});
ok(delivered($node), 'the worker is up to date');
$redis->fill_range('other:', 1, 1000000);

# What one pass costs, in calls of SCAN, by the server's own count.
my $before = $redis->calls('scan');
$node->safe_psql('postgres', q{SELECT uncache.invalidate_pattern('nothing:like:this:*')});
ok(delivered($node), 'one pattern is delivered');
my $one_pass = $redis->calls('scan') - $before;
cmp_ok($one_pass, '>', 10, 'in steps');
is($redis->calls('keys'), '0', 'without KEYS');

my $uuid = '0b9d6b1e-6d0a-4f3e-9a52-9d1f3c1f8a11';
my @bystanders = ('user:settings', 'user:42:session', 'user:', 'user:4x', 'USER:1', 'app:user:1',
	'doc:1', "doc:$uuid:x", 'user:{42}');
$redis->fill(@bystanders);
$redis->fill_range('user:', 1, 20000);
$redis->fill('user:-7', "doc:$uuid");

$before = $redis->calls('scan');
my $passes_before = $node->safe_psql('postgres', 'SELECT pattern_passes FROM uncache.stat');
$node->safe_psql('postgres', join ";\n", ('TRUNCATE users', 'TRUNCATE docs') x 500);
ok(delivered($node), 'a thousand TRUNCATEs are delivered');
my $calls = $redis->calls('scan') - $before;
my $passes = $node->safe_psql('postgres',
	'SELECT pattern_passes FROM uncache.stat') - $passes_before;

note "calls of SCAN: $one_pass for one pass, $calls for 1000 TRUNCATEs ($passes passes)";
# A pass over the keys that were added is a little longer.
cmp_ok($calls, '<=', 5.2 * $one_pass, 'in at most five passes');
cmp_ok($passes, '<=', 5, 'as the statistics say, too');
cmp_ok($passes, '>=', 1, 'but not in none');
is(join(' ', sort(grep { !/^other:/ } $redis->keys('*'))), join(' ', sort @bystanders),
	'all keys of the rules are gone, and no other');
is($redis->cli('dbsize'), 1000000 + @bystanders, 'of another application neither');

$node->stop;
done_testing();
