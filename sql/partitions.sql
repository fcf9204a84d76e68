--
-- Rules of partitioned tables
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA partitions_test;
SET search_path = partitions_test, public;

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
CREATE VIEW triggers AS
	SELECT tgrelid::regclass AS relation, tgname AS trigger, tgenabled AS enabled,
		tgparentid <> 0 AS clone
	FROM pg_trigger WHERE NOT tgisinternal AND tgname NOT LIKE 'outbox%' ORDER BY tgrelid::regclass::text COLLATE "C", tgname;

CREATE TABLE ev (id int, region text, note text) PARTITION BY LIST (region);
CREATE TABLE ev_eu PARTITION OF ev FOR VALUES IN ('eu');
-- Other column numbers than the parent's
CREATE TABLE ev_us (gone int, note text, region text, id int);
ALTER TABLE ev_us DROP COLUMN gone;
ALTER TABLE ev ATTACH PARTITION ev_us FOR VALUES IN ('us');
INSERT INTO ev VALUES (1, 'eu'), (2, 'us');

SELECT uncache.attach('ev', 'ev:{id}:{region}', 'part:{tableoid::regclass}:{ev.id}');
-- Partitions that come later, on two levels
CREATE TABLE ev_as PARTITION OF ev FOR VALUES IN ('as', 'au') PARTITION BY LIST (region);
CREATE TABLE ev_as1 PARTITION OF ev_as FOR VALUES IN ('as');
CREATE TABLE ev_au (LIKE ev);
ALTER TABLE ev_as ATTACH PARTITION ev_au FOR VALUES IN ('au');
CREATE SCHEMA more CREATE TABLE ev_af PARTITION OF partitions_test.ev FOR VALUES IN ('af');
SELECT * FROM triggers;
SELECT relation, trigger, events, templates, problem FROM uncache.rules;
-- Adding one locks none of the others
BEGIN;
CREATE TABLE ev_tmp PARTITION OF ev FOR VALUES IN ('tmp');
SELECT DISTINCT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid()
	AND relation IN ('ev_eu'::regclass, 'ev_us'::regclass, 'ev_as1'::regclass);
ROLLBACK;

SELECT keys_of($$INSERT INTO ev VALUES (3, 'as')$$), keys_of($$INSERT INTO ev_au VALUES (4, 'au')$$);
SELECT keys_of($$UPDATE ev SET note = 'x'$$), keys_of($$DELETE FROM ev_us$$);
SELECT keys_of($$UPDATE ev SET region = 'us' WHERE id = 1$$) AS moved;
SELECT keys_of($$TRUNCATE ev$$) AS all_, keys_of($$TRUNCATE ev_as1$$) AS leaf,
	keys_of($$TRUNCATE ev_as$$) AS middle;
SELECT keys_of($$SELECT uncache.invalidate_table('ev_us')$$) AS of_leaf;
SELECT relation, trigger FROM uncache.transaction_keys();
BEGIN;
INSERT INTO ev_au VALUES (5, 'au');
SELECT * FROM uncache.transaction_keys() ORDER BY key;
ROLLBACK;

-- Rows that come or go with a partition
SELECT keys_of($$ALTER TABLE ev DETACH PARTITION ev_us$$);
SELECT keys_of($$CREATE TABLE more.other (LIKE partitions_test.ev);
	ALTER TABLE partitions_test.ev ATTACH PARTITION more.other FOR VALUES IN ('xx')$$);
-- ... which is empty, or has few rows, or many; on other levels; in this transaction
SELECT keys_of($$ALTER TABLE ev DETACH PARTITION ev_as$$) AS empty;
SELECT keys_of($$INSERT INTO ev_au VALUES (7, 'au'); INSERT INTO ev_as1 VALUES (8, 'as');
	SET uncache.enabled = off; ALTER TABLE ev DETACH PARTITION ev_as$$) AS few;
SELECT cardinality(keys_of($$SET uncache.enabled = off; INSERT INTO ev_us (id, region) SELECT g, 'us' FROM generate_series(10, 1008) g;
	ALTER TABLE ev DETACH PARTITION ev_us$$)) AS few_enough;
SELECT keys_of($$SET uncache.enabled = off; INSERT INTO ev_us (id, region) SELECT g, 'us' FROM generate_series(10, 1009) g;
	ALTER TABLE ev DETACH PARTITION ev_us$$) AS many;
SELECT keys_of($$SET uncache.enabled = off; ALTER TABLE ev_us SET (fillfactor = 10);
	INSERT INTO ev_us (id, region, note) SELECT g, 'us', repeat('x', 700) FROM generate_series(10, 1200) g; DELETE FROM ev_us; ALTER TABLE ev DETACH PARTITION ev_us$$) AS too_many_pages;
SELECT keys_of($$CREATE TABLE more.other (LIKE partitions_test.ev); INSERT INTO more.other VALUES (9, 'xx');
	ALTER TABLE partitions_test.ev ATTACH PARTITION more.other FOR VALUES IN ('xx')$$) AS few;
SELECT keys_of($$ALTER TABLE ev_as DETACH PARTITION ev_au$$) AS middle;
-- As the owner of the table, whoever attaches
CREATE ROLE partitions_test_owner;
GRANT USAGE ON SCHEMA partitions_test, uncache TO partitions_test_owner;
CREATE FUNCTION who(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT current_user || $1';
CREATE TABLE own (id int) PARTITION BY LIST (id);
SELECT uncache.attach('own', 'own:{id}:{partitions_test.who(id)}');
ALTER TABLE own OWNER TO partitions_test_owner;
CREATE TABLE own_1 AS SELECT 1 AS id;
SELECT keys_of($$ALTER TABLE own ATTACH PARTITION own_1 FOR VALUES IN (1)$$);
REVOKE EXECUTE ON FUNCTION who(int) FROM PUBLIC;
SELECT keys_of($$ALTER TABLE own ATTACH PARTITION own_1 FOR VALUES IN (1)$$);
DROP TABLE own, own_1;
DROP OWNED BY partitions_test_owner;
DROP ROLE partitions_test_owner;
-- A partition that has a rule already
CREATE TABLE ev_own (LIKE ev);
SELECT uncache.attach('ev_own', 'own:{id}');
ALTER TABLE ev ATTACH PARTITION ev_own FOR VALUES IN ('own');
SELECT uncache.detach('ev_own');
CREATE TRIGGER mine AFTER INSERT ON ev_own FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('own:{id}');
ALTER TABLE ev ATTACH PARTITION ev_own FOR VALUES IN ('own');
DROP TABLE ev_own;
ALTER TABLE ev DETACH PARTITION ev_us;
SELECT * FROM triggers WHERE relation = 'ev_us'::regclass;
SELECT keys_of($$INSERT INTO ev_us (id, region) VALUES (1, 'us')$$);
ALTER TABLE ev ATTACH PARTITION ev_us FOR VALUES IN ('us');
SELECT * FROM triggers WHERE relation = 'ev_us'::regclass;

-- The clones follow the parent's trigger
ALTER TABLE ev DISABLE TRIGGER uncache_truncate;
SELECT DISTINCT enabled FROM triggers WHERE trigger = 'uncache_truncate';
SELECT relation, trigger, enabled, problem FROM uncache.rules ORDER BY 2;
ALTER TABLE ev ENABLE ALWAYS TRIGGER uncache_truncate;
SELECT DISTINCT enabled FROM triggers WHERE trigger = 'uncache_truncate';
-- ... unless they are switched by themselves: then they, not the parent's, say what fires
ALTER TABLE ev_us DISABLE TRIGGER ALL;
SELECT keys_of($$INSERT INTO ev (id, region) VALUES (1, 'us')$$);
SELECT trigger, enabled, problem FROM uncache.rules ORDER BY 1;
ALTER TABLE ev_us ENABLE TRIGGER ALL;
SELECT trigger, enabled, problem FROM uncache.rules ORDER BY 1;
ALTER TABLE ev_us ENABLE REPLICA TRIGGER uncache_row;
ALTER TABLE ev_us ENABLE ALWAYS TRIGGER uncache_truncate;
SELECT trigger, enabled, problem FROM uncache.rules ORDER BY 1;
ALTER TABLE ev_us ENABLE ALWAYS TRIGGER uncache_row;
ALTER TRIGGER uncache_truncate ON ev RENAME TO other_name;
SELECT trigger, count(*) FROM triggers GROUP BY 1 ORDER BY 1;
ALTER TRIGGER other_name ON ev RENAME TO uncache_truncate;
DROP TRIGGER uncache_truncate ON ev_us;
SELECT uncache.attach('ev_us', 'own:{id}');
SELECT uncache.detach('ev_us');
SELECT uncache.attach('ev', 'ev:{id}');
SELECT keys_of($$TRUNCATE ev_au$$);
SELECT uncache.detach('ev');
SELECT count(*) FROM triggers;

-- Triggers made by hand
CREATE TRIGGER by_hand AFTER TRUNCATE ON ev FOR EACH STATEMENT
	WHEN (current_setting('application_name') <> 'quiet') EXECUTE FUNCTION uncache.invalidate('one:{id}');
SELECT keys_of($$TRUNCATE ev_au$$), keys_of($$SET application_name = 'quiet'; TRUNCATE ev_au$$) AS quiet;
CREATE OR REPLACE TRIGGER by_hand AFTER TRUNCATE ON ev FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('two:{id}');
SELECT keys_of($$TRUNCATE ev_au$$);
DROP TRIGGER by_hand ON ev;
SELECT count(*) FROM triggers;
CREATE TRIGGER only_update AFTER UPDATE ON ev FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('ev:{id}');
SELECT trigger, problem FROM uncache.rules;
DROP TRIGGER only_update ON ev;

-- A partition's rule of its own
SELECT uncache.attach('ev_eu', 'eu:{id}');
SELECT keys_of($$UPDATE ev SET note = 'y'$$), keys_of($$TRUNCATE ev$$);
SELECT keys_of($$SELECT uncache.invalidate_table('ev')$$);
SELECT uncache.attach('ev', 'ev:{id}');
SELECT uncache.detach('ev_eu');

-- A partition on a remote server: its TRUNCATE is not ours
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE ev_far PARTITION OF ev FOR VALUES IN ('far') SERVER nowhere;
SELECT uncache.attach('ev', 'ev:{id}');
SELECT trigger, problem FROM uncache.rules ORDER BY 1;

-- Partitions share a compiled rule, where their columns are in the same places
CREATE FUNCTION compiled() RETURNS bigint LANGUAGE sql
	RETURN (SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'pg_uncache rule');
CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
CREATE TABLE many (id int, part int, name text) PARTITION BY LIST (part);
DO $$ BEGIN FOR g IN 1 .. 200 LOOP
	EXECUTE format('CREATE TABLE many_%1$s PARTITION OF many FOR VALUES IN (%1$s)', g);
END LOOP; END $$;
CREATE TABLE many_201 (name text, part int, id int);
ALTER TABLE many ATTACH PARTITION many_201 FOR VALUES IN (201);
CREATE TABLE many_202 (gone int, id int, part int, name text);
ALTER TABLE many_202 DROP COLUMN gone;
ALTER TABLE many ATTACH PARTITION many_202 FOR VALUES IN (202);
\c -
SET client_min_messages = warning;
SET search_path = partitions_test, public;
SELECT uncache.attach('many', 'many:{id}', 'p:{tableoid::regclass}:{many.id}', 'loud:{partitions_test.shout(name)}');
CREATE TRIGGER other AFTER UPDATE ON many FOR EACH ROW EXECUTE FUNCTION uncache.invalidate_columns('{name}', 'name:{id}');
BEGIN;
INSERT INTO many SELECT g, g, 'n' || g FROM generate_series(1, 202) g;
SELECT compiled() <= 3 AS shared;
UPDATE many SET name = name || 'x';
SELECT compiled() <= 6 AS shared;
SELECT count(*), count(DISTINCT key) FROM uncache.transaction_keys();
SELECT key FROM uncache.transaction_keys() WHERE key ~ '(:|_)(1|200|201|202)(:|X?$)' OR key ~ ':N(1|200|201|202)X?$' ORDER BY key COLLATE "C";
ROLLBACK;
-- What changes is noticed, in one partition and in all
ALTER TABLE many DETACH PARTITION many_1;
ALTER TABLE many_2 ADD CHECK (id <> 0);
DROP TABLE many_3;
SELECT keys_of($$INSERT INTO many VALUES (4, 4, 'a'), (2, 2, 'b'); INSERT INTO many_1 VALUES (1, 1, 'c')$$);
SELECT keys_of($$UPDATE many SET name = 'c'$$) AS none;
CREATE OR REPLACE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1) || '!';
SELECT keys_of($$INSERT INTO many VALUES (4, 4, 'a'), (2, 2, 'b')$$);
SELECT uncache.attach('many', 'now:{id}');
SELECT keys_of($$INSERT INTO many VALUES (4, 4, 'a'), (2, 2, 'b'), (202, 202, 'c')$$);
-- Rules that share nothing go when there are too many
DO $$ BEGIN FOR g IN 1 .. 1010 LOOP
	EXECUTE format('CREATE TABLE single_%1$s (id int); CREATE TRIGGER r AFTER INSERT ON single_%1$s FOR EACH ROW EXECUTE FUNCTION uncache.invalidate(''s%1$s:{id}'')', g);
END LOOP; END $$;
DO $$ BEGIN FOR g IN 1 .. 1010 LOOP EXECUTE format('INSERT INTO single_%s VALUES (1)', g); END LOOP; END $$;
SELECT compiled() BETWEEN 500 AND 1000 AS bounded;
SELECT keys_of($$INSERT INTO single_1 VALUES (7); INSERT INTO single_1010 VALUES (8); INSERT INTO single_1 VALUES (9)$$);
DO $$ BEGIN FOR g IN 1 .. 1010 LOOP EXECUTE format('DROP TABLE single_%s', g); END LOOP; END $$;
DROP TABLE many, many_1;
RESET client_min_messages;

-- What an event trigger did not see
ALTER EVENT TRIGGER uncache_ddl_end DISABLE;
CREATE TABLE ev_new PARTITION OF ev FOR VALUES IN ('new');
ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;
SELECT trigger, problem FROM uncache.rules ORDER BY 1;
SELECT uncache.attach('ev', 'ev:{id}');
SELECT trigger, problem FROM uncache.rules ORDER BY 1;

-- DROP TABLE says how to delete the keys
DROP TABLE ev_new;
DROP FOREIGN TABLE ev_far;
SET search_path = public;
DROP TABLE more.ev_af;
SET search_path = partitions_test, public;
DROP TABLE ev;
\set VERBOSITY terse
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER nothing CASCADE;
DROP SCHEMA partitions_test, more CASCADE;
