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

#include <math.h>

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
#include "utils/tuplestore.h"

#include "base/version.h"
#include "outbox/backlog.h"
#include "settings/settings.h"
#include "shmem/counters.h"
#include "shmem/shmem.h"
#include "shmem/wait_slots.h"

SQL_FUNCTION(uncache_stat_get);
SQL_FUNCTION(uncache_stat_rules_get);
SQL_FUNCTION(uncache_stat_reset);
SQL_FUNCTION(uncache_version);

/* Columns of stat_get() and stat_rules_get(). */
#define STAT_COLUMNS	34
#define RULE_COLUMNS	4

/* ---------- uncache.stat ---------- */

/* A row of uncache.stat that is being put together, column after column. */
typedef struct Row
{
	Datum		values[STAT_COLUMNS];
	bool		nulls[STAT_COLUMNS];
	int			n;
} Row;

/* A copy of the fields of DatabaseState that its lock protects. */
typedef struct Worker
{
	WorkerState state;
	int			pid;			/* 0: none */
	char		endpoint[sizeof(((DatabaseState *) 0)->endpoint)];
	uint32		ring_used;
	uint32		ring_size;
	char		last_error[sizeof(((DatabaseState *) 0)->last_error)];
	TimestampTz last_error_at;	/* 0: there was no error */
} Worker;

static void
put(Row *row, Datum value)
{
	Assert(row->n < STAT_COLUMNS);
	row->nulls[row->n] = false;
	row->values[row->n++] = value;
}

static void
put_null(Row *row)
{
	Assert(row->n < STAT_COLUMNS);
	row->values[row->n] = (Datum) 0;
	row->nulls[row->n++] = true;
}

static void
put_text(Row *row, const char *text)
{
	if (text == NULL || text[0] == '\0')
		put_null(row);
	else
		put(row, CStringGetTextDatum(text));
}

static void
put_time(Row *row, TimestampTz at)
{
	if (at == 0)
		put_null(row);
	else
		put(row, TimestampTzGetDatum(at));
}

static void
put_count(Row *row, pg_atomic_uint64 *counter)
{
	put(row, Int64GetDatum((int64) pg_atomic_read_u64(counter)));
}

/* Takes microseconds, shows milliseconds; below 0 means unknown, and shows NULL. */
static void
put_latency(Row *row, double us)
{
	if (us < 0)
		put_null(row);
	else
		put(row, Float8GetDatum(rint(us) / 1000.0));
}

static const char *
state_name(WorkerState state)
{
	switch (state)
	{
		case WORKER_NONE:
			return "no worker";
		case WORKER_CONNECTING:
			return "connecting";
		case WORKER_CONNECTED:
			return "connected";
		case WORKER_DOWN:
			return "down";
		case WORKER_PAUSED:
			return "paused";
	}
	elog(ERROR, "unexpected state of a worker: %d", (int) state);
}

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

/* If the launcher has given the state to another database meanwhile, there is no worker. */
static void
copy_worker(DatabaseState *database, Worker *worker)
{
	memset(worker, 0, sizeof(Worker));
	worker->state = WORKER_NONE;
	if (database != NULL)
	{
		LWLockAcquire(database->lock, LW_SHARED);
		if (pg_atomic_read_u32(&database->dboid) == MyDatabaseId)
		{
			worker->state = pg_atomic_read_u32(&database->state);
			worker->pid = database->worker_pid;
			worker->ring_used = ring_used(&database->ring);
			worker->ring_size = database->ring.size;
			worker->last_error_at = database->last_error_at;
			strlcpy(worker->endpoint, database->endpoint, sizeof(worker->endpoint));
			strlcpy(worker->last_error, database->last_error, sizeof(worker->last_error));
		}
		LWLockRelease(database->lock);
	}
	if (worker->state == WORKER_NONE && worker->last_error[0] == '\0')
		strlcpy(worker->last_error, no_worker_reason(database), sizeof(worker->last_error));
}

static void
put_worker(Row *row, Worker *worker)
{
	put_text(row, state_name(worker->state));
	if (worker->pid == 0)
		put_null(row);
	else
		put(row, Int32GetDatum(worker->pid));
	put_text(row, worker->endpoint);
}

static void
put_delivery(Row *row, DatabaseCounters *stats, Worker *worker)
{
	put_count(row, &stats->transactions);
	put_count(row, &stats->keys);
	put_count(row, &stats->keys_existed);
	put_count(row, &stats->batches);
	put_count(row, &stats->retries);
	put_count(row, &stats->reconnects);
	put_count(row, &stats->waits);
	put_count(row, &stats->wait_timeouts);
	put_count(row, &stats->waits_skipped);
	put(row, Int32GetDatum(UncacheShmem == NULL ? 0 : wait_slots_count(MyDatabaseId)));
	/* A worker that died during a pass has not set its level back to 0. */
	put(row, Int32GetDatum(worker->pid == 0 ? 0 :
						   (int32) pg_atomic_read_u32(&stats->patterns_running)));
	put_count(row, &stats->pattern_passes);
	put(row, Int64GetDatum(worker->ring_used));
	put(row, Int64GetDatum(worker->ring_size));
	put_count(row, &stats->ring_overflows);
	put_count(row, &stats->keys_refused);
	put_count(row, &stats->keys_refused_now);
}

static void
put_outbox(Row *row)
{
	BacklogTotals totals;

	backlog_sum(&totals);
	put(row, Int64GetDatum((int64) totals.rows));
	put(row, Int64GetDatum(totals.bytes));
	put_time(row, totals.oldest_at);
}

static void
put_latencies(Row *row, DatabaseCounters *stats)
{
	double		p50 = counters_percentile(stats, 0.5);

	put_latency(row, p50);
	put_latency(row, counters_percentile(stats, 0.99));
	put_latency(row, p50 < 0 ? -1 : (double) pg_atomic_read_u64(&stats->latency_max));
}

static const char *
fence_name(FenceState state)
{
	switch (state)
	{
		case FENCE_UNKNOWN:
		case FENCE_LOADING:
		case FENCE_SETTING:
			return "starting";
		case FENCE_NONE:
			return "off";
		case FENCE_IMPOSSIBLE:
			return "not possible";
		case FENCE_SUPERSEDED:
			return "superseded";
		case FENCE_NO_EPOCH:
			return setting_fence_ttl > 0 ? "starting" : "off";
		case FENCE_ON:
			return "on";
	}
	return NULL;
}

static void
put_fence(Row *row, DatabaseState *database)
{
	if (database == NULL || pg_atomic_read_u32(&database->serving) == 0)
	{
		for (int i = 0; i < 4; i++)
			put_null(row);
		return;
	}
	put_text(row, fence_name(pg_atomic_read_u32(&database->fence.state)));
	put_count(row, &database->fence.stored);
	put_count(row, &database->fence.refused);
	put_count(row, &database->fence.beats);
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
	Worker		worker;
	Row			row = {.n = 0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != STAT_COLUMNS)
		elog(ERROR, "stat_get() must return %d columns", STAT_COLUMNS);

	if (database == NULL)
		counters_init(&none);
	copy_worker(database, &worker);

	put_worker(&row, &worker);
	put_delivery(&row, stats, &worker);
	put_outbox(&row);
	put_latencies(&row, stats);
	put_fence(&row, database);
	put_text(&row, worker.last_error);
	put_time(&row, worker.last_error_at);
	put_time(&row, database == NULL ? 0 : (TimestampTz) pg_atomic_read_u64(&stats->reset_at));
	put_text(&row, UNCACHE_VERSION);
	Assert(row.n == STAT_COLUMNS);

	desc = BlessTupleDesc(desc);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, row.values, row.nulls)));
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
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
