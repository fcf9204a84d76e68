# Rules of a role that may make rules on its own tables, and is not to be trusted
# with anything else: what is in its templates runs with the rights of who changes
# its rows, and of nobody else.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);

$node->safe_psql('postgres', q{
	CREATE ROLE attacker LOGIN;
	CREATE ROLE writer LOGIN;
	CREATE SCHEMA at AUTHORIZATION attacker;
	GRANT USAGE ON SCHEMA at TO PUBLIC;
	GRANT EXECUTE ON FUNCTION uncache.invalidate() TO attacker;
	CREATE FUNCTION public.unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1'});

# Every way in which code comes into a template: each writes down who has run it.
$node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION attacker;
	CREATE TABLE at.ran (who name, way text);
	GRANT SELECT, INSERT ON at.ran TO PUBLIC;
	CREATE FUNCTION at.note(way text) RETURNS void LANGUAGE sql VOLATILE
		AS 'INSERT INTO at.ran VALUES (current_user, way)';
	CREATE FUNCTION at.evil(way text) RETURNS text LANGUAGE plpgsql IMMUTABLE
		AS $$ BEGIN PERFORM at.note(way); RETURN 'x'; END $$;
	CREATE FUNCTION at.by_default(int, text DEFAULT at.evil('default'))
		RETURNS text LANGUAGE plpgsql IMMUTABLE
		AS $$ BEGIN RETURN 'x'; END $$;
	CREATE FUNCTION at.inlined(int)
		RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT at.evil('inlined') $$;
	CREATE DOMAIN at.checks AS int CHECK (at.evil('check') = 'x');
	CREATE TYPE at.comp AS (x at.checks);
	CREATE TYPE at.span AS RANGE (SUBTYPE = at.checks, SUBTYPE_OPCLASS = int4_ops);
	CREATE UNLOGGED TABLE at.t (id int)});
my @templates = (
	q{user:{at.evil('constant')}:{id}},
	q{user:{at.by_default(1)}:{id}},
	q{user:{at.inlined(1)}:{id}},
	q{user:{id::at.checks}},
	q{user:{('(1)'::at.comp).x}:{id}},
	q{user:{('{1}'::at.checks[])[1]}:{id}},
	q{user:{'[1,2)'::at.span}:{id}},
	q{user:{upper(row(1)::at.comp::text)}:{id}});
my $list = join(', ', map { "'" . s/'/''/gr . "'" } @templates);

sub nobody_else
{
	my ($what) = @_;

	is($node->safe_psql('postgres', q{
		WITH ran AS (DELETE FROM at.ran RETURNING *)
		SELECT DISTINCT who, way FROM ran WHERE who <> 'attacker' ORDER BY 1, 2}), '',
			"$what runs nothing");
	return;
}

$node->safe_psql('postgres', qq{
	SET SESSION AUTHORIZATION attacker;
	CREATE TRIGGER r AFTER INSERT ON at.t FOR EACH ROW EXECUTE FUNCTION uncache.invalidate($list)});
is($node->safe_psql('postgres',
	q{SELECT problem FROM uncache.rules WHERE relation = 'at.t'::regclass}),
	'TRUNCATE deletes no keys: the table has no enabled rule for it', 'the rule is in order');
nobody_else('to look at uncache.rules');
$node->safe_psql('postgres', qq{
	CREATE TRIGGER restored AFTER INSERT ON at.t FOR EACH ROW
		EXECUTE FUNCTION uncache.invalidate($list)});
nobody_else('to make a trigger that somebody else has written');
$node->safe_psql('postgres', q{
	ALTER TABLE at.t ADD COLUMN more int;
	ALTER TABLE at.t ADD COLUMN stamp timestamptz DEFAULT clock_timestamp();
	ALTER TABLE at.t ALTER COLUMN more TYPE bigint;
	ALTER FUNCTION public.unrelated() STABLE;
	DROP FUNCTION public.unrelated()});
nobody_else('DDL');
$node->safe_psql('postgres', q{SELECT uncache.invalidate_table('at.t')});
nobody_else('invalidate_table()');
$node->stop('immediate');
$node->start;
$redis->fill('user:x:1');
ok(delivered($node), 'the worker is back after a crash');
nobody_else('the worker');

# Nor can it be made to serve what is freed: a function in a template that changes
# the catalog, and the same table, while the rule is in use.
$node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION attacker;
	CREATE TABLE at.again (id int, data jsonb);
	CREATE FUNCTION at.nests(v int) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		IF v = 1 THEN
			EXECUTE
				'CREATE OR REPLACE FUNCTION at.noise() RETURNS int LANGUAGE sql AS ''SELECT 1''';
			INSERT INTO at.again VALUES (2, '{"x": 2, "y": 3}');
		END IF;
		RETURN true;
	END $$;
	CREATE DOMAIN at.nested AS int CHECK (at.nests(value));
	CREATE TYPE at.pair AS (x at.nested, y at.nested);
	CREATE TRIGGER r AFTER INSERT ON at.again FOR EACH ROW
		EXECUTE FUNCTION
			uncache.invalidate('user:{(jsonb_populate_record(null::at.pair, data)).y}:{id}')});
my ($status, $out, $err) = $node->psql('postgres', q{
	SET SESSION AUTHORIZATION attacker;
	INSERT INTO at.again VALUES (1, '{"x": 1, "y": 1}');
	INSERT INTO at.again VALUES (1, '{"x": 1, "y": 1}');
	INSERT INTO at.again VALUES (1, '{"x": 1, "y": 1}');
	SELECT count(*) FROM at.again});
is($status, 0, 'a rule that is asked for while it is in use') or diag $err;
is($out, '9', 'and changes under way work');

# A session does not keep the rights of the role that it had before.
$node->safe_psql('postgres', q{
	CREATE TABLE public.c (id int);
	CREATE FUNCTION public.private(int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'k' || $1 $$;
	REVOKE EXECUTE ON FUNCTION public.private(int) FROM PUBLIC;
	GRANT INSERT ON public.c TO writer;
	SELECT uncache.attach('public.c', 'c:{public.private(id)}')});
($status, $out, $err) = $node->psql('postgres', q{
	INSERT INTO public.c VALUES (1);
	SET SESSION AUTHORIZATION writer;
	INSERT INTO public.c VALUES (1)});
isnt($status, 0, 'who may not call a function in a template cannot write');
like($err, qr/permission denied for function private/, 'whoever has written before');
($status, $out, $err) = $node->psql('postgres', q{
	GRANT EXECUTE ON FUNCTION public.private(int) TO writer;
	SET SESSION AUTHORIZATION writer;
	INSERT INTO public.c VALUES (1)});
is($status, 0, 'who may can') or diag $err;
# The right can go with a role, too.
($status, $out, $err) = $node->psql('postgres', q{
	CREATE ROLE callers ROLE writer;
	REVOKE EXECUTE ON FUNCTION public.private(int) FROM writer;
	GRANT EXECUTE ON FUNCTION public.private(int) TO callers;
	SET ROLE writer;
	INSERT INTO public.c VALUES (1);
	RESET ROLE;
	REVOKE callers FROM writer;
	SET ROLE writer;
	INSERT INTO public.c VALUES (2)});
isnt($status, 0, 'a right that was taken away is gone');
is($node->safe_psql('postgres', 'SELECT count(*) FROM public.c'), '3', 'all others have written');

# What they drop takes no rule of somebody else with it, and what they break holds
# nobody up.
$node->safe_psql('postgres', q{
	CREATE TABLE public.d (id int);
	CREATE FUNCTION public.used(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	SELECT uncache.attach('public.d', 'dd:{public.used(id)}');
	ALTER EVENT TRIGGER uncache_ddl_drop DISABLE;
	DROP FUNCTION public.used(int);
	ALTER EVENT TRIGGER uncache_ddl_drop ENABLE ALWAYS;
	SET SESSION AUTHORIZATION attacker;
	CREATE FUNCTION at.mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE FUNCTION at.used() RETURNS int LANGUAGE sql AS 'SELECT 1';
	DROP FUNCTION at.mine() CASCADE;
	DROP FUNCTION at.used() CASCADE;
	CREATE FUNCTION at.mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE OR REPLACE FUNCTION at.mine() RETURNS int LANGUAGE sql AS 'SELECT 2';
	ALTER FUNCTION at.mine() RENAME TO my_own;
	CREATE TYPE at.kind AS ENUM ('a');
	ALTER TYPE at.kind RENAME TO sort;
	DROP TYPE at.sort;
	DROP FUNCTION at.my_own()});
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM uncache.rules
		WHERE relation = 'public.d'::regclass AND problem LIKE '%used(integer) does not exist%'}),
	'2', 'a broken rule is still there after others have dropped what is theirs');
($status, $out, $err) = $node->psql('postgres', q{
	CREATE FUNCTION public.used(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
	DROP FUNCTION public.used(text)});
like($err, qr/would no longer work/, 'who drops what it names is told of it');
$node->safe_psql('postgres', 'SELECT uncache.detach(\'public.d\')');

# Nor does an error that says nothing of a rule drop it.
my $deep = ('-(' x 600) . 'public.used(id)' . (')' x 600);
$node->safe_psql('postgres', qq{
	CREATE FUNCTION public.used(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT \$1';
	SELECT uncache.attach('public.d', 'dd:{$deep}')});
($status, $out, $err) = $node->psql('postgres', q{
	SET max_stack_depth = '100kB';
	DROP FUNCTION public.used(text) CASCADE});
like($err, qr/stack depth limit exceeded/, 'an error of the server fails the command');
is($node->safe_psql('postgres', q{SELECT count(*) FROM uncache.rules
	WHERE relation = 'public.d'::regclass AND problem IS NULL}),
	'2', 'and the rule is still there');

# Moving an extension breaks rules that call its functions.
SKIP:
{
	skip 'the extension hstore is not installed', 1
		if $node->safe_psql('postgres',
			q{SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'}) eq '0';
	($status, $out, $err) = $node->psql('postgres', q{
		CREATE EXTENSION hstore SCHEMA public;
		CREATE SCHEMA other;
		CREATE TABLE public.e (c text);
		SELECT uncache.attach('public.e', 'ee:{public.akeys(public.hstore(c, c))}');
		ALTER EXTENSION hstore SET SCHEMA other});
	like($err, qr/would no longer work/, 'ALTER EXTENSION SET SCHEMA is refused');
}

# A schema that somebody else has made beforehand.
$node->safe_psql('postgres',
	'CREATE DATABASE prepared; GRANT CREATE ON DATABASE prepared TO attacker');
$node->safe_psql('prepared', q{
	SET SESSION AUTHORIZATION attacker;
	CREATE SCHEMA uncache;
	CREATE FUNCTION uncache.same(oid, int4) RETURNS bool LANGUAGE sql AS 'SELECT true';
	CREATE OPERATOR uncache.= (LEFTARG = oid, RIGHTARG = int4, FUNCTION = uncache.same)});
($status, $out, $err) = $node->psql('prepared', 'CREATE EXTENSION pg_uncache');
like($err, qr/schema "uncache" belongs to "attacker"/,
	'a schema that is not a superuser\'s is refused');
($status, $out, $err) = $node->psql('prepared',
	'ALTER SCHEMA uncache OWNER TO postgres; CREATE EXTENSION pg_uncache');
like($err,
	qr/schema "uncache" is not empty.*same\(oid,integer\)|schema "uncache" is not empty.*operator/s,
	'and one that holds something');
$node->safe_psql('prepared', q{
	DROP SCHEMA uncache CASCADE;
	CREATE SCHEMA uncache;
	CREATE EXTENSION pg_uncache;
	DROP EXTENSION pg_uncache;
	CREATE EXTENSION pg_uncache});
pass('an empty one of a superuser is taken');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC/, 'nothing has crashed');

$node->stop;
done_testing();
