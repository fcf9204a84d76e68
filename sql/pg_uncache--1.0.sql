/* pg_uncache 1.0: installed by CREATE EXTENSION pg_uncache */

\echo Use "CREATE EXTENSION pg_uncache" to load this file. \quit

-- Nothing works without the worker: say so before anything is made.
CREATE FUNCTION uncache.require_preload(what text) RETURNS void
	LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'uncache_require_preload';
COMMENT ON FUNCTION uncache.require_preload(text) IS
'raises an error that names "what" unless pg_uncache is in shared_preload_libraries';
REVOKE ALL ON FUNCTION uncache.require_preload(text) FROM PUBLIC;
SELECT uncache.require_preload('CREATE EXTENSION pg_uncache');

-- ---------------------------------------------------------------------------
-- Outbox
-- ---------------------------------------------------------------------------
-- Written and read by the library alone, never through SQL.  The tables outbox_0
-- to outbox_3 take turns and are emptied in place, so they need no vacuum;
-- outbox_side holds rows of prepared transactions and what Redis has refused.

CREATE FUNCTION uncache.outbox_guard() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'uncache_outbox_guard';
COMMENT ON FUNCTION uncache.outbox_guard() IS
'keeps SQL from writing to the outbox: raises an error, or leaves the row out while session_replication_role is replica';
REVOKE ALL ON FUNCTION uncache.outbox_guard() FROM PUBLIC;

DO $make$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['outbox_0', 'outbox_1', 'outbox_2', 'outbox_3', 'outbox_side'] LOOP
		EXECUTE format('CREATE TABLE uncache.%I (
			xid xid8 NOT NULL,
			chunk int4 NOT NULL,
			at timestamptz NOT NULL,
			items bytea STORAGE PLAIN NOT NULL,
			attempts int4 NOT NULL
		) USING heap', name);
		EXECUTE format('COMMENT ON TABLE uncache.%I IS %L', name,
			'outbox of pg_uncache: committed invalidations that are not delivered yet; not for SQL, see uncache.backlog');
		EXECUTE format('CREATE TRIGGER outbox_guard BEFORE INSERT OR UPDATE OR DELETE ON uncache.%I
			FOR EACH ROW EXECUTE FUNCTION uncache.outbox_guard()', name);
		EXECUTE format('ALTER TABLE uncache.%I ENABLE ALWAYS TRIGGER outbox_guard', name);
		EXECUTE format('CREATE TRIGGER outbox_guard_truncate BEFORE TRUNCATE ON uncache.%I
			FOR EACH STATEMENT EXECUTE FUNCTION uncache.outbox_guard()', name);
		EXECUTE format('REVOKE ALL ON uncache.%I FROM PUBLIC', name);
		IF name <> 'outbox_side' THEN
			EXECUTE format('ALTER TABLE uncache.%I SET (autovacuum_enabled = false)', name);
		END IF;
	END LOOP;
END
$make$;

-- ---------------------------------------------------------------------------
-- Rules
-- ---------------------------------------------------------------------------

-- ---------------------------------------------------------------------------
-- Any SQL
-- ---------------------------------------------------------------------------

CREATE FUNCTION uncache.invalidate_keys(VARIADIC keys text[]) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_invalidate_keys';
COMMENT ON FUNCTION uncache.invalidate_keys(text[]) IS
'deletes these keys from Redis after the transaction commits; uncache.key_prefix goes before each. NULL keys are left out. Returns how many were new in this transaction. Errors: an empty key, a key over 64 KiB';

CREATE FUNCTION uncache.invalidate_pattern(pattern text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_invalidate_pattern';
COMMENT ON FUNCTION uncache.invalidate_pattern(text) IS
'deletes every key that matches this Redis glob (* ? [a-z] and backslash) after the transaction commits, with SCAN and UNLINK by the worker; uncache.key_prefix goes before it. NULL does nothing. Errors: an empty pattern, one over 4 kB';

CREATE FUNCTION uncache.transaction_keys(OUT relation regclass, OUT trigger name, OUT key text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'uncache_transaction_keys';
COMMENT ON FUNCTION uncache.transaction_keys() IS
'what the running transaction would delete if it committed now: key, or glob for a pattern, and the rule it comes from (NULL for invalidate_keys and invalidate_pattern)';

CREATE FUNCTION uncache.wait(timeout interval DEFAULT '10 s') RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_wait';
COMMENT ON FUNCTION uncache.wait(interval) IS
'waits until everything that was committed in this database before the call is delivered to Redis, patterns too. Returns true then, false when the timeout is over; NULL waits for ever. Error: pg_uncache is not in shared_preload_libraries';

CREATE FUNCTION uncache.discard_backlog() RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'uncache_discard_backlog';
COMMENT ON FUNCTION uncache.discard_backlog() IS
'forgets what is committed and not delivered yet, for a Redis that was flushed anyway; takes effect at once, also if the transaction rolls back. Returns the number of transactions. For superusers';

REVOKE ALL ON FUNCTION
	uncache.invalidate_keys(text[]),
	uncache.invalidate_pattern(text),
	uncache.transaction_keys(),
	uncache.discard_backlog()
FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Views
-- ---------------------------------------------------------------------------

-- ---------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------
GRANT USAGE ON SCHEMA uncache TO PUBLIC;
