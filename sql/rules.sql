--
-- Rules: which changes record which keys
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA rules_test;
SET search_path = rules_test, public;

-- What a statement would delete; the statement is rolled back
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

CREATE TABLE users (id int PRIMARY KEY, name text, org int, boss int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO users VALUES (1, 'Ann', 10, NULL), (2, 'Bob', 10, 1), (3, NULL, NULL, 2);
CREATE TRIGGER users_cache AFTER INSERT OR UPDATE OR DELETE ON users
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('user:{id}', 'org:{org}:members');
CREATE TRIGGER users_cache_all AFTER TRUNCATE ON users
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('user:{id}');

SELECT keys_of($$INSERT INTO users VALUES (4, 'Dan', 11)$$);
SELECT keys_of($$UPDATE users SET name = 'x' WHERE id = 2$$);
SELECT keys_of($$UPDATE users SET org = 11 WHERE id = 2$$);
SELECT keys_of($$DELETE FROM users WHERE id = 3$$);
SELECT keys_of($$TRUNCATE users$$);

-- A changed key deletes the old and the new name; cascades count
SELECT keys_of($$UPDATE users SET id = 20 WHERE id = 2$$);
SELECT keys_of($$DELETE FROM users WHERE id = 1$$);

-- An UPDATE that leaves the row as it was deletes nothing
SELECT keys_of($$UPDATE users SET name = name, org = org + 0$$);

-- Equal keys once
SELECT count(*) FROM (SELECT 1 FROM unnest(keys_of($$UPDATE users SET name = 'y' WHERE org = 10$$)) k
	WHERE k = 'org:10:members') s;

-- Every way to write
SELECT keys_of($$INSERT INTO users VALUES (1, 'Ann', 12) ON CONFLICT (id) DO UPDATE SET org = excluded.org$$);
SELECT keys_of($$INSERT INTO users VALUES (1, 'Ann', 12) ON CONFLICT DO NOTHING$$);
SELECT keys_of($$MERGE INTO users u USING (VALUES (1, 13), (9, 14)) v(id, org) ON u.id = v.id
	WHEN MATCHED THEN UPDATE SET org = v.org WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'new', v.org)$$);
SELECT keys_of($$WITH d AS (DELETE FROM users WHERE id = 3 RETURNING *) INSERT INTO users SELECT 30, name, 15 FROM d$$);
BEGIN;
COPY users (id, name, org) FROM stdin;
40	Cop	16
41	Cop	16
\.
SELECT * FROM uncache.transaction_keys() ORDER BY key;
ROLLBACK;
CREATE VIEW visible AS SELECT id, name, org FROM users WHERE name IS NOT NULL;
SELECT keys_of($$UPDATE visible SET name = 'v' WHERE id = 1$$);

-- Rolled back is rolled back
BEGIN;
UPDATE users SET name = 'a' WHERE id = 1;
SAVEPOINT s;
UPDATE users SET name = 'b' WHERE id = 2;
ROLLBACK TO s;
SELECT key FROM uncache.transaction_keys() ORDER BY key;
ROLLBACK;
SELECT count(*) FROM uncache.transaction_keys();

-- A trigger of one's own: WHEN, UPDATE OF, deferred
CREATE TABLE doc (id int, title text, body text, public bool);
INSERT INTO doc VALUES (1, 't', 'b', true), (2, 't', 'b', false);
CREATE TRIGGER doc_title AFTER UPDATE OF title ON doc FOR EACH ROW
	WHEN (new.public) EXECUTE FUNCTION uncache.invalidate('doc:{id}');
SELECT keys_of($$UPDATE doc SET title = 'T'$$), keys_of($$UPDATE doc SET body = 'B'$$);
CREATE CONSTRAINT TRIGGER doc_late AFTER INSERT ON doc DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('late:{id}');
SELECT keys_of($$INSERT INTO doc VALUES (3)$$),
	keys_of($$INSERT INTO doc VALUES (3); SET CONSTRAINTS ALL IMMEDIATE$$);

-- attach_columns: only when a listed column, or a key, differs
SELECT uncache.attach_columns('doc', '{body}', 'body:{id}', 'name:{lower(title)}');
ALTER TABLE doc DISABLE TRIGGER doc_title;
SELECT keys_of($$UPDATE doc SET body = 'B' WHERE id = 1$$),
	keys_of($$UPDATE doc SET public = false WHERE id = 1$$),
	keys_of($$UPDATE doc SET title = 'T' WHERE id = 1$$) AS same_key,
	keys_of($$UPDATE doc SET title = 'other' WHERE id = 1$$) AS other_key,
	keys_of($$UPDATE doc SET id = 5 WHERE id = 1$$) AS renamed,
	keys_of($$DELETE FROM doc WHERE id = 2$$);
-- ... compared on the rows, so a BEFORE trigger is seen
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN new.body := 'touched'; RETURN new; END$$;
CREATE TRIGGER touch BEFORE UPDATE ON doc FOR EACH ROW EXECUTE FUNCTION touch();
SELECT keys_of($$UPDATE doc SET public = NULL WHERE id = 1$$);

-- The same row in another form: toasted, compressed, dropped and added columns
CREATE TABLE big (id int, gone text, v text, w text);
ALTER TABLE big ALTER v SET STORAGE EXTERNAL;
INSERT INTO big VALUES (1, 'g', repeat('v', 10000), repeat('w', 100000));
SELECT uncache.attach('big', 'big:{id}', 'v:{md5(v)}', 'w:{left(w, 3)}');
SELECT keys_of($$UPDATE big SET v = v || '', w = w || ''$$);
ALTER TABLE big DROP COLUMN gone;
SELECT keys_of($$UPDATE big SET id = id + 0$$);
ALTER TABLE big ADD COLUMN extra int DEFAULT 5;
SELECT keys_of($$UPDATE big SET extra = 5$$), keys_of($$UPDATE big SET extra = 6$$);
SELECT keys_of($$DELETE FROM big$$);

-- NULL, numeric and text that "=" takes for equal
CREATE TABLE fine (id int, n numeric);
INSERT INTO fine VALUES (1, 1.0);
SELECT uncache.attach('fine', 'n:{n}');
SELECT keys_of($$UPDATE fine SET n = 1.00$$), keys_of($$UPDATE fine SET n = NULL$$);

-- Other schemas, quoted names, tableoid
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."Odd ""table" ("The id" int);
SELECT uncache.attach('"Odd schema"."Odd ""table"', 'odd:{"The id"}', 'in:{tableoid::regclass}');
SELECT keys_of($$INSERT INTO "Odd schema"."Odd ""table" VALUES (1)$$);
SELECT * FROM uncache.rules WHERE relation = '"Odd schema"."Odd ""table"'::regclass;

-- Functions in a template see the statement's rows
CREATE TABLE orders (id int, customer int);
CREATE FUNCTION orders_of(int) RETURNS bigint LANGUAGE sql STABLE AS
	'SELECT count(*) FROM rules_test.orders WHERE customer = $1';
CREATE FUNCTION orders_of_plpgsql(int) RETURNS bigint LANGUAGE plpgsql STABLE AS
	$$BEGIN RETURN (SELECT count(*) FROM rules_test.orders WHERE customer = $1); END$$;
SELECT uncache.attach('orders', 'count:{rules_test.orders_of(customer)}:{rules_test.orders_of_plpgsql(customer)}');
SELECT keys_of($$INSERT INTO orders VALUES (1, 7), (2, 7), (3, 8)$$);

-- A function in a template may write, and come back to its own rule
CREATE TABLE tree (id int, parent int);
CREATE FUNCTION climb(int) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF $1 > 0 THEN
		PERFORM rules_test.plant($1 - 1);
	END IF;
	RETURN $1;
END $$;
CREATE FUNCTION plant(int) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO rules_test.tree VALUES ($1, $1 * 10); END$$;
SELECT uncache.attach('tree', 'tree:{parent::text || ''-'' || rules_test.climb(id)}:{parent}');
SELECT keys_of($$INSERT INTO tree VALUES (3, 30)$$);
-- ... also when it fails half-way
CREATE OR REPLACE FUNCTION plant(int) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN IF $1 = 1 THEN RAISE 'no'; END IF; INSERT INTO rules_test.tree VALUES ($1, $1 * 10); END$$;
\set SHOW_CONTEXT never
SELECT keys_of($$INSERT INTO tree VALUES (3, 30)$$);
\set SHOW_CONTEXT errors
SELECT keys_of($$INSERT INTO tree VALUES (1, 10)$$), keys_of($$INSERT INTO tree VALUES (0, 0)$$);

-- Rules follow ALTER TABLE and CREATE OR REPLACE FUNCTION
CREATE FUNCTION label(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'old' || $1::text$$;
CREATE TABLE follows (id int, a text);
SELECT uncache.attach('follows', 'f:{rules_test.label(id)}');
SELECT keys_of($$INSERT INTO follows VALUES (1)$$);
CREATE OR REPLACE FUNCTION label(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'new' || $1::text$$;
SELECT keys_of($$INSERT INTO follows VALUES (1)$$);
ALTER TABLE follows ADD COLUMN b text, DROP COLUMN a;
SELECT keys_of($$INSERT INTO follows VALUES (1, 'b')$$);
SELECT uncache.attach('follows', 'b:{b}');
SELECT keys_of($$INSERT INTO follows VALUES (1, 'b')$$);

-- Changes that arrive by replication: rules made by attach fire, one by hand as it says
SET session_replication_role = replica;
SELECT keys_of($$INSERT INTO follows VALUES (1, 'b')$$) AS always,
	keys_of($$INSERT INTO users VALUES (5)$$) AS origin;
RESET session_replication_role;

-- uncache.enabled, uncache.on_truncate, uncache.key_prefix
SET uncache.enabled = off;
SELECT keys_of($$INSERT INTO users VALUES (5)$$), keys_of($$TRUNCATE users$$),
	keys_of($$SELECT uncache.invalidate_table('users')$$),
	keys_of($$SELECT uncache.invalidate_keys('asked'), uncache.invalidate_pattern('asked:*')$$);
RESET uncache.enabled;
SET uncache.on_truncate = ignore;
SELECT keys_of($$TRUNCATE users$$);
SET uncache.on_truncate = error;
SELECT keys_of($$TRUNCATE users$$);
RESET uncache.on_truncate;
SET uncache.key_prefix = 'app*:';
SELECT keys_of($$INSERT INTO users VALUES (5)$$), keys_of($$TRUNCATE users$$);
RESET uncache.key_prefix;

-- Patterns: what is special in a glob is escaped
CREATE TABLE special (id int);
SELECT uncache.attach('special', 'a[b]*?\c:{{{id}}}');
SELECT keys_of($$TRUNCATE special$$), keys_of($$INSERT INTO special VALUES (1)$$);

-- TRUNCATE of several tables, and by cascade
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent);
SELECT uncache.attach('child', 'child:{id}');
SELECT keys_of($$TRUNCATE parent CASCADE$$), keys_of($$TRUNCATE special, child$$);

-- invalidate_table
SELECT keys_of($$SELECT uncache.invalidate_table('users')$$);
SELECT uncache.invalidate_table('parent');
SELECT uncache.attach('parent', '{id}', 'x:{id}');
SELECT keys_of($$SELECT uncache.invalidate_table(t) FROM unnest('{parent,users}'::regclass[]) t$$);
SELECT uncache.attach('parent', '{id}', 'xy:{id}');
SELECT keys_of($$SELECT uncache.invalidate_table('parent')$$);
SELECT keys_of($$TRUNCATE parent CASCADE$$);

-- More than 10,000 keys of a row, a key that is too long: the statement fails
CREATE TABLE lists (a int[], t text);
SELECT uncache.attach('lists', 'a:{a}', 'b:{a}', 't:{t}');
INSERT INTO lists SELECT array_agg(i) FROM generate_series(1, 5001) i;
INSERT INTO lists VALUES (NULL, repeat('x', 65535));
SELECT count(*) FROM lists;
SELECT array_length(keys_of($$INSERT INTO lists SELECT array_agg(i) FROM generate_series(1, 5000) i$$), 1);

-- Called wrongly
SELECT uncache.invalidate();
CREATE TRIGGER wrong BEFORE INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{id}');
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('x:{id}');
CREATE TRIGGER wrong AFTER INSERT OR TRUNCATE ON special FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('xy:{id}');
CREATE TRIGGER wrong INSTEAD OF INSERT ON visible FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{id}');
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate();
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate_columns('{id}');
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate_columns('{idd}', 'x:{id}');
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate_columns('id', 'x:{id}');
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{idd}');
CREATE TRIGGER wrong AFTER TRUNCATE ON special FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('x:{id}');
-- ... where no event trigger has seen it, at the first use
ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
CREATE TRIGGER wrong BEFORE INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('x:{id}');
INSERT INTO special VALUES (1);
DROP TRIGGER wrong ON special;
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('x:{id}');
INSERT INTO special VALUES (1);
DROP TRIGGER wrong ON special;
CREATE TRIGGER wrong AFTER INSERT ON special FOR EACH ROW EXECUTE FUNCTION uncache.invalidate();
INSERT INTO special VALUES (1);
DROP TRIGGER wrong ON special;
CREATE TRIGGER wrong AFTER TRUNCATE ON special FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('x:{id}');
TRUNCATE special;
DROP TRIGGER wrong ON special;
ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;

-- An UPDATE of another column fetches nothing from the TOAST table
CREATE TABLE wide (id int, doc text, n int);
ALTER TABLE wide ALTER doc SET STORAGE EXTERNAL;
INSERT INTO wide VALUES (1, repeat('x', 10000), 0), (2, repeat('y', 10000), 0);
CREATE FUNCTION fetches() RETURNS bigint LANGUAGE sql AS
	$$SELECT pg_stat_get_xact_numscans(reltoastrelid) + coalesce(sum(pg_stat_get_xact_numscans(indexrelid)), 0)
	FROM pg_class JOIN pg_index ON indrelid = reltoastrelid
	WHERE pg_class.oid = 'rules_test.wide'::regclass GROUP BY reltoastrelid$$;
SELECT uncache.attach('wide', 'wide:{id}');
BEGIN;
SELECT fetches() AS before \gset
UPDATE wide SET n = n + 1;
SELECT fetches() - :before AS fetches, (SELECT count(*) FROM uncache.transaction_keys()) AS keys;
ROLLBACK;
BEGIN;
SELECT fetches() AS before \gset
UPDATE wide SET id = id;
SELECT fetches() - :before AS fetches, (SELECT count(*) FROM uncache.transaction_keys()) AS keys;
ROLLBACK;
-- ... but the same value stored anew is the same
BEGIN;
UPDATE wide SET doc = replace(doc, 'z', 'z');
SELECT count(*) AS keys FROM uncache.transaction_keys();
ROLLBACK;
BEGIN;
UPDATE wide SET doc = replace(doc, 'x', 'z');
SELECT key FROM uncache.transaction_keys();
ROLLBACK;

\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA rules_test, "Odd schema" CASCADE;
