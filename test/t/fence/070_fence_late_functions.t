# A worker that could not load the functions, because its user may not, finds those that another
# worker loads: its deletes must not go unnoticed by them.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
$redis->cli(qw(acl setuser poor on >secret ~* +@all -function|load));
my $node = new_node('main', undef,
	q{uncache.redis_url = 'unix://poor:secret@} . $redis->socket . q{'},
	"uncache.fence_ttl = '5min'", "uncache.wait_timeout = '10s'");

sub fence_of
{
	my ($database, $state) = @_;
	return $node->poll_query_until($database, "SELECT fence = '$state' FROM uncache.stat");
}

make_item($node);
ok(fence_of('postgres', 'not possible'), 'no right to load them: no functions');
like(fence_stat($node, 'last_error'), qr/NOPERM/, 'the error says why');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('postgres',
	q{ALTER DATABASE other SET uncache.redis_url = '} . $redis->url . q{'});
$node->safe_psql('other', 'CREATE EXTENSION pg_uncache');
ok(fence_of('other', 'on'), 'another worker loads them');
ok(fence_of('postgres', 'on'), 'and the first finds them');

my ($value, $snapshot) = look($node, miss($redis, 'item:1'));
$node->safe_psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 1');
ok(delivered($node), 'delivered');
is(fill($redis, 'item:1', $snapshot, $value), '0', 'a late fill is refused');
ok(becomes_cacheable($redis, $node), 'a fresh one is stored');

$node->stop;
done_testing();
