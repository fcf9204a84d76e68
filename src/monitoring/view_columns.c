/*
 * view_columns.c
 *	  Columns that uncache.stat and uncache.stat_databases have in common.
 *
 * What a lock protects is copied under it; counters are atomics and are read one by one, so
 * that they may differ from each other by what happens meanwhile.
 */
#include "postgres.h"

#include "monitoring/view_columns.h"
#include "shmem/counters.h"
#include "shmem/wait_slots.h"

bool
view_columns_copy(ViewWorker *worker, DatabaseState *state, Oid dboid)
{
	bool		is_ours;

	memset(worker, 0, sizeof(ViewWorker));
	worker->state = WORKER_NONE;
	if (state == NULL)
		return false;
	LWLockAcquire(state->lock, LW_SHARED);
	is_ours = pg_atomic_read_u32(&state->dboid) == dboid;
	if (is_ours)
	{
		worker->state = pg_atomic_read_u32(&state->state);
		worker->pid = state->worker_pid;
		worker->ring_used = ring_used(&state->ring);
		worker->ring_size = state->ring.size;
		worker->last_error_at = state->last_error_at;
		worker->survey = state->survey;
		strlcpy(worker->endpoint, state->endpoint, sizeof(worker->endpoint));
		strlcpy(worker->last_error, state->last_error, sizeof(worker->last_error));
	}
	LWLockRelease(state->lock);
	return is_ours;
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

void
view_columns_worker(ViewRow *row, const ViewWorker *worker)
{
	view_row_text(row, state_name(worker->state));
	if (worker->pid == 0)
		view_row_null(row);
	else
		view_row_put(row, Int32GetDatum(worker->pid));
	view_row_text(row, worker->endpoint);
}

void
view_columns_delivery(ViewRow *row, DatabaseCounters *stats, const ViewWorker *worker,
					  Oid dboid)
{
	view_row_count(row, &stats->transactions);
	view_row_count(row, &stats->keys);
	view_row_count(row, &stats->keys_existed);
	view_row_count(row, &stats->batches);
	view_row_count(row, &stats->retries);
	view_row_count(row, &stats->reconnects);
	view_row_count(row, &stats->waits);
	view_row_count(row, &stats->wait_timeouts);
	view_row_count(row, &stats->waits_skipped);
	view_row_put(row, Int32GetDatum(UncacheShmem == NULL ? 0 : wait_slots_count(dboid)));
	/* A worker that died during a pass has not set its level back to 0. */
	view_row_put(row, Int32GetDatum(worker->pid == 0 ? 0 :
									(int32) pg_atomic_read_u32(&stats->patterns_running)));
	view_row_count(row, &stats->pattern_passes);
	view_row_put(row, Int64GetDatum(worker->ring_used));
	view_row_put(row, Int64GetDatum(worker->ring_size));
	view_row_count(row, &stats->ring_overflows);
	view_row_count(row, &stats->keys_refused);
	view_row_count(row, &stats->keys_refused_now);
	view_row_count(row, &stats->fills_plain);
	view_row_count(row, &stats->checked);
	view_row_count(row, &stats->found_stale);
	view_row_count(row, &stats->stream_entries);
	view_row_count(row, &stats->stream_entries_lost);
}

void
view_columns_latency(ViewRow *row, DatabaseCounters *stats)
{
	double		p50 = counters_percentile(stats, 0.5);

	view_row_latency(row, p50);
	view_row_latency(row, counters_percentile(stats, 0.99));
	view_row_latency(row, p50 < 0 ? -1 : (double) pg_atomic_read_u64(&stats->latency_max));
}

static const char *
fence_name(FenceState state, bool wanted)
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
			return wanted ? "starting" : "off";
		case FENCE_ON:
			return "on";
	}
	return NULL;
}

void
view_columns_fence(ViewRow *row, DatabaseState *database, bool wanted)
{
	if (database == NULL || pg_atomic_read_u32(&database->serving) == 0)
	{
		for (int i = 0; i < 4; i++)
			view_row_null(row);
		return;
	}
	view_row_text(row, fence_name(pg_atomic_read_u32(&database->fence.state), wanted));
	view_row_count(row, &database->fence.stored);
	view_row_count(row, &database->fence.refused);
	view_row_count(row, &database->fence.beats);
}
