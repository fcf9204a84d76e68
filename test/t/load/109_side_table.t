# Many keys that Redis refuses: their table is vacuumed, and read as a whole only when there
# may be news in it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'autovacuum_naptime = 1s', 'log_statement = none',
	"uncache.wait_timeout = 0");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub stat_of
{
	return sql("SELECT $_[0] FROM pg_stat_all_tables
		WHERE relid = 'uncache.outbox_side'::regclass");
}

ok(wait_for_state($node, 'connected'), 'the worker is connected');
$redis->cli('acl', 'setuser', 'default', 'resetkeys', '~ok:*');
my $count = 3000;
sql(qq{DO \$\$ BEGIN FOR i IN 1 .. $count LOOP PERFORM uncache.invalidate_keys('no:' || i); COMMIT;
	END LOOP; END \$\$});
ok(poll_until(sub { sql('SELECT count(*) FROM uncache.outbox_side') >= $count }),
	'all are set aside');
ok($node->poll_query_until('postgres', q{SELECT min(attempts) >= 2 FROM uncache.backlog}),
	'and tried again');
ok(poll_until(sub { stat_of('n_tup_ins') >= $count && stat_of('n_tup_del') > 0 }),
	'what the worker writes is reported');
ok(poll_until(sub { stat_of('autovacuum_count') > 0 }), 'so autovacuum comes');

# Each try of a row would read the table: now it is read when somebody commits a prepared
# transaction, waits, or a node comes.
my $before = stat_of('seq_scan');
my $tries = sql('SELECT sum(attempts) FROM uncache.backlog');
ok(poll_until(sub { sql('SELECT sum(attempts) FROM uncache.backlog') > $tries + $count }),
	'all are tried once more');
my $scans = stat_of('seq_scan') - $before;
cmp_ok($scans, '<', 20, "the table was read $scans times meanwhile");

$redis->cli('acl', 'setuser', 'default', 'allkeys');
ok(poll_until(sub { sql('SELECT count(*) FROM uncache.outbox_side') eq '0' }),
	'they are delivered when Redis takes them');
ok(delivered($node), 'and nothing is left');

# A row that is given up, or that somebody else has deleted, is not waited for.
$redis->cli('acl', 'setuser', 'default', 'resetkeys', '~ok:*');
sql(q{SELECT uncache.invalidate_keys('no:1')});
ok($node->poll_query_until('postgres',
	'SELECT count(*) = 1 AND min(attempts) > 0 FROM uncache.backlog'), 'a key is refused');
sql('SELECT uncache.discard_backlog(xid) FROM uncache.backlog');
ok(delivered($node), 'and given up');
sql(q{SELECT uncache.invalidate_keys('no:2')});
ok($node->poll_query_until('postgres', 'SELECT keys_refused_now = 1 FROM uncache.stat'),
	'another is refused');
sql('ALTER TABLE uncache.outbox_side DISABLE TRIGGER ALL; DELETE FROM uncache.outbox_side;
	ALTER TABLE uncache.outbox_side ENABLE TRIGGER ALL');
ok($node->poll_query_until('postgres', 'SELECT keys_refused_now = 0 FROM uncache.stat'),
	'when its row is gone it is forgotten');

$node->stop;
done_testing();
