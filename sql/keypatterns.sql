--
-- Which keys a template can produce: key patterns, and uncache.rules_of_key()
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA keypatterns_test;
SET search_path = keypatterns_test, public;

CREATE TYPE state AS ENUM ('open', 'in progress', 'a|b', 'c}d', 'back\slash', 'naïve');
CREATE TYPE empty_enum AS ENUM ();
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN price AS numeric(10, 2);
CREATE DOMAIN prices AS price[];

-- A rule "look:{v}" on a table for each type, and values of it.  Every key that rendering
-- gives must be one that the rule can produce; none of the other keys may be.
CREATE TABLE types (name text PRIMARY KEY, type text, vals text[]);
INSERT INTO types VALUES
	('i2', 'int2', '{0,1,-1,32767,-32768}'),
	('i4', 'int4', '{0,7,-42,2147483647,-2147483648}'),
	('i8', 'int8', '{0,9223372036854775807,-9223372036854775808}'),
	('o', 'oid', '{0,4294967295}'),
	('x', 'xid', '{0,4294967295}'),
	('x8', 'xid8', '{0,18446744073709551615}'),
	('b', 'bool', '{t,f}'),
	('u', 'uuid', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,00000000-0000-0000-0000-000000000000}'),
	('n', 'numeric', '{0,0.00,-0.5,-0.00,12345678901234567890.123456789,1e30,1e-30,NaN,Infinity,-Infinity}'),
	('n2', 'numeric(10,2)', '{0,-0.5,12345678.9,99999999.99,NaN}'),
	('n0', 'numeric(3)', '{0,-999,999.4,NaN}'),
	('n24', 'numeric(2,2)', '{0,-0.5,0.99}'),
	('np', 'price', '{0,-0.5,99999999.99}'),
	('f4', 'float4', '{0,-0,1.5,1e20,1e-20,-1.17549435e-38,3.4e38,NaN,Infinity,-Infinity,0.1,123456}'),
	('f8', 'float8', '{0,-0,1.5,1e20,1e-20,5e-324,1.7976931348623157e308,NaN,Infinity,-Infinity,0.1,100000000000000,1e15,1e16,0.0001,0.00001}'),
	('m', 'money', '{0,0.05,-0.05,1,-1234.56,1234567.89,92233720368547758.07}'),
	('d', 'date', '{2024-02-29,0001-01-01,4713-01-01 BC,5874897-12-31,infinity,-infinity,12345-06-07}'),
	('t', 'time', '{00:00:00,24:00:00,23:59:59.999999,12:30:00.5,12:30:00.000010,23:59:60}'),
	('tz', 'timetz', '{00:00:00+00,24:00:00-11:30,12:30:00.5+05:30,12:30:00+15:59:59,12:30:00.25-00:00:07}'),
	('ts', 'timestamp', '{2024-02-29 12:30:00,0001-01-01 00:00:00.5,4713-01-01 00:00:00 BC,294276-12-31 23:59:59.999999,infinity,-infinity,2024-02-29 23:59:60}'),
	('tsz', 'timestamptz', '{2024-02-29 12:30:00-07,0001-01-01 00:00:00.5+00 BC,4713-01-01 00:00:00 BC,294276-12-31 23:59:59.999999+00,infinity,-infinity}'),
	('in_', 'inet', '{10.0.0.1,10.0.0.1/24,0.0.0.0/0,255.255.255.255,::,::1,::1/127,::/0,2001:db8::ff00:42:8329,2001:db8::1:0:0:1/64,::ffff:1.2.3.4,::1.2.3.4,::2,1:2:3:4:5:6:7:8,::ffff:0:0,64:ff9b::1.2.3.4,0:1::,1::,::3:4/96,::abcd:1234,::ffff,::1:0,0:0:0:0:0:ffff:0:1,1:0:0:4:5:6:0:8}'),
	('ci', 'cidr', '{10.0.0.0/8,10.1.2.3/32,0.0.0.0/0,::/0,2001:db8::/32,::1/128,::ffff:1.2.3.0/120}'),
	('ma', 'macaddr', '{08:00:2b:01:02:03,FF-FF-FF-FF-FF-FF}'),
	('m8', 'macaddr8', '{08:00:2b:01:02:03:04:05}'),
	('by', 'bytea', '{"","\\x00ff","\\xdeadbeef"}'),
	('bi', 'bit(4)', '{0101,1111}'),
	('bv', 'varbit', '{"",1,0101}'),
	('jb', 'jsonb', '{"{}","[]","[1, {\"a\": null}]","{\"a\": 1.50}","\"settings\"","1e400","-0.10","true","false","null","\"\""}'),
	('e', 'state', '{open,"in progress",a|b,c\}d,"back\\slash",naïve}'),
	('ra', 'int4range', '{empty,"[1,10)","(,)","(,5)"}'),
	('rt', 'tsrange', '{empty,"[2024-01-01,2024-01-02]","(2024-01-01 10:00,)"}'),
	('mr', 'int4multirange', '{"{}","{[1,3),[5,7)}"}'),
	('ro', 'pair', '{"(1,x)","(,)","(1,\"a b\")"}'),
	('ai', 'int4[]', '{"{0,-5,2147483647}"}'),
	('an', 'prices', '{"{0,1.5,-99999999.99}"}'),
	('ae', 'state[]', '{"{open,naïve}"}'),
	('te', 'text', '{"",settings,a:b}');
CREATE FUNCTION make_table(name text, type text, vals text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	value text;
BEGIN
	EXECUTE format('CREATE TABLE %I (v %s)', name, type);
	FOREACH value IN ARRAY vals LOOP
		EXECUTE format('INSERT INTO %I VALUES (%L)', name, value);
	END LOOP;
	EXECUTE format('CREATE TRIGGER r AFTER TRUNCATE ON %I EXECUTE FUNCTION uncache.invalidate(%L)', name, 'look-' || name || ':{v}');
END $$;
SELECT count(make_table(name, type, vals)) FROM types;
CREATE FUNCTION covered(key text) RETURNS boolean LANGUAGE sql
	RETURN EXISTS (SELECT FROM uncache.rules_of_key(key));
CREATE FUNCTION uncovered(name text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	result text[];
BEGIN
	EXECUTE format('SELECT array_agg(k) FROM %1$I, unnest(uncache.render(%2$L, %1$I)) k'
		' WHERE NOT keypatterns_test.covered(k)', name, 'look-' || name || ':{v}') INTO result;
	RETURN result;
END $$;
SELECT name, uncovered(name) FROM types WHERE uncovered(name) IS NOT NULL;
-- What other things may be called.  Only text takes them
SELECT name, array_agg(other) FROM types, unnest(ARRAY['settings', '007', '-0:x', '', '99999999999999999999x',
		'x42', '42 ', '42:session', '1-2', 'open:session', '2024-13-01', 'infinity-war', '12:30', 'all', '{', '*', 'e', 'dead', 'x::1'])
		AS other
	WHERE covered('look-' || name || ':' || other) GROUP BY name ORDER BY name;
SELECT name FROM types WHERE covered('look-' || name || ':99999999999') ORDER BY name;
SELECT name FROM types WHERE covered('look-' || name || ':70000') ORDER BY name;
-- All that integers and dates can be, at random
CREATE TABLE random_ (i4 int, i8 bigint, n numeric(12, 3), f float8, d date, t time, ts timestamptz, a inet, m macaddr, u uuid);
SELECT uncache.attach('random_', 'r4:{i4}', 'r8:{i8}', 'rn:{n}', 'rf:{f}', 'rd:{d}', 'rt:{t}', 'rs:{ts}',
	'ra:{a}', 'rm:{m}', 'ru:{u}', 'rx:{md5(i4::text)}', 'rr:{i4 % 10}', 'rc:{i4::text}:{''x''}:{7}:{d::text}');
INSERT INTO random_ SELECT
	((random() - 0.5) * 4294967294)::bigint::int >> (g % 32), ((random() - 0.5) * 1.8e19)::bigint >> (g % 64),
	(random() - 0.5) * 1e9, (random() - 0.5) * 10 ^ (random() * 600 - 300),
	date '4713-01-01 BC' + (random() * 5000000)::int, random() * interval '24 hours',
	timestamptz '4713-01-01 BC' + random() * 50000000 * interval '1 hour',
	CASE WHEN g % 2 = 0 THEN inet '0.0.0.0' + (random() * 4294967295)::bigint
		ELSE set_masklen((SELECT string_agg(CASE WHEN random() < 0.5 THEN '0' ELSE to_hex((random() * 65535)::int) END, ':')
			FROM generate_series(1, 8) WHERE g > 0)::inet, (random() * 128)::int) END,
	macaddr '00:00:00:00:00:00' | (lpad(to_hex((random() * 281474976710655)::bigint), 12, '0'))::macaddr,
	gen_random_uuid()
	FROM generate_series(1, 100) g;
SELECT tmpl, k FROM unnest(ARRAY['r4:{i4}', 'r8:{i8}', 'rn:{n}', 'rf:{f}', 'rd:{d}', 'rt:{t}', 'rs:{ts}',
	'ra:{a}', 'rm:{m}', 'ru:{u}', 'rx:{md5(i4::text)}', 'rr:{i4 % 10}', 'rc:{i4::text}:{''x''}:{7}:{d::text}']) tmpl, random_ r, unnest(uncache.render(tmpl, r)) k
	WHERE NOT covered(k) LIMIT 5;
SELECT k, covered(k) FROM unnest(ARRAY['rr:42', 'rr:-9', 'rx:settings', 'rc:1:x:7:2024-01-01', 'rc:1:y:7:2024-01-01', 'rc:1:x:7:open']) k;

-- Constants are literals, also where a template begins
CREATE TABLE const (id int);
SELECT uncache.attach('const', '{''look''}:{id}:{''a}b''}:{1.50}:{true}');
SELECT relation, trigger, template FROM uncache.rules_of_key('look:5:a}b:1.50:t');
SELECT count(*) FROM uncache.rules_of_key('look:5:ab:1.50:t');

-- Labels as they are at the time; too long ones are not checked
SELECT covered('look-e:new');
ALTER TYPE state ADD VALUE 'new';
SELECT covered('look-e:new'), covered('look-e:old');
ALTER TYPE state RENAME VALUE 'new' TO 'old';
SELECT covered('look-e:new'), covered('look-e:old');
CREATE TABLE none (v empty_enum);
SELECT uncache.attach('none', 'none:{v}');
DO $$ BEGIN
	EXECUTE 'CREATE TYPE long_enum AS ENUM (' ||
		(SELECT string_agg(quote_literal(rpad(g::text, 60, 'x')), ',') FROM generate_series(1, 100) g) || ')';
END $$;
CREATE TABLE long (v long_enum);
SELECT uncache.attach('long', 'long:{v}');
SELECT covered('none:x'), covered('long:x');

-- The function: which rules, with the prefix, whoever may ask
CREATE TABLE users (id int, org_id int, email text);
SELECT uncache.attach('users', 'user:{id}', 'org:{org_id}:members', '{email}');
CREATE TRIGGER other AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('user:{id}:{email}');
CREATE TABLE parted (id int) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
SELECT uncache.attach('parted', 'part:{id}');
SELECT relation, trigger, template FROM uncache.rules_of_key('user:42');
SELECT relation, trigger, template FROM uncache.rules_of_key('user:42:x') WHERE relation = 'users'::regclass;
SELECT relation, trigger, template FROM uncache.rules_of_key('part:1') WHERE template <> '{email}';
SELECT count(*) FROM uncache.rules_of_key(NULL);
SET uncache.key_prefix = 'app:';
SELECT relation, trigger, template FROM uncache.rules_of_key('org:1:members');
SELECT relation, trigger, template FROM uncache.rules_of_key('app:org:1:members');
RESET uncache.key_prefix;
-- A rule that is broken
ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
ALTER TABLE users RENAME email TO mail;
ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;
SELECT relation, trigger, template FROM uncache.rules_of_key('user:42');
-- It leaves no lock
BEGIN;
SELECT count(*) FROM uncache.rules_of_key('part:1');
SELECT relation::regclass FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'users'::regclass;
ROLLBACK;
CREATE ROLE keypatterns_test_role;
SET ROLE keypatterns_test_role;
SELECT * FROM uncache.rules_of_key('part:1');
RESET ROLE;
GRANT pg_monitor TO keypatterns_test_role;
SET ROLE keypatterns_test_role;
SET client_min_messages = error;
SELECT template FROM uncache.rules_of_key('part:1');
RESET ROLE;
DROP ROLE keypatterns_test_role;

\set VERBOSITY terse
DROP SCHEMA keypatterns_test CASCADE;
