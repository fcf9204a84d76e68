# The Debian package is not removed from under a server that preloads the library, and
# the ways out are what docs/operations.md says where the library's file is missing.

use strict;
use warnings;

use File::Temp;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

plan skip_all => 'the postmaster\'s libraries are in /proc' unless -r "/proc/$$/maps";

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);
my $major = int $node->pg_version;
my $folder = File::Temp->newdir(TMPDIR => 1);

# What pg_lsclusters says where there are this server and one of another major.
append_to_file("$folder/pg_lsclusters", join "\n", '#!/bin/sh',
	"echo '9.6 old 5431 down postgres /nowhere /nowhere.log'",
	"echo '$major main 5432 online postgres " . $node->data_dir . " /nowhere.log'", '');
chmod 0755, "$folder/pg_lsclusters";

# The script as debian/rules makes it for a major; its exit code and stderr.
sub prerm
{
	my ($for, @arguments) = @_;
	my $script = slurp_file('debian/prerm.in') =~ s/PGVERSION/$for/gr;

	unlink "$folder/prerm";
	append_to_file("$folder/prerm", $script);
	local $ENV{PATH} = "$folder:$ENV{PATH}";
	my $err = `sh $folder/prerm @arguments 2>&1`;

	return ($? >> 8, $err);
}

my ($code, $err) = prerm($major, 'remove');
is($code, 1, 'remove is refused while a server preloads the library');
like($err, qr{running servers: $major/main .*DROP EXTENSION.*shared_preload_libraries}s,
	'and says which, and the way out');
is_deeply([prerm($major, 'upgrade', '1.1')], [0, ''], 'an upgrade is not');
is_deeply([prerm($major + 1, 'remove')], [0, ''], 'nor the package of another major');

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->restart;
is_deeply([prerm($major, 'remove')], [0, ''], 'a server without it in memory keeps nobody');

# --- what the package says after it was installed, or upgraded ---

# What postinst prints, as debian/rules makes it for a major and the version 1.2-1.
sub postinst
{
	my $script = slurp_file('debian/postinst.in') =~ s/PGVERSION/$major/gr =~ s/DEBVERSION/1.2-1/gr;

	unlink "$folder/postinst";
	append_to_file("$folder/postinst", $script);
	return scalar `sh $folder/postinst @_ 2>&1`;
}

SKIP:
{
	skip 'this is no Debian', 4 unless -x '/usr/bin/dpkg';
	like(postinst('configure', q{''}), qr{shared_preload_libraries.*CREATE EXTENSION.*README}s,
		'a new package says what to do next');
	like(postinst('configure', '1.0-1'), qr{restarted.*ALTER EXTENSION pg_uncache UPDATE}s,
		'an upgraded one, which steps are due');
	is(postinst('configure', '1.2-1'), '', 'one that is configured again, nothing');
	is(postinst('abort-upgrade', '1.2-1'), '', 'nor one whose upgrade failed');
}

# --- the file is missing: its functions look for another one that is not there ---

sub sql { return $node->safe_psql('postgres', @_) }

# What psql says on stderr.
sub said
{
	my (undef, undef, $err) = $node->psql('postgres', $_[0]);

	return $err;
}

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{'pg_uncache'});
$node->restart;
sql(q{CREATE TABLE item (id int PRIMARY KEY); SELECT uncache.attach('item', 'item:{id}')});
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->restart;
sql(q{UPDATE pg_proc SET probin = '$libdir/no_pg_uncache' WHERE probin = '$libdir/pg_uncache'});
foreach my $command ('INSERT INTO item VALUES (1)',
	'CREATE TABLE other (id int)', 'DROP TABLE item')
{
	like(said($command), qr/ERROR:  could not access file "\$libdir\/no_pg_uncache"/,
		"$command fails without the file");
}
sql("ALTER EVENT TRIGGER uncache_$_ DISABLE") foreach qw(ddl_start ddl_end ddl_drop ddl_rewrite);
is(said('CREATE TABLE other (id int)'), '', 'DDL works once the event triggers are disabled');
is(sql('SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE \'uncache%\''), '4',
	'which are all that there are');
my $triggers = q{SELECT string_agg(format('ALTER TABLE %s DISABLE TRIGGER %I',
	tgrelid::regclass, tgname), '; ')
	FROM pg_trigger WHERE tgrelid = 'item'::regclass
	AND tgfoid IN (SELECT oid FROM pg_proc WHERE probin LIKE '%pg_uncache')};
sql(sql($triggers));
is(said('INSERT INTO item VALUES (1); TRUNCATE item'), '', 'writes do once the rules are');
sql('DROP EXTENSION pg_uncache CASCADE');
is(sql('SELECT count(*) FROM pg_trigger'), '0', 'and DROP EXTENSION takes all of it away');
$node->stop;
is_deeply([prerm($major, 'remove')], [0, ''], 'nor one that does not run');

done_testing();
