--
-- Who may do what with rules
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA privileges_test;
SET search_path = privileges_test, public;
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_uncache_migrator, regress_uncache_app, regress_uncache_monitor, regress_uncache_owner,
	regress_uncache_reader;
RESET client_min_messages;
CREATE ROLE regress_uncache_migrator;
CREATE ROLE regress_uncache_app;
CREATE ROLE regress_uncache_owner;
CREATE ROLE regress_uncache_monitor IN ROLE pg_monitor;
CREATE ROLE regress_uncache_reader IN ROLE pg_read_all_data;
GRANT ALL ON SCHEMA privileges_test TO PUBLIC;

-- Nothing that reaches keys is PUBLIC's; render is
SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
	WHERE n.nspname = 'uncache' AND has_function_privilege('regress_uncache_app', p.oid, 'EXECUTE')
	AND p.proname IN ('invalidate', 'invalidate_columns', 'attach', 'attach_columns', 'detach',
		'invalidate_table', 'render', 'list_rules', 'ddl_start', 'ddl_end', 'ddl_drop', 'ddl_rewrite')
	ORDER BY 1;

-- A migrator without superuser
SET ROLE regress_uncache_migrator;
CREATE TABLE users (id int, name text);
SELECT uncache.attach('users', 'user:{id}');
CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('user:{id}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION uncache.attach(regclass, text[]), uncache.attach_columns(regclass, name[], text[]),
	uncache.detach(regclass), uncache.invalidate(),
	uncache.invalidate_table(regclass) TO regress_uncache_migrator;
SET ROLE regress_uncache_migrator;
SELECT uncache.attach_columns('users', '{name}', 'user:{id}');	-- names the function that is missing
RESET ROLE;
GRANT EXECUTE ON FUNCTION uncache.invalidate_columns() TO regress_uncache_migrator;
SET ROLE regress_uncache_migrator;
SELECT uncache.attach('users', 'user:{id}');
SELECT uncache.attach_columns('users', '{name}', 'user:{id}');
SELECT uncache.invalidate_table('users');
CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('user:{id}');
ALTER TABLE users RENAME id TO ident;
DROP TRIGGER t ON users;
GRANT INSERT, UPDATE, TRUNCATE ON users TO regress_uncache_app;

-- Who has no rights here writes as before
SET ROLE regress_uncache_app;
INSERT INTO users VALUES (1, 'Ann');
UPDATE users SET name = 'Bob';
TRUNCATE users;
INSERT INTO users VALUES (1, 'Ann');
SELECT uncache.render('user:{id}', NULL::users) IS NULL AS render_allowed;
SELECT * FROM uncache.rules;
SELECT uncache.detach('users');
SELECT uncache.invalidate_table('users');
RESET ROLE;

-- Somebody else's table: TRIGGER makes a rule, dropping one is the owner's
SET ROLE regress_uncache_owner;
CREATE TABLE theirs (id int, secret text);
INSERT INTO theirs VALUES (1, 'hush');
RESET ROLE;
SET ROLE regress_uncache_migrator;
SELECT uncache.attach('theirs', 'their:{id}');
RESET ROLE;
GRANT TRIGGER ON theirs TO regress_uncache_migrator;
SET ROLE regress_uncache_migrator;
SELECT uncache.attach('theirs', 'their:{secret}');	-- and is not shown the row
SELECT uncache.attach('theirs', 'their:{id}');
SELECT uncache.detach('theirs');
RESET ROLE;
SELECT templates FROM uncache.rules WHERE relation = 'theirs'::regclass AND trigger = 'uncache_row';

-- An owner who knows nothing of us changes the table, and is stopped where it matters
SET ROLE regress_uncache_owner;
ALTER TABLE theirs ADD COLUMN more int;
ALTER TABLE theirs DROP COLUMN secret;
ALTER TABLE theirs ALTER more TYPE bigint;
RESET ROLE;

-- Partitions made by such an owner
SET ROLE regress_uncache_owner;
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
RESET ROLE;
SELECT uncache.attach('parts', 'part:{id}');
SELECT trigger, problem FROM uncache.rules WHERE relation = 'parts'::regclass ORDER BY 1;
GRANT EXECUTE ON FUNCTION uncache.invalidate() TO regress_uncache_owner;
SELECT uncache.attach('parts', 'part:{id}');
SELECT trigger, problem FROM uncache.rules WHERE relation = 'parts'::regclass ORDER BY 1;
SET ROLE regress_uncache_owner;
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (10);
RESET ROLE;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'parts_1'::regclass ORDER BY 1;
-- ... and a TRUNCATE rule needs no right at all
DROP TRIGGER uncache_row ON parts;
REVOKE EXECUTE ON FUNCTION uncache.invalidate() FROM regress_uncache_owner;
SET ROLE regress_uncache_owner;
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
SELECT current_user;
RESET ROLE;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'parts_2'::regclass ORDER BY 1;

-- Functions in a template are called with the rights of who writes
SET ROLE regress_uncache_owner;
CREATE FUNCTION private(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 WHERE $1 > 0';
REVOKE EXECUTE ON FUNCTION private(int) FROM PUBLIC;
GRANT INSERT ON theirs TO regress_uncache_app;
RESET ROLE;
SELECT uncache.attach('theirs', 'their:{privileges_test.private(id)}');
\c -
SET search_path = privileges_test, public;
SET ROLE regress_uncache_app;
INSERT INTO theirs VALUES (2);
RESET ROLE;

-- Monitoring
SET ROLE regress_uncache_monitor;
SELECT relation, trigger, enabled, problem FROM uncache.rules
	WHERE relation = 'privileges_test.theirs'::regclass ORDER BY 2;
SELECT * FROM uncache.transaction_keys();
RESET ROLE;

-- Who may read all tables may look at everything, at keys too
GRANT UPDATE ON theirs TO regress_uncache_reader;
SELECT uncache.attach('theirs', 'their:{id}');
BEGIN;
SET LOCAL ROLE regress_uncache_reader;
UPDATE theirs SET secret = 'new' WHERE id = 1;
SELECT * FROM uncache.transaction_keys();
SELECT trigger FROM uncache.rules WHERE relation = 'privileges_test.theirs'::regclass ORDER BY 1;
SELECT count(*) FROM uncache.stat;
SELECT count(*) >= 0 AS allowed FROM uncache.stat_rules;
SELECT count(*) >= 0 AS allowed FROM uncache.backlog;
SELECT uncache.invalidate_keys('k');
ROLLBACK;

\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA privileges_test CASCADE;
DROP OWNED BY regress_uncache_migrator, regress_uncache_app, regress_uncache_owner, regress_uncache_monitor, regress_uncache_reader;
DROP ROLE regress_uncache_migrator, regress_uncache_app, regress_uncache_owner, regress_uncache_monitor, regress_uncache_reader;
