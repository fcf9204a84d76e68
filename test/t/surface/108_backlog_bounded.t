# A look at uncache.backlog reads a bounded number of blocks, whatever its length, and says
# where it is an estimate.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
my $node = new_node('main', $redis, 'fsync = off', 'synchronous_commit = off',
	'log_statement = none', 'autovacuum = off',
	'log_temp_files = 0', 'max_wal_size = 2GB');

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Small transactions, so many a second as can be.
sub commit_small
{
	my ($count) = @_;

	sql(qq{DO \$\$ BEGIN FOR i IN 1 .. $count LOOP PERFORM uncache.invalidate_keys('user:' || i);
		COMMIT; END LOOP; END \$\$});
	return;
}

# Blocks that a look at the backlog reads, of all tables.
sub blocks_read
{
	my $plan = sql('EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) SELECT count(*), sum(keys),
		max(age) FROM uncache.backlog');
	my ($hit) = $plan =~ /shared hit=(\d+)/;
	my ($read) = $plan =~ /shared (?:hit=\d+ )?read=(\d+)/;

	return ($hit // 0) + ($read // 0);
}

commit_small(5000);
is(sql('SELECT count(*), sum(keys), bool_or(estimated) FROM uncache.backlog'), '5000|5000|f',
	'a small backlog is shown as it is');
cmp_ok(blocks_read(), '>=', 45, 'and read as a whole');

commit_small(250_000);
my ($blocks) = sql(q{SELECT sum(pg_relation_size('uncache.outbox_' || i)) / 8192
	FROM generate_series(0, 3) i});
cmp_ok($blocks, '>', 1500, "a backlog of $blocks blocks");
my $read = blocks_read();
cmp_ok($read, '<', 600, "a look reads $read of them");
is(sql('SELECT bool_and(estimated) FROM uncache.backlog'), 't', 'what it shows is estimated');
is(sql('SELECT sum(keys) BETWEEN 0.98 * 255000 AND 1.02 * 255000, count(*) < 60000
	FROM uncache.backlog'), 't|t',
	'the keys of all that are not shown are in a row of their own');
is(sql('SELECT count(*), min(keys) > 100000 FROM uncache.backlog WHERE xid IS NULL'), '1|t',
	'which has no transaction id');
unlike(slurp_file($node->logfile), qr/temporary file/, 'no temporary file was needed');

# A large transaction among them.
sql("SELECT count(uncache.invalidate_keys(lpad(i::text, 500, 'x')))
	FROM generate_series(1, 60000) i");
is(sql('SELECT keys BETWEEN 50000 AND 70000 FROM uncache.backlog WHERE xid IS NOT NULL
	ORDER BY keys DESC LIMIT 1'), 't',
	'the keys of a large transaction are estimated');
is(sql('SELECT sum(keys) BETWEEN 0.9 * 315000 AND 1.1 * 315000 FROM uncache.backlog'), 't',
	'and the sum is right');

$node->stop;
done_testing();
