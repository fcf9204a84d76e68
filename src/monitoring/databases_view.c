/*
 * databases_view.c
 *	  The functions behind uncache.stat_databases and uncache.stat_latency, for a monitor.
 *
 * They read shared memory alone, so that one connection sees each database that is served.
 * What a session of another database cannot know, the backlog and the problems of rules, is
 * as the worker of that database last saw it (worker_survey.c).  Where the library is not
 * preloaded, and on a standby, no database is served, and there are no rows.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/log_text.h"
#include "base/sql_row.h"
#include "base/version.h"
#include "monitoring/view_columns.h"
#include "shmem/counters.h"
#include "shmem/shmem.h"

SQL_FUNCTION(uncache_stat_databases_get);
SQL_FUNCTION(uncache_stat_latency_get);

/* Columns of stat_databases_get() and stat_latency_get(). */
#define DATABASES_COLUMNS	45
#define LATENCY_COLUMNS		3

static void
put_row(ReturnSetInfo *result, ViewRow *row, int ncolumns)
{
	Assert(row->n == ncolumns);
	sql_row_put(result, row->n, row->values, row->nulls);
}

/* Returns false where the database is gone. */
static bool
put_database(ViewRow *row, Oid dboid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	Name		name;

	if (!HeapTupleIsValid(tuple))
		return false;
	name = palloc(sizeof(NameData));
	*name = ((Form_pg_database) GETSTRUCT(tuple))->datname;
	ReleaseSysCache(tuple);
	view_row_put(row, ObjectIdGetDatum(dboid));
	view_row_put(row, NameGetDatum(name));
	return true;
}

static void
put_survey(ViewRow *row, const Survey *survey)
{
	view_row_time(row, survey->backlog_at);
	if (survey->backlog_at == 0)
	{
		view_row_null(row);
		view_row_null(row);
	}
	else
	{
		view_row_put(row, Int64GetDatum(survey->rows));
		view_row_put(row, Int64GetDatum(survey->bytes));
	}
	view_row_time(row, survey->oldest_at);
	if (survey->rules_at == 0)
		view_row_null(row);
	else
		view_row_put(row, Int32GetDatum(survey->rules_with_problems));
}

/* Text of another database may be in another encoding: what is not valid here becomes "?". */
static void
make_valid(char *text, Size size)
{
	char	   *copy = pstrdup(text);

	log_text_copy(text, size, copy);
	pfree(copy);
}

static void
show_database(ReturnSetInfo *result, DatabaseState *state)
{
	Oid			dboid = pg_atomic_read_u32(&state->dboid);
	DatabaseCounters *stats = &state->stats;
	ViewWorker	worker;
	ViewRow		row = {.n = 0};

	if (!OidIsValid(dboid) || !view_columns_copy(&worker, state, dboid) ||
		!put_database(&row, dboid))
		return;
	make_valid(worker.endpoint, sizeof(worker.endpoint));
	make_valid(worker.last_error, sizeof(worker.last_error));
	if (worker.state == WORKER_NONE && worker.last_error[0] == '\0')
		strlcpy(worker.last_error,
				"the worker has ended or has not started yet; the server log may say why",
				sizeof(worker.last_error));
	view_columns_worker(&row, &worker);
	view_row_count(&row, &stats->worker_starts);
	view_columns_delivery(&row, stats, &worker, dboid);
	put_survey(&row, &worker.survey);
	view_columns_latency(&row, stats);
	view_row_latency(&row, (double) pg_atomic_read_u64(&stats->latency_sum));
	view_columns_fence(&row, state, worker.survey.fence_wanted);
	view_row_text(&row, worker.last_error);
	view_row_time(&row, worker.last_error_at);
	view_row_time(&row, (TimestampTz) pg_atomic_read_u64(&stats->reset_at));
	view_row_text(&row, UNCACHE_VERSION);
	put_row(result, &row, DATABASES_COLUMNS);
}

/*
 * uncache.stat_databases_get() returns setof record: the rows of uncache.stat_databases, but
 * with the time at which the oldest undelivered row was written instead of its age.
 */
Datum
uncache_stat_databases_get(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; UncacheShmem != NULL && i < UncacheShmem->ndatabases; i++)
		show_database((ReturnSetInfo *) fcinfo->resultinfo, shmem_database(i));
	return (Datum) 0;
}

static void
show_latencies(ReturnSetInfo *result, DatabaseState *state)
{
	uint64		count[LATENCY_EDGES];
	Oid			dboid = pg_atomic_read_u32(&state->dboid);

	if (!OidIsValid(dboid))
		return;
	counters_latency_edges(&state->stats, count);
	for (int i = 0; i < LATENCY_EDGES; i++)
	{
		ViewRow		row = {.n = 0};
		uint64		edge_us = UINT64CONST(1) << (LATENCY_FIRST_EDGE + i);

		view_row_put(&row, ObjectIdGetDatum(dboid));
		view_row_put(&row, Float8GetDatum(i == LATENCY_EDGES - 1 ? get_float8_infinity() :
										  (double) edge_us / 1000.0));
		view_row_put(&row, Int64GetDatum((int64) count[i]));
		put_row(result, &row, LATENCY_COLUMNS);
	}
}

/*
 * uncache.stat_latency_get() returns setof record (datid oid, le_ms double precision, count
 * bigint): cumulative buckets of each database that is served.
 */
Datum
uncache_stat_latency_get(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; UncacheShmem != NULL && i < UncacheShmem->ndatabases; i++)
		show_latencies((ReturnSetInfo *) fcinfo->resultinfo, shmem_database(i));
	return (Datum) 0;
}
