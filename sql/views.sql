-- The views of delivery, of rules and of the backlog.  Nothing is delivered while
-- this runs, so that what they show is known.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
DO $$
BEGIN
	EXECUTE format('ALTER DATABASE %I SET uncache.delivery = off', current_database());
	EXECUTE format('ALTER DATABASE %I SET uncache.consistency = eventual', current_database());
END
$$;
\c -
SET client_min_messages = warning;
CREATE FUNCTION pg_temp.await(condition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	deadline timestamptz := clock_timestamp() + interval '60 s';
	done boolean;
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO done;
		EXIT WHEN done;
		IF clock_timestamp() > deadline THEN
			RAISE EXCEPTION 'waited in vain for: %', condition;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT pg_temp.await($$(SELECT state IN ('paused', 'no worker') FROM uncache.stat)$$);
-- What other tests have left.
CREATE TEMP TABLE before AS SELECT xid FROM uncache.backlog;
CREATE TEMP VIEW new_backlog AS
SELECT * FROM uncache.backlog WHERE xid NOT IN (SELECT xid FROM before);

-- Columns are part of the surface.
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attnum > 0 AND c.oid IN ('uncache.stat'::regclass, 'uncache.stat_rules'::regclass, 'uncache.stat_databases'::regclass, 'uncache.stat_latency'::regclass, 'uncache.stat_databases_latency'::regclass, 'uncache.backlog'::regclass, 'uncache.rules'::regclass)
ORDER BY c.relname, a.attnum;

-- One row, whatever there is.
SELECT count(*), count(state), count(outbox_rows), count(ring_size) FROM uncache.stat;
-- The library and the extension are of one version.
SELECT count(*) FROM uncache.stat, pg_extension
WHERE extname = 'pg_uncache' AND version = extversion AND uncache.version() = extversion;
-- Without a worker there is a reason.
SELECT count(*) FROM uncache.stat WHERE state = 'no worker' AND last_error IS NULL;

-- A transaction is one row of the backlog, however many rows it needs.
BEGIN;
SELECT uncache.invalidate_keys('views:1', 'views:2');
SAVEPOINT s;
SELECT uncache.invalidate_keys('views:gone');
ROLLBACK TO s;
-- Not committed, so not there.
SELECT count(*) FROM new_backlog;
COMMIT;
BEGIN;
SELECT count(uncache.invalidate_keys('views:many:' || i)) FROM generate_series(1, 2000) i;
COMMIT;
-- A key that fills several rows is one key.
SELECT uncache.invalidate_keys('views:long:' || repeat('x', 30000), 'views:short');
BEGIN;
SELECT uncache.invalidate_keys('views:rolled back');
ROLLBACK;
SELECT keys, attempts, age BETWEEN '-1 s' AND '1 min' AS new FROM new_backlog ORDER BY xid;
SELECT outbox_rows > 6 AS rows, outbox_oldest_age >= (SELECT max(age) FROM new_backlog) - interval '1 s' AS age,
	outbox_bytes >= 8192 AND outbox_bytes % 8192 = 0 AS bytes
FROM uncache.stat;
-- The xid is the writer's.
BEGIN;
SELECT uncache.invalidate_keys('views:mine');
SELECT pg_current_xact_id() AS mine \gset
COMMIT;
SELECT keys FROM uncache.backlog WHERE xid = :'mine';

-- Looking leaves no lock on the outbox and no predicate lock anywhere.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) >= 4 AS seen FROM uncache.backlog;
SELECT outbox_rows >= 4 AS seen FROM uncache.stat;
SELECT l.mode, c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND c.relname LIKE 'outbox%';
COMMIT;
BEGIN READ ONLY;
SELECT count(*) >= 4 AS seen FROM uncache.backlog;
COMMIT;
-- A cursor is filled when it is opened.
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM uncache.backlog;
MOVE 1 FROM c;
SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND c.relname LIKE 'outbox%';
COMMIT;

-- Every rule is in stat_rules, also when it has sent nothing; clones are not rules.
CREATE TABLE views_plain (id int);
CREATE TABLE views_parent (id int) PARTITION BY LIST (id);
CREATE TABLE views_child PARTITION OF views_parent FOR VALUES IN (1);
CREATE TRIGGER views_rule AFTER INSERT OR UPDATE OR DELETE ON views_plain
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('views:{id}');
CREATE TRIGGER views_all AFTER TRUNCATE ON views_plain
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.invalidate('views:{id}');
CREATE TRIGGER views_rule AFTER INSERT ON views_parent
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('views:{id}');
CREATE TRIGGER not_ours BEFORE UPDATE ON views_plain
	FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT * FROM uncache.stat_rules WHERE relation::text LIKE 'views%' ORDER BY relation::text, trigger;
DROP TABLE views_plain, views_parent;

-- Every column is described.
SELECT c.relname, a.attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attnum > 0 AND c.oid IN ('uncache.stat'::regclass, 'uncache.stat_rules'::regclass, 'uncache.stat_databases'::regclass, 'uncache.stat_latency'::regclass, 'uncache.stat_databases_latency'::regclass, 'uncache.backlog'::regclass, 'uncache.rules'::regclass)
	AND col_description(c.oid, a.attnum) IS NULL;

-- Rights: pg_monitor looks, others when they are granted both, nobody resets.
CREATE ROLE regress_uncache_monitor IN ROLE pg_monitor;
CREATE ROLE regress_uncache_other;
CREATE ROLE regress_uncache_granted;
GRANT SELECT ON uncache.stat TO regress_uncache_granted;
GRANT EXECUTE ON FUNCTION uncache.stat_get(), uncache.stat_reset() TO regress_uncache_granted;
SET ROLE regress_uncache_monitor;
SELECT count(*) FROM uncache.stat;
SELECT count(*) >= 4 AS seen FROM uncache.backlog;
SELECT count(*) FROM uncache.stat_rules WHERE relation::text LIKE 'views%';
SELECT uncache.stat_reset();
SET ROLE regress_uncache_other;
SELECT * FROM uncache.stat;
SELECT * FROM uncache.backlog;
SELECT * FROM uncache.stat_rules;
SELECT uncache.stat_get();
SELECT uncache.backlog_get();
SELECT uncache.stat_rules_get();
SELECT uncache.stat_reset();
SET ROLE regress_uncache_granted;
SELECT count(*) FROM uncache.stat;
SELECT uncache.stat_reset();
SELECT * FROM uncache.backlog;
RESET ROLE;
REVOKE ALL ON uncache.stat FROM regress_uncache_granted;
REVOKE ALL ON FUNCTION uncache.stat_get(), uncache.stat_reset() FROM regress_uncache_granted;
DROP ROLE regress_uncache_monitor, regress_uncache_other, regress_uncache_granted;

-- The counters start anew.
SELECT transactions_delivered, keys_delivered, waits, waits_skipped, latency_max_ms,
	stats_reset IS NULL OR stats_reset > now() - interval '1 min' AS reset
FROM uncache.stat;

DO $$
BEGIN
	EXECUTE format('ALTER DATABASE %I RESET uncache.delivery', current_database());
	EXECUTE format('ALTER DATABASE %I RESET uncache.consistency', current_database());
END
$$;

-- Rows are written without a snapshot, so nothing of the outbox may have a toast table.
SELECT relname FROM pg_class
WHERE relnamespace = 'uncache'::regnamespace AND relname LIKE 'outbox%' AND reltoastrelid <> 0;
