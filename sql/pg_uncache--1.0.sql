/* pg_uncache 1.0: installed by CREATE EXTENSION pg_uncache */

\echo Use "CREATE EXTENSION pg_uncache" to load this file. \quit

-- First of all: an object that is in the schema already could hide one of pg_catalog.
CREATE FUNCTION uncache.require_own_schema() RETURNS void
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_require_own_schema';
COMMENT ON FUNCTION uncache.require_own_schema() IS
'for the install script: raises an error unless the schema uncache is a superuser''s and holds nothing else';
REVOKE ALL ON FUNCTION uncache.require_own_schema() FROM PUBLIC;
SELECT uncache.require_own_schema();

-- The extension needs its worker, so this is checked before anything is made.
CREATE FUNCTION uncache.require_preload(what text) RETURNS void
	LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'uncache_require_preload';
COMMENT ON FUNCTION uncache.require_preload(text) IS
'raises an error that names "what" unless pg_uncache is in shared_preload_libraries';
REVOKE ALL ON FUNCTION uncache.require_preload(text) FROM PUBLIC;
SELECT uncache.require_preload('CREATE EXTENSION pg_uncache');

-- ---------------------------------------------------------------------------
-- Outbox
-- ---------------------------------------------------------------------------
-- Only the library writes and reads these tables, never SQL.  The tables outbox_0 to
-- outbox_3 take turns and are truncated in place, so they need no vacuum; outbox_side
-- holds rows of prepared transactions, and keys that Redis has refused.

CREATE FUNCTION uncache.outbox_guard() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_outbox_guard';
COMMENT ON FUNCTION uncache.outbox_guard() IS
'keeps SQL from writing to the outbox: raises an error, or leaves the row out while session_replication_role is replica';
REVOKE ALL ON FUNCTION uncache.outbox_guard() FROM PUBLIC;

-- In two commands: CREATE TABLE with a bytea column would add a toast table, and rows are
-- written without a snapshot, which a toast table needs.
CREATE TABLE uncache.outbox_0 (
	xid xid8 NOT NULL,
	chunk int4 NOT NULL,
	at timestamptz NOT NULL
) USING heap;
ALTER TABLE uncache.outbox_0
	ADD COLUMN items bytea NOT NULL,
	ADD COLUMN attempts int4 NOT NULL,
	ALTER COLUMN items SET STORAGE PLAIN;
CREATE TABLE uncache.outbox_1 (LIKE uncache.outbox_0 INCLUDING STORAGE) USING heap;
CREATE TABLE uncache.outbox_2 (LIKE uncache.outbox_0 INCLUDING STORAGE) USING heap;
CREATE TABLE uncache.outbox_3 (LIKE uncache.outbox_0 INCLUDING STORAGE) USING heap;
CREATE TABLE uncache.outbox_side (LIKE uncache.outbox_0 INCLUDING STORAGE) USING heap;
-- error: the answer of Redis when it last refused the row.
ALTER TABLE uncache.outbox_side
	ADD COLUMN error text,
	ALTER COLUMN error SET STORAGE PLAIN;

ALTER TABLE uncache.outbox_0 SET (autovacuum_enabled = false);
ALTER TABLE uncache.outbox_1 SET (autovacuum_enabled = false);
ALTER TABLE uncache.outbox_2 SET (autovacuum_enabled = false);
ALTER TABLE uncache.outbox_3 SET (autovacuum_enabled = false);

COMMENT ON TABLE uncache.outbox_0 IS
'outbox of pg_uncache: what is committed and not delivered yet; not for SQL, see uncache.backlog';
REVOKE ALL ON uncache.outbox_0 FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.outbox_0
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.outbox_0
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.outbox_0 ENABLE ALWAYS TRIGGER outbox_guard;

COMMENT ON TABLE uncache.outbox_1 IS
'outbox of pg_uncache: what is committed and not delivered yet; not for SQL, see uncache.backlog';
REVOKE ALL ON uncache.outbox_1 FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.outbox_1
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.outbox_1
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.outbox_1 ENABLE ALWAYS TRIGGER outbox_guard;

COMMENT ON TABLE uncache.outbox_2 IS
'outbox of pg_uncache: what is committed and not delivered yet; not for SQL, see uncache.backlog';
REVOKE ALL ON uncache.outbox_2 FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.outbox_2
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.outbox_2
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.outbox_2 ENABLE ALWAYS TRIGGER outbox_guard;

COMMENT ON TABLE uncache.outbox_3 IS
'outbox of pg_uncache: what is committed and not delivered yet; not for SQL, see uncache.backlog';
REVOKE ALL ON uncache.outbox_3 FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.outbox_3
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.outbox_3
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.outbox_3 ENABLE ALWAYS TRIGGER outbox_guard;

COMMENT ON TABLE uncache.outbox_side IS
'outbox of pg_uncache: what is committed and not delivered yet; not for SQL, see uncache.backlog';
REVOKE ALL ON uncache.outbox_side FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.outbox_side
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.outbox_side
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.outbox_side ENABLE ALWAYS TRIGGER outbox_guard;

-- Overflow markers: while the outbox is over uncache.outbox_max_size a transaction leaves
-- the key patterns of its rules here instead of its keys.
CREATE TABLE uncache.outbox_note (
	at timestamptz NOT NULL
) USING heap;
ALTER TABLE uncache.outbox_note
	ADD COLUMN items bytea NOT NULL,
	ALTER COLUMN items SET STORAGE PLAIN;
COMMENT ON TABLE uncache.outbox_note IS
'part of the outbox of pg_uncache: rules all of whose keys will be deleted, since uncache.outbox_max_size was reached; not for SQL';
REVOKE ALL ON uncache.outbox_note FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.outbox_note
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.outbox_note
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.outbox_note ENABLE ALWAYS TRIGGER outbox_guard;

-- ---------------------------------------------------------------------------
-- Rules
-- ---------------------------------------------------------------------------
-- A rule is a trigger that calls one of the first two functions.

CREATE FUNCTION uncache.invalidate() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_invalidate';
COMMENT ON FUNCTION uncache.invalidate() IS
'trigger function; each argument is a template. AFTER ... FOR EACH ROW: deletes the keys of the new row (INSERT), the old one (DELETE), or both (UPDATE, unless nothing has changed) after the commit. AFTER TRUNCATE ... FOR EACH STATEMENT: deletes every key that the templates can produce; a template that does not begin with literal text of two letters or digits (uncache.key_prefix does not count) is refused by CREATE TRIGGER, and left out with a WARNING by TRUNCATE. Errors: a bad template, a key over 64 KiB, more than 10000 keys of a row, a call in any other way than as such a trigger';

CREATE FUNCTION uncache.invalidate_columns() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_invalidate_columns';
COMMENT ON FUNCTION uncache.invalidate_columns() IS
'trigger function; as uncache.invalidate(), but the first argument is an array literal of column names, such as {email,name}: an UPDATE counts only when one of these columns, or a rendered key, differs between the old and the new row';

CREATE FUNCTION uncache.attach(rel regclass, VARIADIC templates text[]) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_attach';
COMMENT ON FUNCTION uncache.attach(regclass, text[]) IS
'makes the triggers uncache_row and uncache_truncate with these templates, ENABLE ALWAYS, and drops those that an earlier call made; they cover partitions, present and future. A NOTICE shows the keys of one existing row. Needs TRIGGER on the table and EXECUTE on uncache.invalidate(); replacing a rule needs the ownership of the table. Errors: a bad template, a NULL; a view, a foreign or temporary table, a system catalog; pg_uncache is not in shared_preload_libraries; a read-only transaction';

CREATE FUNCTION uncache.attach_columns(rel regclass, columns name[], VARIADIC templates text[]) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_attach_columns';
COMMENT ON FUNCTION uncache.attach_columns(regclass, name[], text[]) IS
'as uncache.attach(), but an UPDATE counts only when one of these columns, or a rendered key, differs between the old and the new row. Needs EXECUTE on uncache.invalidate_columns() too';

CREATE FUNCTION uncache.detach(rel regclass) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_detach';
COMMENT ON FUNCTION uncache.detach(regclass) IS
'drops the triggers that uncache.attach() made; no key is deleted. For the owner of the table. Errors: the table has no such trigger; it is a partition, and the triggers belong to the partitioned table; a NULL, a read-only transaction';

CREATE FUNCTION uncache.invalidate_table(rel regclass) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_invalidate_table';
COMMENT ON FUNCTION uncache.invalidate_table(regclass) IS
'after the transaction commits, deletes every key that the rules of a table and of the tables below it can produce; also while uncache.enabled is off. A template that does not begin with literal text of two letters or digits is left out with a WARNING. Errors: the table has no rule, a NULL, a standby';

CREATE FUNCTION uncache.render(template text, "row" anyelement) RETURNS text[]
	LANGUAGE C STRICT STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'uncache_render';
COMMENT ON FUNCTION uncache.render(text, anyelement) IS
'the keys that a template gives for a row of a table, with uncache.key_prefix: SELECT uncache.render(''user:{id}'', u) FROM users u. An empty array if the row gives no key; NULL for a NULL row. Errors: a bad template, a value that is not a row of a table, the limits of uncache.invalidate()';

CREATE FUNCTION uncache.list_rules(
	OUT relation regclass,
	OUT trigger name,
	OUT events text[],
	OUT columns name[],
	OUT templates text[],
	OUT enabled text,
	OUT problem text
) RETURNS SETOF record
	LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_list_rules';
COMMENT ON FUNCTION uncache.list_rules() IS
'the rules of this database, for the view uncache.rules';

CREATE VIEW uncache.rules AS SELECT * FROM uncache.list_rules();
COMMENT ON VIEW uncache.rules IS
'the rules of this database: one row for each trigger that calls uncache.invalidate() or uncache.invalidate_columns(), without its clones on partitions';
COMMENT ON COLUMN uncache.rules.relation IS
'the table; if it is partitioned, the rule covers all partitions';
COMMENT ON COLUMN uncache.rules.trigger IS
'name of the trigger that is the rule; uncache_row and uncache_truncate are made by attach';
COMMENT ON COLUMN uncache.rules.templates IS
'its templates, without uncache.key_prefix';
COMMENT ON COLUMN uncache.rules.events IS
'the commands for which the trigger fires: INSERT, UPDATE, DELETE, TRUNCATE';
COMMENT ON COLUMN uncache.rules.columns IS
'the columns whose change makes an UPDATE count (attach_columns, UPDATE OF); NULL: all';
COMMENT ON COLUMN uncache.rules.enabled IS
'for which changes the trigger fires: always (all), origin (all but those that arrive by replication), replica (only those), disabled (none)';
COMMENT ON COLUMN uncache.rules.problem IS
'why the rule will miss changes or make writes fail; NULL: nothing is known to be wrong';

CREATE FUNCTION uncache.rules_of_key(
	key text,
	OUT relation regclass,
	OUT trigger name,
	OUT template text
) RETURNS SETOF record
	LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_rules_of_key';
COMMENT ON FUNCTION uncache.rules_of_key(text) IS
'the rules whose templates can produce this key, as it is in Redis (with uncache.key_prefix): one row for each template, disabled rules included. No row: no change of a row deletes this key. Decides by the types of the expressions, not by the rows that exist; NULL gives no row. A rule that no longer works gets a WARNING. Granted to pg_monitor and pg_read_all_data';

REVOKE ALL ON FUNCTION
	uncache.invalidate(),
	uncache.invalidate_columns(),
	uncache.attach(regclass, text[]),
	uncache.attach_columns(regclass, name[], text[]),
	uncache.detach(regclass),
	uncache.invalidate_table(regclass),
	uncache.list_rules(),
	uncache.rules_of_key(text)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION uncache.list_rules(), uncache.rules_of_key(text) TO pg_monitor;
GRANT SELECT ON uncache.rules TO pg_monitor;

-- Keep rules whole while tables, types and functions change.
CREATE FUNCTION uncache.ddl_end() RETURNS event_trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_ddl_end';
COMMENT ON FUNCTION uncache.ddl_end() IS
'checks new rules, refuses changes that would break one, and extends TRUNCATE rules to new partitions';

CREATE FUNCTION uncache.ddl_drop() RETURNS event_trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_ddl_drop';
COMMENT ON FUNCTION uncache.ddl_drop() IS
'refuses to drop an object that a template uses; with CASCADE drops the rule, too';

CREATE FUNCTION uncache.ddl_rewrite() RETURNS event_trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_ddl_rewrite';
COMMENT ON FUNCTION uncache.ddl_rewrite() IS
'deletes all keys of a table whose rows ALTER TABLE rewrites';

CREATE FUNCTION uncache.ddl_start() RETURNS event_trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_ddl_start';
COMMENT ON FUNCTION uncache.ddl_start() IS
'refuses commands that would change or lock the tables of pg_uncache; refuses, with a hint, to attach a partition that has a rule with the name of one of the table''s rules; makes DROP EXTENSION wait for writers before it locks the outbox';

REVOKE ALL ON FUNCTION
	uncache.ddl_start(),
	uncache.ddl_end(),
	uncache.ddl_drop(),
	uncache.ddl_rewrite()
FROM PUBLIC;

CREATE EVENT TRIGGER uncache_ddl_start ON ddl_command_start
	WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE INDEX', 'CREATE TRIGGER', 'CREATE RULE',
				 'CREATE POLICY', 'DROP EXTENSION', 'DROP SCHEMA')
	EXECUTE FUNCTION uncache.ddl_start();
CREATE EVENT TRIGGER uncache_ddl_end ON ddl_command_end
	WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'CREATE SCHEMA',
				 'CREATE FUNCTION', 'ALTER FUNCTION', 'ALTER ROUTINE', 'ALTER OPERATOR',
				 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER SCHEMA', 'ALTER COLLATION',
				 'ALTER EXTENSION')
	EXECUTE FUNCTION uncache.ddl_end();
CREATE EVENT TRIGGER uncache_ddl_drop ON sql_drop
	WHEN TAG IN ('ALTER TABLE', 'ALTER TYPE', 'ALTER EXTENSION', 'DROP TABLE', 'DROP VIEW',
				 'DROP MATERIALIZED VIEW', 'DROP FOREIGN TABLE', 'DROP FUNCTION', 'DROP ROUTINE',
				 'DROP OPERATOR', 'DROP CAST', 'DROP COLLATION', 'DROP TYPE', 'DROP DOMAIN',
				 'DROP SCHEMA', 'DROP EXTENSION', 'DROP LANGUAGE', 'DROP OWNED')
	EXECUTE FUNCTION uncache.ddl_drop();
CREATE EVENT TRIGGER uncache_ddl_rewrite ON table_rewrite
	EXECUTE FUNCTION uncache.ddl_rewrite();
ALTER EVENT TRIGGER uncache_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER uncache_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER uncache_ddl_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER uncache_ddl_rewrite ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER uncache_ddl_start IS
'see uncache.ddl_start(). While it is disabled a command can break the outbox, and then commits fail';
COMMENT ON EVENT TRIGGER uncache_ddl_end IS
'keeps rules whole: see uncache.ddl_end(). While it is disabled a change can break a rule, and the next write to its table fails';
COMMENT ON EVENT TRIGGER uncache_ddl_drop IS
'keeps rules whole: see uncache.ddl_drop(). While it is disabled a DROP can break a rule, and the next write to its table fails';
COMMENT ON EVENT TRIGGER uncache_ddl_rewrite IS
'see uncache.ddl_rewrite(). While it is disabled the keys of rewritten rows are not deleted';

-- ---------------------------------------------------------------------------
-- Fenced fills
-- ---------------------------------------------------------------------------

-- One row, written by the worker at every start of the server.
CREATE TABLE uncache.incarnation (
	id text NOT NULL,
	timeline int4 NOT NULL,
	since timestamptz NOT NULL,
	lineage text NOT NULL
) USING heap;
COMMENT ON TABLE uncache.incarnation IS
'the incarnation of the server: transaction ids can be compared only within one, which ends with a crash or a promotion; for uncache.snapshot(), not for SQL';
REVOKE ALL ON uncache.incarnation FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.incarnation
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.incarnation
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.incarnation ENABLE ALWAYS TRIGGER outbox_guard;

-- At most one row, written by the worker when several servers claim the same keys.
CREATE TABLE uncache.fence_standing (
	claim int8 NOT NULL,
	place_claim int8 NOT NULL,
	superseded text NOT NULL,
	by_incarnation text NOT NULL,
	by_timeline int4 NOT NULL,
	by_claim int8 NOT NULL,
	by_seen timestamptz NOT NULL
) USING heap;
COMMENT ON TABLE uncache.fence_standing IS
'how often uncache.reclaim_fence() was called, and which server supersedes this one; for the worker, not for SQL';
REVOKE ALL ON uncache.fence_standing FROM PUBLIC;
CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.fence_standing
	FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard();
CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.fence_standing
	FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard();
ALTER TABLE uncache.fence_standing ENABLE ALWAYS TRIGGER outbox_guard;

CREATE FUNCTION uncache.reclaim_fence() RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_reclaim_fence';
COMMENT ON FUNCTION uncache.reclaim_fence() IS
'from now on the readers of this server may fill the cache, and those of the server that has superseded it may not; if none has, those of all other servers that serve the keys of this uncache.key_prefix may not. Nor may those of a copy that was made before the call and comes to Redis later. Deletes every key that the rules can produce, unless the readers of the other server have stored nothing. Takes effect at once, also if the transaction rolls back. Returns true when Redis has confirmed it. Returns false when it has not within 10 s: then the request is kept, and takes effect when Redis is back, unless the worker had not begun. For superusers. Errors: uncache.fence_ttl is 0; a standby; pg_uncache is not in shared_preload_libraries';
REVOKE ALL ON FUNCTION uncache.reclaim_fence() FROM PUBLIC;

CREATE FUNCTION uncache.snapshot(token text) RETURNS text
	LANGUAGE C STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'uncache_snapshot';
COMMENT ON FUNCTION uncache.snapshot(text) IS
'the snapshot of the calling statement, bound to the token of a miss, for FCALL uncache_set. Call it in the statement that reads the value, or in an earlier one. NULL if the value must not be stored: the token is NULL or no token, the transaction has written, uncache.fence_ttl is 0, the worker of a primary has not written its incarnation yet, or the table uncache.incarnation is locked';

CREATE FUNCTION uncache.snapshot(tokens text[]) RETURNS text[]
	LANGUAGE C STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'uncache_snapshots';
COMMENT ON FUNCTION uncache.snapshot(text[]) IS
'the same for many tokens at once: an array of the same shape, with NULL for each value that must not be stored. NULL for NULL';

-- ---------------------------------------------------------------------------
-- Any SQL
-- ---------------------------------------------------------------------------

CREATE FUNCTION uncache.invalidate_keys(VARIADIC keys text[]) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_invalidate_keys';
COMMENT ON FUNCTION uncache.invalidate_keys(text[]) IS
'deletes these keys from Redis after the transaction commits; uncache.key_prefix goes before each. NULL keys are ignored. Also while uncache.enabled is off. Returns how many were new in this transaction. Errors: an empty key, a key over 64 KiB, a standby';

CREATE FUNCTION uncache.invalidate_pattern(pattern text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_invalidate_pattern';
COMMENT ON FUNCTION uncache.invalidate_pattern(text) IS
'deletes every key that matches this Redis glob (* ? [a-z] and backslash) after the transaction commits, with SCAN and UNLINK by the worker; uncache.key_prefix goes before it. NULL does nothing. Also while uncache.enabled is off. Errors: an empty pattern, one over 4 kB, a standby';

CREATE FUNCTION uncache.transaction_keys(OUT relation regclass, OUT trigger name, OUT key text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'uncache_transaction_keys';
COMMENT ON FUNCTION uncache.transaction_keys() IS
'the keys that the running transaction would delete if it committed now (for a pattern its glob), each with the rule that it comes from (NULL for invalidate_keys and invalidate_pattern). Shows keys of rows that the caller may not read, if a cascade or a trigger has changed them';

CREATE FUNCTION uncache.wait(timeout interval DEFAULT '10 s') RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_wait';
COMMENT ON FUNCTION uncache.wait(interval) IS
'waits until everything that was committed in this database before the call is delivered to Redis, patterns too. Returns true then, or false when the timeout is over; a timeout of 0 only asks, which takes up to 50 ms; NULL waits without limit. Errors: pg_uncache is not in shared_preload_libraries; a standby';

CREATE FUNCTION uncache.discard_backlog() RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_discard_backlog';
COMMENT ON FUNCTION uncache.discard_backlog() IS
'forgets all invalidations that are committed and not delivered yet, for a Redis that was flushed anyway, and those that were delivered within uncache.redeliver_window. Takes effect at once, also if the transaction rolls back, and frees the disk within seconds. Returns the number of transactions; without a worker this includes delivered ones that are still kept, since only a worker knows which are delivered. For superusers. Errors: a standby; the worker has not answered within a minute; without a worker: a transaction that has read the outbox is still open';

CREATE FUNCTION uncache.discard_backlog(xid xid8) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_discard_transaction';
COMMENT ON FUNCTION uncache.discard_backlog(xid8) IS
'forgets the undelivered invalidations of one transaction, by its id in uncache.backlog; keys of it that are deleted already stay deleted. Takes effect at once, also if the calling transaction rolls back; without a worker, when it commits. Returns 1, or 0 if nothing of that transaction is undelivered. For superusers. Errors: a NULL, a standby; the worker has not answered within a minute; without a worker: a table of the outbox is locked';

REVOKE ALL ON FUNCTION
	uncache.invalidate_keys(text[]),
	uncache.invalidate_pattern(text),
	uncache.transaction_keys(),
	uncache.discard_backlog(),
	uncache.discard_backlog(xid8)
FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Views
-- ---------------------------------------------------------------------------
-- PostgreSQL checks EXECUTE on a function behind a view for the user who reads the view,
-- so both are granted to pg_monitor.

CREATE FUNCTION uncache.stat_get(
	OUT state text,
	OUT worker_pid int,
	OUT redis text,
	OUT transactions_delivered bigint,
	OUT keys_delivered bigint,
	OUT keys_existed bigint,
	OUT batches bigint,
	OUT retries bigint,
	OUT reconnects bigint,
	OUT waits bigint,
	OUT wait_timeouts bigint,
	OUT waits_skipped bigint,
	OUT waiting_backends int,
	OUT patterns_running int,
	OUT pattern_passes bigint,
	OUT ring_used bigint,
	OUT ring_size bigint,
	OUT ring_overflows bigint,
	OUT keys_refused bigint,
	OUT keys_refused_now bigint,
	OUT fills_plain bigint,
	OUT checked bigint,
	OUT found_stale bigint,
	OUT stream_entries bigint,
	OUT stream_entries_lost bigint,
	OUT outbox_rows bigint,
	OUT outbox_bytes bigint,
	OUT outbox_oldest_at timestamptz,
	OUT latency_p50_ms double precision,
	OUT latency_p99_ms double precision,
	OUT latency_max_ms double precision,
	OUT fence text,
	OUT fills_stored bigint,
	OUT fills_refused bigint,
	OUT beats bigint,
	OUT last_error text,
	OUT last_error_at timestamptz,
	OUT stats_reset timestamptz,
	OUT version text)
RETURNS record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_stat_get';
COMMENT ON FUNCTION uncache.stat_get() IS
'behind the view uncache.stat: its row, with the time at which the oldest undelivered outbox row was written in place of its age';
REVOKE ALL ON FUNCTION uncache.stat_get() FROM PUBLIC;

CREATE VIEW uncache.stat AS
SELECT
	s.state, s.worker_pid, s.redis,
	s.transactions_delivered, s.keys_delivered, s.keys_existed,
	s.batches, s.retries, s.reconnects,
	s.waits, s.wait_timeouts, s.waits_skipped, s.waiting_backends,
	s.patterns_running, s.pattern_passes,
	s.ring_used, s.ring_size, s.ring_overflows,
	s.keys_refused, s.keys_refused_now,
	s.fills_plain, s.checked, s.found_stale,
	s.stream_entries, s.stream_entries_lost,
	s.outbox_rows, s.outbox_bytes,
	clock_timestamp() - s.outbox_oldest_at AS outbox_oldest_age,
	s.latency_p50_ms, s.latency_p99_ms, s.latency_max_ms,
	s.fence, s.fills_stored, s.fills_refused, s.beats,
	s.last_error, s.last_error_at, s.stats_reset, s.version
FROM uncache.stat_get() s;
COMMENT ON VIEW uncache.stat IS
'one row: the state and the counters of delivery to Redis in this database (pg_monitor and pg_read_all_data; others need SELECT and EXECUTE on uncache.stat_get())';
COMMENT ON COLUMN uncache.stat.state IS
'connected; connecting (first attempt, or Redis was just lost); down (Redis cannot be reached, the worker keeps trying); paused (uncache.delivery = off); no worker (last_error says why)';
COMMENT ON COLUMN uncache.stat.worker_pid IS
'process id of the worker of this database; null if there is none';
COMMENT ON COLUMN uncache.stat.redis IS
'address of Redis that the worker uses, without user and password';
COMMENT ON COLUMN uncache.stat.transactions_delivered IS
'transactions delivered; a transaction with several outbox rows counts with its first row. Rows that are sent again to a restarted Redis, or by a restarted worker, count under retries';
COMMENT ON COLUMN uncache.stat.keys_delivered IS
'keys for which Redis has answered without an error, keys found by patterns included';
COMMENT ON COLUMN uncache.stat.keys_existed IS
'of keys_delivered, those that were in Redis; 0 although the cache is busy means that templates or uncache.key_prefix do not give the keys that the application uses';
COMMENT ON COLUMN uncache.stat.batches IS
'commands with keys sent to Redis and answered';
COMMENT ON COLUMN uncache.stat.retries IS
'outbox rows sent again: the connection was lost before the answer, or the worker or Redis has restarted, so that it is not known which rows were delivered';
COMMENT ON COLUMN uncache.stat.reconnects IS
'connections made to Redis after the first one';
COMMENT ON COLUMN uncache.stat.waits IS
'commits that waited for delivery';
COMMENT ON COLUMN uncache.stat.wait_timeouts IS
'of waits, those that uncache.wait_timeout ended, each with a WARNING to its client: committed, delivered later';
COMMENT ON COLUMN uncache.stat.waits_skipped IS
'commits that did not wait although uncache.consistency asks for it: no connection, an earlier wait has timed out, uncache.delivery = off, more keys than uncache.wait_max_keys, a pattern';
COMMENT ON COLUMN uncache.stat.waiting_backends IS
'sessions whose commit waits for delivery now';
COMMENT ON COLUMN uncache.stat.patterns_running IS
'patterns that the worker is looking for in Redis now';
COMMENT ON COLUMN uncache.stat.pattern_passes IS
'passes of SCAN over the keys of Redis completed';
COMMENT ON COLUMN uncache.stat.ring_used IS
'bytes of the ring, in shared memory, that the worker has not read yet';
COMMENT ON COLUMN uncache.stat.ring_size IS
'bytes of the ring of this database: its part of uncache.ring_size';
COMMENT ON COLUMN uncache.stat.ring_overflows IS
'transactions for which the ring had no room, so that they were delivered from the outbox';
COMMENT ON COLUMN uncache.stat.keys_refused IS
'counter: keys and patterns that Redis has refused with an error of their own (mostly for want of a right), each counted once however often it was tried';
COMMENT ON COLUMN uncache.stat.keys_refused_now IS
'level: keys and patterns that were refused and will be tried again; last_error has the answer of Redis';
COMMENT ON COLUMN uncache.stat.fills_plain IS
'counter: values that were stored with SET under keys which other readers fill fenced, as far as Redis has noticed (it watches one key in eight): such a key has the plain guarantee only. Of all databases that use this Redis';
COMMENT ON COLUMN uncache.stat.checked IS
'counter: hits that readers have compared with the database (FCALL uncache_report), of all databases that use this Redis';
COMMENT ON COLUMN uncache.stat.found_stale IS
'of checked, those that were older than the database: a rule is missing, or a reader fills the key plainly';
COMMENT ON COLUMN uncache.stat.stream_entries IS
'entries that the worker has written to the stream uncache.stream, in all targets';
COMMENT ON COLUMN uncache.stat.stream_entries_lost IS
'entries that Redis has refused, as long as the stream cannot be written (last_error says why); their keys are deleted all the same';
COMMENT ON COLUMN uncache.stat.outbox_rows IS
'outbox rows not delivered yet: exact up to 8192 blocks (64 MB) a table, beyond that extrapolated from as many blocks, evenly spread';
COMMENT ON COLUMN uncache.stat.outbox_bytes IS
'size on disk of the outbox tables; includes delivered rows until their table is truncated';
COMMENT ON COLUMN uncache.stat.outbox_oldest_age IS
'time since the oldest row not delivered yet was written; null when all is delivered';
COMMENT ON COLUMN uncache.stat.latency_p50_ms IS
'half of the deliveries took at most this many milliseconds from commit to the answer of Redis (rounded up by at most 19 percent); null before the first';
COMMENT ON COLUMN uncache.stat.latency_p99_ms IS
'99 percent of the deliveries took at most this many milliseconds from commit to the answer of Redis (rounded up by at most 19 percent); null before the first';
COMMENT ON COLUMN uncache.stat.latency_max_ms IS
'the longest delivery in milliseconds since stats_reset; null before the first';
COMMENT ON COLUMN uncache.stat.fence IS
'fenced fills: on; off (uncache.fence_ttl is 0); superseded (the readers of another server fill instead, see last_error and uncache.reclaim_fence()); starting (every fill is refused for now); not possible (Redis is older than 7 or does not permit functions, see last_error); null without a connection';
COMMENT ON COLUMN uncache.stat.fills_stored IS
'fenced fills that Redis has stored since its functions were loaded, of all databases that use it';
COMMENT ON COLUMN uncache.stat.fills_refused IS
'fenced fills that Redis has refused since its functions were loaded, of all databases that use it';
COMMENT ON COLUMN uncache.stat.beats IS
'beats since the functions were loaded: marker transactions of the worker. A snapshot that sees one, on a standby or in a long transaction, has seen every transaction that was delivered before it';
COMMENT ON COLUMN uncache.stat.last_error IS
'the last error of delivery; while state is no worker, the reason for that';
COMMENT ON COLUMN uncache.stat.last_error_at IS
'when last_error happened; null if last_error is the reason why there is no worker';
COMMENT ON COLUMN uncache.stat.stats_reset IS
'when the counters started at zero';
COMMENT ON COLUMN uncache.stat.version IS
'version of the library that is loaded, as uncache.version() returns it';

CREATE FUNCTION uncache.version() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'uncache_version';
COMMENT ON FUNCTION uncache.version() IS
'version of the library that is loaded; if it differs from the extension''s (extversion in pg_extension), run ALTER EXTENSION pg_uncache UPDATE, or restart the server';
REVOKE ALL ON FUNCTION uncache.version() FROM PUBLIC;

CREATE FUNCTION uncache.stat_reset() RETURNS void
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_stat_reset';
COMMENT ON FUNCTION uncache.stat_reset() IS
'sets the counters of uncache.stat and uncache.stat_rules of this database to zero, and clears last_error if the worker is connected; levels, such as keys_refused_now, stay';
REVOKE ALL ON FUNCTION uncache.stat_reset() FROM PUBLIC;

CREATE FUNCTION uncache.stat_rules_get(
	OUT rule oid,
	OUT keys_sent bigint,
	OUT keys_existed bigint,
	OUT last_sent timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_stat_rules_get';
COMMENT ON FUNCTION uncache.stat_rules_get() IS
'behind the view uncache.stat_rules: the rules that have sent keys, by the OID of their trigger';
REVOKE ALL ON FUNCTION uncache.stat_rules_get() FROM PUBLIC;

CREATE VIEW uncache.stat_rules AS
SELECT
	t.tgrelid::pg_catalog.regclass AS relation,
	t.tgname AS trigger,
	coalesce(s.keys_sent, 0) AS keys_sent,
	coalesce(s.keys_existed, 0) AS keys_existed,
	s.last_sent
FROM pg_catalog.pg_trigger t
	LEFT JOIN uncache.stat_rules_get() s ON s.rule = t.oid
WHERE t.tgparentid = 0
	AND t.tgfoid IN ('uncache.invalidate()'::pg_catalog.regprocedure,
					 'uncache.invalidate_columns()'::pg_catalog.regprocedure);
COMMENT ON VIEW uncache.stat_rules IS
'counters of each rule of this database, since uncache.stat_reset() or the start of the server (pg_monitor and pg_read_all_data; others need SELECT and EXECUTE on uncache.stat_rules_get())';
COMMENT ON COLUMN uncache.stat_rules.relation IS
'the table';
COMMENT ON COLUMN uncache.stat_rules.trigger IS
'name of the trigger that is the rule; a partitioned table has one for itself and its partitions';
COMMENT ON COLUMN uncache.stat_rules.keys_sent IS
'keys of this rule for which Redis has answered without an error';
COMMENT ON COLUMN uncache.stat_rules.keys_existed IS
'of keys_sent, those that were in Redis; 0 although the cache is busy means that the template or uncache.key_prefix does not give the keys that the application uses';
COMMENT ON COLUMN uncache.stat_rules.last_sent IS
'when a key of this rule was last sent; null: not since stats_reset';

CREATE FUNCTION uncache.stat_databases_get(
	OUT datid oid,
	OUT datname name,
	OUT state text,
	OUT worker_pid int,
	OUT redis text,
	OUT worker_starts bigint,
	OUT transactions_delivered bigint,
	OUT keys_delivered bigint,
	OUT keys_existed bigint,
	OUT batches bigint,
	OUT retries bigint,
	OUT reconnects bigint,
	OUT waits bigint,
	OUT wait_timeouts bigint,
	OUT waits_skipped bigint,
	OUT waiting_backends int,
	OUT patterns_running int,
	OUT pattern_passes bigint,
	OUT ring_used bigint,
	OUT ring_size bigint,
	OUT ring_overflows bigint,
	OUT keys_refused bigint,
	OUT keys_refused_now bigint,
	OUT fills_plain bigint,
	OUT checked bigint,
	OUT found_stale bigint,
	OUT stream_entries bigint,
	OUT stream_entries_lost bigint,
	OUT backlog_at timestamptz,
	OUT outbox_rows bigint,
	OUT outbox_bytes bigint,
	OUT outbox_oldest_at timestamptz,
	OUT rules_with_problems int,
	OUT latency_p50_ms double precision,
	OUT latency_p99_ms double precision,
	OUT latency_max_ms double precision,
	OUT latency_sum_ms double precision,
	OUT fence text,
	OUT fills_stored bigint,
	OUT fills_refused bigint,
	OUT beats bigint,
	OUT last_error text,
	OUT last_error_at timestamptz,
	OUT stats_reset timestamptz,
	OUT version text)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_stat_databases_get';
COMMENT ON FUNCTION uncache.stat_databases_get() IS
'behind the view uncache.stat_databases: its rows, with the time at which the oldest undelivered outbox row was written in place of its age';
REVOKE ALL ON FUNCTION uncache.stat_databases_get() FROM PUBLIC;

CREATE VIEW uncache.stat_databases AS
SELECT
	s.datid, s.datname, s.state, s.worker_pid, s.redis, s.worker_starts,
	s.transactions_delivered, s.keys_delivered, s.keys_existed,
	s.batches, s.retries, s.reconnects,
	s.waits, s.wait_timeouts, s.waits_skipped, s.waiting_backends,
	s.patterns_running, s.pattern_passes,
	s.ring_used, s.ring_size, s.ring_overflows,
	s.keys_refused, s.keys_refused_now,
	s.fills_plain, s.checked, s.found_stale,
	s.stream_entries, s.stream_entries_lost,
	s.backlog_at, s.outbox_rows, s.outbox_bytes,
	s.backlog_at - s.outbox_oldest_at AS outbox_oldest_age,
	s.rules_with_problems,
	s.latency_p50_ms, s.latency_p99_ms, s.latency_max_ms, s.latency_sum_ms,
	s.fence, s.fills_stored, s.fills_refused, s.beats,
	s.last_error, s.last_error_at, s.stats_reset, s.version
FROM uncache.stat_databases_get() s;
COMMENT ON VIEW uncache.stat_databases IS
'one row for each database of the server that is served, from shared memory alone, so that a monitor needs one connection; no row on a standby, or where the library is not preloaded. Columns that are not described here are those of uncache.stat (pg_monitor and pg_read_all_data; others need SELECT and EXECUTE on uncache.stat_databases_get())';
COMMENT ON COLUMN uncache.stat_databases.datid IS
'OID of the database';
COMMENT ON COLUMN uncache.stat_databases.datname IS
'name of the database';
COMMENT ON COLUMN uncache.stat_databases.state IS
'as in uncache.stat; a database that waits for a worker because uncache.max_database_workers is reached has no row';
COMMENT ON COLUMN uncache.stat_databases.worker_starts IS
'counter: how often a worker of this database has started; grows when settings change, and steadily if the worker fails';
COMMENT ON COLUMN uncache.stat_databases.backlog_at IS
'when the worker last looked at its outbox, which it does every five seconds: the next three columns are of that time; null before its first look';
COMMENT ON COLUMN uncache.stat_databases.outbox_rows IS
'outbox rows that were not delivered then; of a table of more than 256 blocks (2 MB) an estimate';
COMMENT ON COLUMN uncache.stat_databases.outbox_bytes IS
'size on disk of the outbox tables then';
COMMENT ON COLUMN uncache.stat_databases.outbox_oldest_age IS
'age that the oldest undelivered row had then; null if there was none';
COMMENT ON COLUMN uncache.stat_databases.rules_with_problems IS
'rules for which uncache.rules of that database shows a problem, when the worker last checked them: within a few seconds of DDL, and else once a minute; of a table with more than 255 partitions it looks at 255; null before its first check';
COMMENT ON COLUMN uncache.stat_databases.fills_plain IS
'as in uncache.stat: a count of the Redis, so each of the databases that share one shows the whole of it; over these take the largest, not the sum';
COMMENT ON COLUMN uncache.stat_databases.checked IS
'as in uncache.stat: a count of the Redis, so each of the databases that share one shows the whole of it; over these take the largest, not the sum';
COMMENT ON COLUMN uncache.stat_databases.found_stale IS
'as in uncache.stat: a count of the Redis, so each of the databases that share one shows the whole of it; over these take the largest, not the sum';
COMMENT ON COLUMN uncache.stat_databases.latency_sum_ms IS
'sum of all delivery latencies since stats_reset, for an average';

CREATE FUNCTION uncache.stat_latency_get(
	OUT datid oid,
	OUT le_ms double precision,
	OUT count bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_stat_latency_get';
COMMENT ON FUNCTION uncache.stat_latency_get() IS
'behind the view uncache.stat_latency: its rows for each database that is served';
REVOKE ALL ON FUNCTION uncache.stat_latency_get() FROM PUBLIC;

CREATE VIEW uncache.stat_latency AS
SELECT l.le_ms, l.count
FROM uncache.stat_latency_get() l
	JOIN pg_catalog.pg_database d ON d.oid = l.datid
WHERE d.datname = pg_catalog.current_database();
COMMENT ON VIEW uncache.stat_latency IS
'how long deliveries of this database took from commit to the answer of Redis, as cumulative buckets that double from 0.128 ms to 134 s (pg_monitor and pg_read_all_data; others need SELECT and EXECUTE on uncache.stat_latency_get()). No row without a worker';
COMMENT ON COLUMN uncache.stat_latency.le_ms IS
'upper end of the bucket in milliseconds; Infinity in the last row';
COMMENT ON COLUMN uncache.stat_latency.count IS
'counter: deliveries that took less than that, since stats_reset';

CREATE VIEW uncache.stat_databases_latency AS
SELECT d.datname, l.le_ms, l.count
FROM uncache.stat_latency_get() l
	JOIN pg_catalog.pg_database d ON d.oid = l.datid;
COMMENT ON VIEW uncache.stat_databases_latency IS
'uncache.stat_latency of each database that is served, for a monitor with one connection (the same rights)';
COMMENT ON COLUMN uncache.stat_databases_latency.datname IS
'name of the database';
COMMENT ON COLUMN uncache.stat_databases_latency.le_ms IS
'upper end of the bucket in milliseconds; Infinity in the last row of a database';
COMMENT ON COLUMN uncache.stat_databases_latency.count IS
'counter: deliveries that took less than that, since stats_reset of the database';

CREATE FUNCTION uncache.backlog_get(
	OUT xid xid8,
	OUT written_at timestamptz,
	OUT keys bigint,
	OUT attempts int,
	OUT estimated boolean)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_backlog_get';
COMMENT ON FUNCTION uncache.backlog_get() IS
'behind the view uncache.backlog: its rows, with the time at which the oldest row of a transaction was written in place of its age';
REVOKE ALL ON FUNCTION uncache.backlog_get() FROM PUBLIC;

-- In the target list of a subquery the executor passes the rows of a function on one by
-- one; in FROM it would gather them first, on disk if they are many.
CREATE VIEW uncache.backlog AS
SELECT
	(b.transaction).xid,
	clock_timestamp() - (b.transaction).written_at AS age,
	(b.transaction).keys,
	(b.transaction).attempts,
	(b.transaction).estimated
FROM (SELECT uncache.backlog_get() AS transaction) b;
COMMENT ON VIEW uncache.backlog IS
'transactions that are committed and not delivered yet. After a restart and on a standby also some that are delivered, until they are sent again. A query reads an outbox table of up to 1024 blocks (8 MB) as a whole, and of a larger one 256 blocks, evenly spread (pg_monitor and pg_read_all_data; others need SELECT and EXECUTE on uncache.backlog_get())';
COMMENT ON COLUMN uncache.backlog.xid IS
'top-level transaction id, as pg_current_xact_id() returned it; null in the row that stands for all transactions in blocks that were not read';
COMMENT ON COLUMN uncache.backlog.age IS
'time since the transaction wrote its invalidations, immediately before its commit';
COMMENT ON COLUMN uncache.backlog.keys IS
'number of keys and patterns that are not delivered yet; the keys that a pattern finds are not counted';
COMMENT ON COLUMN uncache.backlog.attempts IS
'how often Redis has refused one of them with an error of its own (such as -NOPERM); 0: not tried, or not answered';
COMMENT ON COLUMN uncache.backlog.estimated IS
'true if keys is an estimate, since only a part of a large outbox table was read';

CREATE FUNCTION uncache.backlog_keys(xid xid8)
RETURNS TABLE (kind text, key text, relation regclass, trigger name, attempts int, last_error text)
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'uncache_backlog_keys';
COMMENT ON FUNCTION uncache.backlog_keys(xid8) IS
'the undelivered keys and patterns of a transaction, by its id in uncache.backlog: kind is key or pattern (a Redis glob); relation and trigger are those of the rule (NULL for invalidate_keys and invalidate_pattern, or if the rule was dropped); attempts is how often Redis has refused it, last_error the answer of Redis. No row if the transaction has nothing undelivered. Reads the whole outbox. For superusers and pg_read_all_data';
REVOKE ALL ON FUNCTION uncache.backlog_keys(xid8) FROM PUBLIC;

CREATE FUNCTION uncache.check_redis()
RETURNS TABLE ("check" text, ok boolean, detail text)
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'uncache_check_redis';
COMMENT ON FUNCTION uncache.check_redis() IS
'asks the Redis of uncache.redis_url, by way of the worker, what works there: connection, name resolution, TLS, version, functions, fence, stream, replicas, latency, number of keys, eviction policy, and the rights to each command and to the keys of each rule (by ACL DRYRUN). ok is NULL where a check does not apply or Redis does not tell; detail says what was found, and what to do. It reads, writes and touches no key. Granted to pg_monitor. Errors: pg_uncache is not in shared_preload_libraries; a standby; no worker answers';
REVOKE ALL ON FUNCTION uncache.check_redis() FROM PUBLIC;

CREATE FUNCTION uncache.audit_keys(samples int DEFAULT 1000)
RETURNS TABLE (key_pattern text, keys bigint, covered boolean, without_ttl bigint, example text)
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'uncache_audit_keys';
COMMENT ON FUNCTION uncache.audit_keys(int) IS
'looks at a sample of so many keys of Redis (1 to 100000; all keys where it has no more), by way of the worker, and groups them: covered says whether a rule of this database can produce such a key, enabled or not; without_ttl counts those that never expire (NULL: Redis did not tell); example is one of the keys. Keys that no rule covers stay stale after a change. Keys of pg_uncache itself are left out. Where some server could not be asked there is a WARNING. For superusers and pg_read_all_data. Errors: a number out of range; pg_uncache is not in shared_preload_libraries; a standby; no worker answers; no server of Redis could be asked';
REVOKE ALL ON FUNCTION uncache.audit_keys(int) FROM PUBLIC;

GRANT SELECT ON uncache.stat, uncache.stat_rules, uncache.stat_databases, uncache.stat_latency,
	uncache.stat_databases_latency, uncache.backlog TO pg_monitor;
GRANT EXECUTE ON FUNCTION uncache.stat_get(), uncache.stat_rules_get(),
	uncache.stat_databases_get(), uncache.stat_latency_get(), uncache.backlog_get(),
	uncache.version(), uncache.check_redis() TO pg_monitor;
-- A member of pg_read_all_data has SELECT on all views already, and may see keys.
GRANT EXECUTE ON FUNCTION uncache.stat_get(), uncache.stat_rules_get(),
	uncache.stat_databases_get(), uncache.stat_latency_get(), uncache.backlog_get(),
	uncache.version(), uncache.list_rules(), uncache.rules_of_key(text),
	uncache.transaction_keys(), uncache.backlog_keys(xid8),
	uncache.audit_keys(int) TO pg_read_all_data;

-- ---------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------
GRANT USAGE ON SCHEMA uncache TO PUBLIC;
