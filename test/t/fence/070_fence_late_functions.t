# A worker that could not load the functions, because its user may not, finds those that another
# worker loads: its deletes must not go unnoticed by them.

use strict;
use warnings;

use FindBin;

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

# An older library stays, since the worker may not replace it.  Its readers go on to get tokens
# of an epoch that somebody has set, and must not put old rows back.
$node->stop;
my $library = slurp_file("$FindBin::Bin/../../../src/fence/uncache.lua");
$library =~ s/^local VERSION = \d+/local VERSION = 1/m or die 'no version';
$redis->cli('function', 'load', 'replace', $library);
$redis->cli('fcall', 'uncache_epoch', 0, 'older', 300000);
$node->append_conf('postgresql.conf', "uncache.databases = 'postgres'");
$node->start;
ok(fence_of('postgres', 'not possible'), 'an older library can not be replaced');
like(fence_stat($node, 'last_error'), qr/NOPERM/, 'the error says why');
$redis->cli('fcall', 'uncache_epoch', 0, 'older', 300000);
($value, $snapshot) = look($node, miss($redis, 'item:2'), 2);
$node->safe_psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 2');
ok(delivered($node), 'delivered');
is(fill($redis, 'item:2', $snapshot, $value), '0', 'a late fill is refused: the record is gone');

$node->stop;
done_testing();
