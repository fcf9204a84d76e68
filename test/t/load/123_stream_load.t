# The stream under load: a million keys, and a consumer group of which a consumer dies.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Stream;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, q{uncache.stream = 'news'}, 'autovacuum = off');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

# --- a million keys ---

sql(q{SELECT count(uncache.invalidate_keys('big:' || i)) FROM generate_series(1, 1000000) i});
ok(delivered($node), 'a million keys are delivered');
my %named = named_in($redis, 'news');
is(scalar(grep { $named{"big:$_"} } 1 .. 1000000), 1000000, 'all are named');
my $entries = $redis->cli('xlen', 'news');
note "$entries entries";
cmp_ok($entries, '<', 1000000 / 128 * 1.2, 'in hardly more entries than they fill');
is(stat_of('stream_entries_lost'), '0', 'none is lost');

# --- a consumer group ---

# What a consumer gets: id => keys.
sub read_as
{
	my ($consumer, $from, $count) = @_;
	my @lines = split /\n/, $redis->cli(qw(xreadgroup group readers), $consumer,
		'count', $count, 'streams', 'news', $from);
	my (%keys, $id);

	foreach (@lines)
	{
		$id = $_ if /^\d+-\d+$/;
		push @{ $keys{$id} }, /"(few:\d+)"/g if /^\[/;
	}
	return %keys;
}

sub handled
{
	my ($done, %keys) = @_;

	$done->{$_}++ foreach map { @$_ } values %keys;
	$redis->cli('xack', 'news', 'readers', keys %keys) if %keys;
	return;
}

is($redis->cli(qw(xgroup create news readers $)), 'OK', 'a group that begins now');
my %done;
sql("SELECT uncache.invalidate_keys('few:$_')") foreach 1 .. 50;
handled(\%done, read_as('one', '>', 10));
my %taken = read_as('one', '>', 10);
cmp_ok(scalar keys %taken, '>', 0,
	'a consumer takes entries, and dies before it acknowledges them');
$redis->cli(qw(client kill type normal skipme yes));
sql("SELECT uncache.invalidate_keys('few:$_')") foreach 51 .. 100;
ok(delivered($node), 'commits go on');
my %again = read_as('one', '0', 1000);
is_deeply([ sort keys %again ], [ sort keys %taken ], 'when it is back it gets these again');
handled(\%done, %again);
while (my %more = read_as('one', '>', 1000))
{
	handled(\%done, %more);
}
is(scalar(grep { !$done{"few:$_"} } 1 .. 100), 0, 'and has missed nothing');

$node->stop;
done_testing();
