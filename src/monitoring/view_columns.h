/*
 * view_columns.h
 *	  Columns that uncache.stat and uncache.stat_databases have in common.
 */
#ifndef UNCACHE_VIEW_COLUMNS_H
#define UNCACHE_VIEW_COLUMNS_H

#include "postgres.h"

#include "monitoring/view_row.h"
#include "shmem/shmem.h"

/* A copy of the fields of DatabaseState that its lock protects. */
typedef struct ViewWorker
{
	WorkerState state;
	int			pid;			/* 0: none */
	char		endpoint[sizeof(((DatabaseState *) 0)->endpoint)];
	uint32		ring_used;
	uint32		ring_size;
	char		last_error[sizeof(((DatabaseState *) 0)->last_error)];
	TimestampTz last_error_at;	/* 0: there was no error */
	Survey		survey;
} ViewWorker;

/*
 * Copy what is known of a database.  Returns false, with a state of WORKER_NONE and all else
 * empty, if "state" is NULL or serves another database by now.
 */
extern bool view_columns_copy(ViewWorker *worker, DatabaseState *state, Oid dboid);

/* state, worker_pid, redis */
extern void view_columns_worker(ViewRow *row, const ViewWorker *worker);

/* transactions_delivered to stream_entries_lost */
extern void view_columns_delivery(ViewRow *row, DatabaseCounters *stats, const ViewWorker *worker,
								  Oid dboid);

/* latency_p50_ms, latency_p99_ms, latency_max_ms */
extern void view_columns_latency(ViewRow *row, DatabaseCounters *stats);

/* fence to beats; NULL: no database.  "wanted": uncache.fence_ttl is above 0 there. */
extern void view_columns_fence(ViewRow *row, DatabaseState *database, bool wanted);

#endif							/* UNCACHE_VIEW_COLUMNS_H */
