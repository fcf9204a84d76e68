# Two servers of different versions at one Redis.  The newer one replaces the Redis functions;
# that ends the epoch of both, so fills that began before are refused, and no stale value gets
# in.  Both go on with the newer functions, also when the older server starts again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Fence;
use RedisServer;
use Uncache;
use Versions;

my $redis = RedisServer->new;
$redis->start;
my @conf = (q{uncache.fence_ttl = '5min'});
my $older = new_server('older', 'this', $redis, @conf);

$older->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
make_item($older);
ok(fence_is_on($older), 'the older server has the fence on');

sub library_version
{
	my $code = $redis->cli(qw(function list libraryname uncache withcode));

	return $code =~ /^local VERSION = (\d+)$/m ? $1 : 'none';
}

my $version = library_version();
ok(becomes_cacheable($redis, $older, 1), 'its readers fill');

# Readers that have looked, and have not filled yet.
$redis->cli('del', 'item:2', 'item:3');
my %late = map { $_ => [ look($older, miss($redis, "item:$_"), $_) ] } 2, 3;

my $newer = new_server('newer', 'newer', $redis, @conf, "uncache.key_prefix = 'n:'");
$newer->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
make_item($newer);
ok(fence_is_on($newer), 'the newer server has the fence on');
is(library_version(), $version + 1, 'with its own functions');
$older->safe_psql('postgres', 'UPDATE item SET v = 2 WHERE id = 2');
foreach my $id (sort keys %late)
{
	my ($value, $snapshot) = @{ $late{$id} };

	is(fill($redis, "item:$id", $snapshot, $value), '0',
		"a fill of item:$id that began before is refused");
}
ok(fence_is_on($older), 'the fence of the older server comes on again');
ok(becomes_cacheable($redis, $older, $_), "its readers fill item:$_") foreach 1 .. 3;
is(cached($redis, 'item:2'), '2', 'with what is in the database');

# Fills and changes of the older server while the newer one comes and goes.
my ($stale, $stored, $changes) = (0, 0, 0);
my $reader = $older->background_psql('postgres');

foreach my $round (1 .. 3)
{
	foreach my $step ('restart', 'stop', 'start')
	{
		$newer->$step;
		foreach my $i (1 .. 20)
		{
			my $id = 4 + $i % 3;
			my @reply = split /\n/, $redis->cli('fcall', 'uncache_get', 1, "item:$id"), -1;
			my ($value, $snapshot) = @reply == 2 ? look($reader, $reply[1], $id) : ();

			$older->safe_psql('postgres', "UPDATE item SET v = v + 1 WHERE id = $id");
			$changes++;
			$stale++ if $redis->has("item:$id");
			next unless defined $snapshot && $snapshot ne '';
			$stale++ if fill($redis, "item:$id", $snapshot, $value) eq '1';
			$stored++ if read_item($redis, $reader, $id) eq '1';
		}
	}
}
is($stale, 0, "no stale value in $changes changes while the newer server comes and goes");
cmp_ok($stored, '>', 0, 'and readers filled meanwhile');

$older->restart;
ok(fence_is_on($older) && fence_is_on($newer), 'after a restart of the older server both are on');
is(library_version(), $version + 1, 'and the functions stay the newer ones');
ok(becomes_cacheable($redis, $older, 1), 'readers of the older server fill');
$older->safe_psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 1');
ok(!$redis->has('item:1'), 'its COMMIT deletes');
$redis->fill('n:item:1');
$newer->safe_psql('postgres', 'UPDATE item SET v = v + 1 WHERE id = 1');
ok(!$redis->has('n:item:1'), 'and that of the newer one');

$reader->quit;
$_->stop foreach $older, $newer;
done_testing();
