--
-- DDL that would break a rule
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA ddl_test;
SET search_path = ddl_test, public;

CREATE FUNCTION keys_of(statement text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	result text[];
BEGIN
	EXECUTE statement;
	SELECT coalesce(array_agg(key ORDER BY key COLLATE "C"), '{}')
		FROM uncache.transaction_keys() INTO result;
	RAISE SQLSTATE 'UC000';
EXCEPTION WHEN SQLSTATE 'UC000' THEN
	RETURN result;
END $$;
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE FUNCTION slug(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE TABLE users (id int, email text, name text, other text, feels mood, note varchar(5));
INSERT INTO users VALUES (1, 'a@b', 'Ann', 'x', 'ok', 'n');
SELECT uncache.attach_columns('users', '{other}', 'user:{id}', 'mail:{lower(email)}', 'slug:{ddl_test.slug(name)}', 'mood:{feels}');

-- Columns
ALTER TABLE users DROP COLUMN email;
ALTER TABLE users DROP COLUMN other;
ALTER TABLE users RENAME email TO mail;
ALTER TABLE users RENAME other TO another;
ALTER TABLE users ALTER id TYPE bigint;
ALTER TABLE users ALTER note TYPE varchar(10), ALTER email TYPE varchar;
SELECT code_of('ALTER TABLE ddl_test.users DROP COLUMN email'),
	code_of('ALTER TABLE ddl_test.users RENAME email TO mail'),
	code_of('ALTER TABLE ddl_test.users ALTER id TYPE bigint'),
	code_of('DROP FUNCTION ddl_test.slug(text)');

-- Functions, types, schemas
DROP FUNCTION slug(text);
ALTER FUNCTION slug(text) RENAME TO slugify;
ALTER FUNCTION slug(text) SET SCHEMA public;
ALTER FUNCTION slug(text) VOLATILE;
CREATE OR REPLACE FUNCTION slug(text) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT lower($1)';
ALTER SCHEMA ddl_test RENAME TO other_name;
DROP TYPE mood;

-- What breaks nothing goes on
ALTER TABLE users ADD COLUMN extra int, ALTER name SET NOT NULL;
ALTER TABLE users RENAME note TO remark;
ALTER TABLE users RENAME TO people;
ALTER TABLE people RENAME TO users;
CREATE OR REPLACE FUNCTION slug(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE FUNCTION unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1';
DROP FUNCTION unrelated();
SELECT keys_of($$INSERT INTO users (id, name) VALUES (2, 'Bob')$$);
SELECT trigger, problem FROM uncache.rules WHERE relation = 'users'::regclass ORDER BY 1;

-- Who has looked at the rules holds nobody up
BEGIN;
SELECT count(*) FROM uncache.rules WHERE relation = 'users'::regclass;
SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'users'::regclass;
COMMIT;

-- A rewrite changes rows that no trigger sees, and older snapshots see none at all
SELECT keys_of($$ALTER TABLE users ALTER remark TYPE text USING upper(remark)$$) AS rewritten,
	keys_of($$ALTER TABLE users ALTER extra TYPE text$$) AS rewritten_too,
	keys_of($$ALTER TABLE users ADD COLUMN stamp timestamptz DEFAULT clock_timestamp()$$) AS filled,
	keys_of($$ALTER TABLE users ADD COLUMN plain int DEFAULT 1$$) AS not_rewritten,
	keys_of($$ALTER TABLE users SET UNLOGGED$$) AS same_rows;

-- CASCADE drops the rule, with a NOTICE
BEGIN;
ALTER TABLE users DROP COLUMN email CASCADE;
SELECT count(*) FROM uncache.rules WHERE relation = 'users'::regclass;
ROLLBACK;
BEGIN;
DROP FUNCTION slug(text) CASCADE;
SELECT count(*) FROM uncache.rules WHERE relation = 'users'::regclass;
ROLLBACK;
BEGIN;
DROP TYPE mood CASCADE;
SELECT count(*) FROM uncache.rules WHERE relation = 'users'::regclass;
ROLLBACK;
SELECT count(*) FROM uncache.rules WHERE relation = 'users'::regclass;

-- A disabled rule may break, but cannot be enabled again before it is whole
ALTER TABLE users DISABLE TRIGGER USER;
ALTER TABLE users DROP COLUMN email;
ALTER TABLE users ENABLE TRIGGER USER;
ALTER TABLE users ADD COLUMN email text;
ALTER TABLE users ENABLE TRIGGER USER;
SELECT trigger, enabled, problem FROM uncache.rules WHERE relation = 'users'::regclass ORDER BY 1;

-- The way out
BEGIN;
SELECT uncache.detach('users');
ALTER TABLE users RENAME email TO mail;
SELECT uncache.attach('users', 'user:{id}', 'mail:{lower(mail)}');
SELECT keys_of($$UPDATE users SET mail = 'Q'$$);
ROLLBACK;

-- A partition's own rule is guarded when the parent changes
CREATE TABLE parted (id int, name text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10);
SELECT uncache.attach('parted_1', 'part:{name}');
ALTER TABLE parted DROP COLUMN name;
ALTER TABLE parted RENAME name TO label;
ALTER TABLE parted ALTER name TYPE varchar;
SELECT keys_of($$ALTER TABLE parted ADD COLUMN filled timestamptz DEFAULT clock_timestamp()$$);

-- Attributes of a composite type: columns of a table OF it, and parts of a column
CREATE TYPE place AS (id int, zip text, other text);
CREATE TABLE places OF place;
CREATE TABLE homes (id int, at place);
SELECT uncache.attach('places', 'place:{id}'), uncache.attach('homes', 'home:{(at).zip}');
ALTER TYPE place RENAME ATTRIBUTE zip TO code CASCADE;
ALTER TYPE place RENAME ATTRIBUTE id TO ident CASCADE;
ALTER TYPE place RENAME ATTRIBUTE other TO another CASCADE;
ALTER TYPE place DROP ATTRIBUTE zip CASCADE;
SELECT relation, trigger, problem FROM uncache.rules WHERE relation IN ('places'::regclass, 'homes'::regclass);
DROP TABLE homes;
ALTER TYPE place ALTER ATTRIBUTE id TYPE bigint CASCADE;
ALTER TYPE place ALTER ATTRIBUTE another TYPE varchar CASCADE;
ALTER TYPE place DROP ATTRIBUTE id CASCADE;
DROP TABLE places;

-- A view takes a function with it
CREATE VIEW plain AS SELECT 1 AS x;
CREATE FUNCTION of_view(int, plain DEFAULT NULL) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'x' $$;
CREATE TABLE viewed (id int);
SELECT uncache.attach('viewed', 'viewed:{ddl_test.of_view(id)}');
DROP VIEW plain CASCADE;
SELECT count(*) FROM uncache.rules WHERE relation = 'viewed'::regclass;

-- A table called by its own name in a template
CREATE TABLE named (id int);
SELECT uncache.attach('named', 'named:{named.id}');
ALTER TABLE named RENAME TO renamed;

-- DROP TABLE deletes nothing and says so
DROP TABLE named;
DROP TABLE users;
CREATE TABLE several (id int, name text);
SELECT uncache.attach('several', 'a*b:{id}', 'cd?{{{name}}}', '{id}', 'tag:{replace(name, ''}'', '''')}:{id}!');
DROP TABLE several;
CREATE TABLE nameless (id int);
SELECT uncache.attach('nameless', '{id}', 'x:{id}');
DROP TABLE nameless;
-- One NOTICE, whatever the number of rules, also where a rule was dropped, or replaced, before
CREATE TABLE hand_made (id int, name text);
CREATE TRIGGER a AFTER INSERT OR DELETE ON hand_made
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('one:{id}');
CREATE TRIGGER b AFTER UPDATE ON hand_made
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('one:{id}', 'two:{name}');
CREATE TRIGGER c AFTER UPDATE ON hand_made
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('{id}');
BEGIN;
SAVEPOINT s;
DROP TRIGGER b ON hand_made;
ROLLBACK TO s;
DROP TABLE hand_made;
COMMIT;

-- CREATE SCHEMA with a rule in it
CREATE SCHEMA with_rule
	CREATE TABLE t (id int)
	CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('t:{nosuch}');
CREATE SCHEMA with_rule
	CREATE TABLE t (id int)
	CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('t:{id}');
SELECT relation, trigger, templates FROM uncache.rules WHERE relation = 'with_rule.t'::regclass;
DROP SCHEMA with_rule CASCADE;

-- DROP OWNED and DROP EXTENSION leave no trace
SET client_min_messages = warning;
CREATE TABLE last (id int);
SELECT uncache.attach('last', 'last:{id}');
BEGIN;
DROP EXTENSION pg_uncache;
ROLLBACK;
SET client_min_messages = error;
BEGIN;
DROP EXTENSION pg_uncache CASCADE;
INSERT INTO last VALUES (1);
DROP TABLE last;
CREATE EXTENSION pg_uncache;
SELECT count(*) FROM uncache.rules;
ROLLBACK;
SELECT count(*) FROM uncache.rules WHERE relation = 'last'::regclass;

-- While the extension is there nothing commits without its keys
BEGIN;
ALTER SCHEMA uncache RENAME TO elsewhere;
INSERT INTO last VALUES (1);
COMMIT;
SELECT count(*) FROM last;

-- The library's tables stay as they are.
\set VERBOSITY terse
ALTER TABLE uncache.outbox_2 RENAME TO elsewhere;
ALTER TABLE uncache.outbox_2 SET UNLOGGED;
ALTER TABLE uncache.outbox_side ADD COLUMN more int;
ALTER TABLE uncache.outbox_note ALTER COLUMN items SET STORAGE extended;
ALTER TABLE uncache.incarnation DROP COLUMN since;
ALTER TABLE uncache.outbox_0 ADD CHECK (false);
ALTER TABLE uncache.outbox_0 SET (fillfactor = 90), ENABLE ROW LEVEL SECURITY;
CREATE INDEX ON uncache.outbox_0 (xid);
CREATE POLICY p ON uncache.outbox_0;
CREATE TABLE child () INHERITS (uncache.outbox_0);
-- Also by those who could only have waited for a lock, with all commits behind them.
CREATE ROLE regress_uncache_stranger;
GRANT ALL ON SCHEMA ddl_test TO regress_uncache_stranger;
SET ROLE regress_uncache_stranger;
CREATE RULE r AS ON INSERT TO uncache.outbox_0 DO INSTEAD NOTHING;
CREATE TRIGGER t BEFORE INSERT ON uncache.outbox_0 EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE ddl_test.mine (x xid8 REFERENCES uncache.outbox_0 (xid), FOREIGN KEY (x) REFERENCES uncache.outbox_side (xid));
CREATE TABLE ddl_test.mine (x xid8) PARTITION BY LIST (x);
ALTER TABLE ddl_test.mine ATTACH PARTITION uncache.outbox_0 DEFAULT;
ALTER TABLE ddl_test.mine ADD COLUMN y xid8 REFERENCES uncache.outbox_1 (xid);
ALTER TABLE ddl_test.mine ADD FOREIGN KEY (x) REFERENCES uncache.outbox_1 (xid);
DROP TABLE ddl_test.mine;
RESET ROLE;
REVOKE ALL ON SCHEMA ddl_test FROM regress_uncache_stranger;
DROP ROLE regress_uncache_stranger;
\set VERBOSITY default
ALTER TABLE uncache.outbox_1 SET UNLOGGED;
-- What concerns neither the rows nor whether they last is let through.
BEGIN;
ALTER TABLE uncache.outbox_0 SET TABLESPACE pg_default, SET (autovacuum_enabled = true);
ROLLBACK;

-- What a function's name may have broken is looked at, and not held until the end.
BEGIN;
CREATE FUNCTION pg_temp.id() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE FUNCTION pg_temp.id() RETURNS int LANGUAGE sql AS 'SELECT 2';
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'last'::regclass;
COMMIT;

\set VERBOSITY terse
DROP SCHEMA ddl_test CASCADE;
