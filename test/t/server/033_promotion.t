# A standby has neither launcher nor worker; promotion brings both.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;
use Workers;

my $redis = RedisServer->new;
$redis->start;
my $primary = PostgreSQL::Test::Cluster->new('primary');

$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_uncache'\nuncache.redis_url = '" . $redis->url . "'\n");
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
ok(wait_for_worker($primary, 'postgres'), 'the primary has a worker');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', 'CREATE DATABASE other');
$primary->safe_psql('other', 'CREATE EXTENSION pg_uncache');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg\_uncache%'}),
	'0', 'the standby has no process of pg_uncache');

# What the hook watches fails on a standby in the way that PostgreSQL has it.
foreach my $command ('DROP DATABASE other', 'ALTER DATABASE other RENAME TO another',
	'CREATE DATABASE copy TEMPLATE other', q{ALTER DATABASE other SET uncache.key_prefix = 'x'})
{
	my (undef, undef, $error) = $standby->psql('postgres', $command);

	like($error, qr/read-only transaction/, "$command is refused on a standby");
}

$standby->promote;
ok(wait_for_worker($standby, $_), "after promotion $_ has a worker") foreach 'postgres', 'other';
like(launcher_of($standby), qr/^\d+$/, 'and there is one launcher');
$standby->safe_psql('postgres', 'DROP DATABASE other');
is(workers($standby), 'postgres', 'DROP DATABASE works there');

# Without preloading.
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
my (undef, undef, $error) = $plain->psql('postgres', 'CREATE EXTENSION pg_uncache');
like($error, qr/ERROR: .*shared_preload_libraries/, 'CREATE EXTENSION asks for preloading');
like($error, qr/HINT: .*restart the server/, 'with a hint');
$plain->safe_psql('postgres', $_) foreach q{LOAD 'pg_uncache'; CREATE DATABASE other},
  q{LOAD 'pg_uncache'; ALTER DATABASE other RENAME TO another},
  q{LOAD 'pg_uncache'; DROP DATABASE another; CREATE TABLE t (); DROP TABLE t};
pass('a library that is only loaded is in nobody\'s way');

$_->stop foreach $plain, $standby, $primary;
done_testing();
