/*
 * views.c
 *	  The functions behind the views uncache.stat and uncache.stat_rules.
 *
 * Reading the views changes nothing and blocks no other session: shared memory is copied
 * under its lock, and backlog.c reads the outbox.  All of it works in a read-only
 * transaction, on a standby, and where the library is not preloaded.  In the last two
 * there is no worker; last_error says so instead of an ERROR, since a user looks at this
 * view to learn why nothing is delivered.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/sql_row.h"
#include "base/version.h"
#include "monitoring/view_columns.h"
#include "outbox/backlog.h"
#include "settings/settings.h"
#include "shmem/counters.h"
#include "shmem/shmem.h"

SQL_FUNCTION(uncache_stat_get);
SQL_FUNCTION(uncache_stat_rules_get);
SQL_FUNCTION(uncache_stat_reset);
SQL_FUNCTION(uncache_version);

/* Columns of stat_get() and stat_rules_get(). */
#define STAT_COLUMNS	39
#define RULE_COLUMNS	4

/* ---------- uncache.stat ---------- */

/*
 * The launcher starts no worker for a template database: while one is connected, CREATE
 * DATABASE cannot copy it.
 */
static bool
database_is_template(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/* Why this database has no worker, for last_error of uncache.stat. */
static const char *
no_worker_reason(DatabaseState *database)
{
	if (UncacheShmem == NULL)
		return "library pg_uncache is not in shared_preload_libraries";
	if (RecoveryInProgress())
		return "this server is a standby; its worker starts at promotion";
	if (database_is_template())
		return "this is a template database, which has no worker; the outbox keeps what is "
			"committed";
	if (settings_database_rank(get_database_name(MyDatabaseId)) < 0)
		return "uncache.databases does not name this database; the outbox keeps what is committed";
	if (database != NULL)
		return "the worker has ended or has not started yet; the server log may say why";

	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (pg_atomic_read_u32(&shmem_database(i)->dboid) == InvalidOid)
			return "the launcher has not started a worker for this database yet; if that lasts, "
				"the server log says why";
	}
	return psprintf("uncache.max_database_workers (%d) is reached", UncacheShmem->ndatabases);
}

/* Where there is no worker, and no error of one that has ended, say why there is none. */
static void
copy_worker(DatabaseState *database, ViewWorker *worker)
{
	view_columns_copy(worker, database, MyDatabaseId);
	if (worker->state == WORKER_NONE && worker->last_error[0] == '\0')
		strlcpy(worker->last_error, no_worker_reason(database), sizeof(worker->last_error));
}

static void
put_outbox(ViewRow *row)
{
	BacklogTotals totals;

	backlog_sum(&totals);
	view_row_put(row, Int64GetDatum((int64) totals.rows));
	view_row_put(row, Int64GetDatum(totals.bytes));
	view_row_time(row, totals.oldest_at);
}

/*
 * uncache.stat_get() returns record: the one row of uncache.stat, but with the time at
 * which the oldest undelivered row was written instead of its age.
 */
Datum
uncache_stat_get(PG_FUNCTION_ARGS)
{
	DatabaseState *database = shmem_my_database();
	DatabaseCounters none;
	DatabaseCounters *stats = database != NULL ? &database->stats : &none;
	ViewWorker	worker;
	ViewRow		row = {.n = 0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "stat_get() must return a row");

	if (database == NULL)
		counters_init(&none);
	copy_worker(database, &worker);

	view_columns_worker(&row, &worker);
	view_columns_delivery(&row, stats, &worker, MyDatabaseId);
	put_outbox(&row);
	view_columns_latency(&row, stats);
	view_columns_fence(&row, database, setting_fence_ttl > 0);
	view_row_text(&row, worker.last_error);
	view_row_time(&row, worker.last_error_at);
	view_row_time(&row, database == NULL ? 0 : (TimestampTz) pg_atomic_read_u64(&stats->reset_at));
	view_row_text(&row, UNCACHE_VERSION);
	Assert(row.n == STAT_COLUMNS);

	desc = BlessTupleDesc(desc);
	PG_RETURN_DATUM(HeapTupleGetDatum(sql_row_form(desc, row.n, row.values, row.nulls)));
}

/* uncache.version() returns text: of the loaded library. */
Datum
uncache_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(UNCACHE_VERSION));
}

/* ---------- uncache.stat_reset() ---------- */

/* Clear last_error, unless the worker is not connected: then the trouble still lasts. */
static void
forget_error(DatabaseState *database)
{
	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&database->state) == WORKER_CONNECTED)
	{
		database->last_error[0] = '\0';
		database->last_error_at = 0;
	}
	LWLockRelease(database->lock);
}

/* uncache.stat_reset() returns void: start this database's counters at zero. */
Datum
uncache_stat_reset(PG_FUNCTION_ARGS)
{
	DatabaseState *database = shmem_my_database();

	if (database != NULL)
	{
		counters_reset(&database->stats, MyDatabaseId);
		forget_error(database);
	}
	PG_RETURN_VOID();
}

/* ---------- uncache.stat_rules ---------- */

/*
 * uncache.stat_rules_get() returns setof record (rule oid, keys_sent bigint,
 * keys_existed bigint, last_sent timestamptz): one row for each rule that has sent keys.
 */
Datum
uncache_stat_rules_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RuleCounts	counts;
	int			position = 0;

	InitMaterializedSRF(fcinfo, 0);
	while (counters_next_rule(&position, &counts))
	{
		Datum		values[RULE_COLUMNS];
		bool		nulls[RULE_COLUMNS] = {false};

		values[0] = ObjectIdGetDatum(counts.rule);
		values[1] = Int64GetDatum((int64) counts.keys);
		values[2] = Int64GetDatum((int64) counts.existed);
		values[3] = TimestampTzGetDatum(counts.last_at);
		nulls[3] = counts.last_at == 0;
		sql_row_put(result, lengthof(values), values, nulls);
	}
	return (Datum) 0;
}
