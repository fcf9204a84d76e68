--
-- attach, attach_columns, detach, uncache.rules
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA attach_test;
SET search_path = attach_test, public;

CREATE TABLE users (id int, email text, tags text[]);
SELECT uncache.attach('users', 'user:{id}', 'mail:{lower(email)}');
SELECT trigger, events, columns, templates, enabled, problem FROM uncache.rules
	WHERE relation = 'users'::regclass ORDER BY 1;
\d users

-- Again replaces; an existing row's keys are shown
INSERT INTO users VALUES (1, 'A@b', '{a,b}');
SELECT uncache.attach('users', 'user:{id}', 'tag:{tags}');
UPDATE users SET tags = '{}', email = NULL;
SELECT uncache.attach('users', 'mail:{email}', 'tag:{tags}');
UPDATE users SET tags = (SELECT array_agg(i::text) FROM generate_series(1, 30) i);
SELECT uncache.attach_columns('users', '{email,"tags"}', 'tag:{tags}');
SELECT trigger, events, columns, templates, enabled, problem FROM uncache.rules
	WHERE relation = 'users'::regclass ORDER BY 1;

-- A bad template changes nothing
SELECT uncache.attach('users', 'user:{id}', 'mail:{emial}');
SELECT uncache.attach('users', 'user:{id');
SELECT uncache.attach('users', '');
SELECT uncache.attach('users', 'user:{id}', NULL);
SELECT uncache.attach('users', VARIADIC '{}');
SELECT uncache.attach('users', 'now:{clock_timestamp()}');
SELECT uncache.attach_columns('users', '{emial}', 'user:{id}');
SELECT uncache.attach_columns('users', '{Email}', 'user:{id}');
SELECT uncache.attach_columns('users', '{}', 'user:{id}');
SELECT trigger, templates FROM uncache.rules WHERE relation = 'users'::regclass ORDER BY 1;

-- A keyword as a column, and names that triggers have elsewhere
ALTER TABLE users ADD COLUMN "order" int;
SELECT uncache.attach('users', 'user:{order}');
SELECT uncache.attach('users', 'user:{ Order }');
SELECT uncache.attach('users', 'user:{NEW.id}');
ALTER TABLE users DROP COLUMN "order";

-- A row that the rule could never write is found at once
SELECT uncache.attach('users', 'user:{repeat(''x'', 70000)}');

-- Other rules stay; so do other triggers
CREATE TRIGGER mine AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('gone:{id}');
SELECT uncache.attach('users', 'user:{id}');
SELECT uncache.detach('users');
SELECT trigger, templates, enabled, problem FROM uncache.rules WHERE relation = 'users'::regclass;
SELECT uncache.detach('users');
DROP TRIGGER mine ON users;
SELECT uncache.attach('users', 'user:{id}');
DROP TRIGGER uncache_row ON users;
SELECT trigger, problem FROM uncache.rules WHERE relation = 'users'::regclass;
SELECT uncache.detach('users');
SELECT count(*) FROM uncache.rules WHERE relation = 'users'::regclass;

-- A row is read whole, also where a column has the name by which it could be called
CREATE TABLE short_names (t int, u text, rel int);
INSERT INTO short_names VALUES (1, 'x', 2);
SELECT uncache.attach('short_names', 't:{t}:{u}:{rel}');

-- Nothing is done silently for a NULL, nor in a read-only transaction
SELECT uncache.attach(NULL, 'user:{id}');
SELECT uncache.attach('users', VARIADIC NULL);
SELECT uncache.attach_columns('users', NULL, 'user:{id}');
SELECT uncache.attach_columns('users', '{email,NULL}', 'user:{id}');
SELECT uncache.detach(NULL);
SELECT uncache.invalidate_table(NULL);
BEGIN READ ONLY;
SELECT uncache.attach('users', 'user:{id}');
ROLLBACK;
BEGIN READ ONLY;
SELECT uncache.detach('users');
ROLLBACK;
SELECT uncache.detach('pg_class');

-- Columns are told from templates
SELECT uncache.attach_columns('users', '{email}', 'user:{id}', 'mail:{email}');
SELECT uncache.attach('users', 'user:{id}');

-- No column at all
SELECT uncache.attach('users', 'everybody');
SELECT uncache.attach('users', 'user:{{id}}');
-- No literal text to find the keys by: no TRUNCATE trigger
SELECT uncache.attach('users', '{id}:user');
SELECT uncache.attach('users', 'u:{id}');
SELECT trigger, templates, problem FROM uncache.rules WHERE relation = 'users'::regclass;
SELECT uncache.attach('users', 'ü-:{id}');
SELECT uncache.attach('users', 'üü:{id}');

-- Not tables of one's own
CREATE VIEW a_view AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id;
CREATE TEMP TABLE a_temp (id int);
CREATE SEQUENCE a_sequence;
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE a_foreign (id int) SERVER nowhere;
SELECT uncache.attach('a_view', 'x:{id}');
SELECT uncache.attach('a_matview', 'x:{id}');
SELECT uncache.attach('a_temp', 'x:{id}');
SELECT uncache.attach('a_sequence', 'x:{last_value}');
SELECT uncache.attach('a_foreign', 'x:{id}');
SELECT uncache.attach('pg_class', 'x:{oid}');
SELECT uncache.attach('uncache.outbox_0', 'x:{xid}');
SELECT uncache.attach('nowhere', 'x:{id}');
SELECT uncache.attach(1::regclass, 'x:{id}');
SELECT uncache.detach(1::regclass);
SELECT uncache.invalidate_table(1::regclass);
CREATE TRIGGER t AFTER INSERT ON a_temp FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{id}');
CREATE TRIGGER t AFTER INSERT ON a_foreign FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{id}');

-- Inheritance children have triggers of their own only
CREATE TABLE base (id int);
CREATE TABLE derived () INHERITS (base);
SELECT uncache.attach('base', 'base:{id}');
SELECT trigger, problem FROM uncache.rules WHERE relation = 'base'::regclass ORDER BY 1;
SELECT uncache.attach('derived', 'base:{id}');
SELECT trigger, problem FROM uncache.rules WHERE relation = 'base'::regclass ORDER BY 1;

-- What uncache.rules finds wrong
ALTER TABLE base DISABLE TRIGGER ALL;
SELECT trigger, enabled, problem FROM uncache.rules WHERE relation = 'base'::regclass ORDER BY 1;
ALTER TABLE base ENABLE TRIGGER ALL;
SELECT trigger, enabled, problem FROM uncache.rules WHERE relation = 'base'::regclass ORDER BY 1;
ALTER TABLE base ENABLE REPLICA TRIGGER uncache_row;
SELECT trigger, enabled, problem FROM uncache.rules WHERE relation = 'base'::regclass ORDER BY 1;
ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
ALTER TABLE base ENABLE ALWAYS TRIGGER uncache_row;
ALTER TABLE base RENAME id TO ident;
ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;
SELECT trigger, enabled, problem FROM uncache.rules WHERE relation = 'base'::regclass ORDER BY 1;
-- ... writes fail then, and say why; the way out is open
INSERT INTO base VALUES (1);
ALTER TABLE base RENAME ident TO id;
INSERT INTO base VALUES (1);
-- ... nothing that is wrong hides the others
CREATE TABLE wrong (id int);
ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
CREATE TRIGGER columns AFTER INSERT ON wrong FOR EACH ROW EXECUTE FUNCTION uncache.invalidate_columns('id', 'x:{id}');
CREATE TRIGGER none AFTER INSERT ON wrong FOR EACH ROW EXECUTE FUNCTION uncache.invalidate_columns();
CREATE TRIGGER too_early BEFORE INSERT ON wrong FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{id}');
CREATE TRIGGER once AFTER INSERT ON wrong EXECUTE FUNCTION uncache.invalidate('x:{id}');
ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;
SELECT trigger, columns, templates, problem FROM uncache.rules WHERE relation = 'wrong'::regclass ORDER BY 1;

\set VERBOSITY terse
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER nothing CASCADE;
DROP SCHEMA attach_test CASCADE;
