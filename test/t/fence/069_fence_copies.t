# Servers that are not, or not yet, what their data says they are: a copy that does not know
# that it is one, and a standby that is promoted while a statement runs.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'pg_uncache'
uncache.redis_url = 'unix://} . $redis->socket . qq{'
uncache.wait_timeout = '10s'
uncache.fence_ttl = '5min'
});
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
make_item($primary);
fence_is_on($primary) or die 'the fence does not come on';
$primary->backup('base');

sub sql { return $primary->safe_psql('postgres', $_[0]) }

# Change the row; then nothing but a token and the snapshot's own age can refuse a fill.
sub change
{
	my ($id) = @_;

	sql("UPDATE item SET v = v + 1 WHERE id = $id");
	delivered($primary) or die 'not delivered';
	$redis->cli('del', "uncache:{item:$id}");
	return;
}

# --- copies ---

foreach my $conf ("shared_preload_libraries = ''", 'uncache.delivery = off')
{
	my $copy = PostgreSQL::Test::Cluster->new($conf =~ /preload/ ? 'bare' : 'idle');

	$copy->init_from_backup($primary, 'base');
	$copy->append_conf('postgresql.conf', "$conf\n");
	$copy->start;
	change(2);
	my ($value, $snapshot) = look($copy, miss($redis, 'item:2'), 2);
	isnt($value, sql('SELECT v FROM item WHERE id = 2'), "a copy with $conf has the old row");
	isnt(fill($redis, 'item:2', $snapshot // '', $value), '1', 'which is not stored');
	is(read_item($redis, $primary, 2), '1', 'as that of the original is');
	$copy->stop;
}

# --- a standby that is promoted while a statement runs ---

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# Its worker, which would void all tokens, does not come in time.
$standby->append_conf('postgresql.conf', "uncache.delivery = off\n");
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q{SELECT pg_get_wal_replay_pause_state() = 'paused'})
	or die 'not paused';
change(3);
my $token = miss($redis, 'item:3');
my $reader = start_psql($standby, qq{
	WITH waited AS MATERIALIZED (SELECT pg_sleep(0.01) FROM generate_series(1, 6000)
		WHERE (pg_stat_file('go', true)).size IS NULL)
	SELECT v, uncache.snapshot('$token') FROM item
		WHERE id = 3 AND (SELECT count(*) FROM waited) > 0});
$standby->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'})
  or die 'it does not wait';
$standby->promote;
append_to_file($standby->data_dir . '/go', 'go');
is($reader->finish, 0, 'a statement goes on over the promotion') or diag $reader->err;
chomp(my $row = $reader->out);
my ($value, $snapshot) = split /\|/, $row, 2;
isnt($value, sql('SELECT v FROM item WHERE id = 3'), 'it has read the old row');
is(fill($redis, 'item:3', $snapshot, $value), '0', 'which is not stored');

$standby->stop;
$primary->stop;
done_testing();
