# Versions.pm: servers with one version of pg_uncache or another, for the tests of upgrades.
#
# A version is a PostgreSQL of its own with that library and its scripts, which inside.sh has
# made: a name of a folder in $PRIVATE ("older", "newer", "1.0"), or "this".

package Versions;

use strict;
use warnings;

use Exporter 'import';

use PostgreSQL::Test::Cluster;

our @EXPORT = qw(new_server use_version server_conf catalogs this_version said_in_log);

sub path_of
{
	my ($version) = @_;

	return $ENV{PRIVATE} . ($version eq 'this' ? '/pg' : "/$version") . $ENV{UPGRADE_BELOW};
}

# The version of this source, as pg_uncache.control has it.
sub this_version
{
	my ($control) = PostgreSQL::Test::Utils::slurp_file('pg_uncache.control');

	return $control =~ /^default_version = '(.*)'$/m ? $1 : die 'no version';
}

# A server of a version, started, without the extension.
sub new_server
{
	my ($name, $version, $redis, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => path_of($version));

	$node->init;
	$node->append_conf('postgresql.conf', server_conf($redis, @conf));
	$node->start;
	return $node;
}

sub server_conf
{
	my ($redis, @conf) = @_;

	return join "\n", "shared_preload_libraries = 'pg_uncache'",
		'max_prepared_transactions = 10', 'uncache.wait_timeout = 20s',
		"uncache.redis_url = '" . $redis->url . "'", @conf, '';
}

# Have a server that is stopped run with another version from now on.
sub use_version
{
	my ($node, $version) = @_;

	$node->{_install_path} = path_of($version);
	return;
}

# How often the server's log has said it, from an offset on.
sub said_in_log
{
	my ($node, $pattern, $from) = @_;
	my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $from // 0);
	my @found = $log =~ /$pattern/g;

	return scalar @found;
}

# All that the extension consists of in a database, as text, without OIDs: its members, with
# definition, rights, comment and settings.
sub catalogs
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, q{
SET search_path = pg_catalog;
WITH member AS (
	SELECT d.classid, d.objid, i.type, i.identity
	FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass
			AND d.refobjid = e.oid AND d.deptype = 'e',
		LATERAL pg_identify_object(d.classid, d.objid, 0) i
	WHERE e.extname = 'pg_uncache'),
line (what) AS (
	SELECT concat_ws(' ', 'member', type, identity,
		obj_description(objid, classid::regclass::text::name))
	FROM member
UNION ALL
	SELECT concat_ws(' ', 'function', identity, pg_get_functiondef(objid),
		proacl)
	FROM member JOIN pg_proc p ON p.oid = objid WHERE type = 'function'
UNION ALL
	SELECT concat_ws(' ', 'relation', identity, relkind, relpersistence, relacl, reloptions,
		pg_get_viewdef(objid))
	FROM member JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass
UNION ALL
	SELECT concat_ws(' ', 'column', identity, attnum, attname, format_type(atttypid, atttypmod),
		attnotnull, attstorage, attacl, pg_get_expr(adbin, adrelid),
		col_description(objid, attnum))
	FROM member JOIN pg_attribute a ON a.attrelid = objid AND classid = 'pg_class'::regclass
		LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	WHERE attnum > 0 AND NOT attisdropped
UNION ALL
	SELECT concat_ws(' ', 'trigger', identity, pg_get_triggerdef(t.oid), tgenabled)
	FROM member JOIN pg_trigger t ON t.tgrelid = objid AND classid = 'pg_class'::regclass
UNION ALL
	SELECT concat_ws(' ', 'event trigger', evtname, evtevent, evtenabled, evttags,
		evtfoid::regproc)
	FROM member JOIN pg_event_trigger t ON t.oid = objid AND type = 'event trigger'
UNION ALL
	SELECT concat_ws(' ', 'constraint', identity, conname, pg_get_constraintdef(c.oid))
	FROM member JOIN pg_constraint c ON c.conrelid = objid AND classid = 'pg_class'::regclass
UNION ALL
	SELECT concat_ws(' ', 'initial rights', identity, p.objsubid, p.initprivs)
	FROM member m JOIN pg_init_privs p ON p.objoid = m.objid AND p.classoid = m.classid
UNION ALL
	SELECT concat_ws(' ', 'schema', nspname, nspacl, obj_description(oid, 'pg_namespace'))
	FROM pg_namespace WHERE nspname = 'uncache'
UNION ALL
	SELECT concat_ws(' ', 'extension', extversion, extrelocatable, extconfig, extcondition)
	FROM pg_extension WHERE extname = 'pg_uncache')
SELECT what FROM line ORDER BY what COLLATE "C"});
}

1;
