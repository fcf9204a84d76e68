/*
 * worker_yield.c
 *	  A worker with nothing to do makes room for a database that is written.
 *
 * Where more databases have the extension than uncache.max_database_workers allows, the
 * launcher asks the worker that has been idle for longest to give up its worker slot.  The
 * worker does so only when all that is committed is delivered, and no session waits for
 * it; otherwise it ignores the request, and the launcher asks again.
 *
 * A commit may come in that moment.  Either it has left something in the DatabaseState
 * before the worker gives that up, and the worker sees it; or the committer finds that the
 * DatabaseState is not its database's any more, and asks the launcher for another worker
 * (handover.c).  Both sides do it under the lock of the DatabaseState, but for the marks on
 * blocks: a committer writes these first and reads dboid second, and the worker writes
 * dboid first and reads the marks second, so one of the two sees the other.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"

#include "base/clock.h"
#include "delivery/delivery.h"
#include "delivery/resend.h"
#include "fence/fence.h"
#include "outbox/outbox_damage.h"
#include "outbox/outbox_overflow.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"
#include "worker/worker_int.h"

void
worker_yield_init(void)
{
	pg_atomic_write_u64(&MyDatabaseState->idle_since, 0);
}

/* Whether all that this worker knows of is delivered. */
static bool
has_delivered_all(void)
{
	return pg_atomic_read_u32(&MyDatabaseState->state) == WORKER_CONNECTED &&
		delivery_oldest_number() == delivery_next_number() && !resend_has_waiting() &&
		outbox_scan_is_done() && outbox_side_is_done() && !outbox_side_has_prepared() &&
		!outbox_damage_is_unanswered() &&
		outbox_overflow_is_done() &&
		!fence_doubt_has_any() && !second_delete_has_any() && !fence_beat_holds_transaction();
}

/* Note since when the worker is idle; writes shared memory only when that changes. */
static void
note_idleness(TimestampTz now)
{
	static uint64 taken_before = 0;
	static bool idle = false;
	bool		was_idle = idle;

	idle = has_delivered_all() && taken_before == delivery_next_number();
	taken_before = delivery_next_number();
	if (idle != was_idle)
		pg_atomic_write_u64(&MyDatabaseState->idle_since, idle ? now : 0);
}

/* Whether no session has left anything to be done; the caller holds the state's lock. */
static bool
is_untouched(void)
{
	Assert(LWLockHeldByMeInMode(MyDatabaseState->lock, LW_EXCLUSIVE));
	return ring_is_empty(&MyDatabaseState->ring) &&
		pg_atomic_read_u32(&MyDatabaseState->any_dirty) == 0 &&
		pg_atomic_read_u32(&MyDatabaseState->side_dirty) == 0 &&
		pg_atomic_read_u32(&MyDatabaseState->markers_dirty) == 0 &&
		pg_atomic_read_u32(&MyDatabaseState->discard_callers) == 0 &&
		pg_atomic_read_u32(&MyDatabaseState->reclaim_callers) == 0 &&
		pg_atomic_read_u32(&MyDatabaseState->question_callers) == 0 &&
		!wait_barrier_is_asked_for();
}

/* Returns false where a session has left something to be done. */
static bool
give_up_slot(void)
{
	bool		untouched;

	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	untouched = is_untouched();
	if (untouched)
		pg_atomic_write_u32(&MyDatabaseState->dboid, InvalidOid);
	LWLockRelease(MyDatabaseState->lock);
	/* The rest of the state, which no session uses any more. */
	if (untouched)
		shmem_assign_database(MyDatabaseState, InvalidOid);
	LWLockRelease(UncacheShmem->lock);
	if (untouched)
		counters_forget_database(MyDatabaseId);
	return untouched;
}

void
worker_yield_run(TimestampTz now)
{
	TimestampTz since;

	note_idleness(now);
	if (pg_atomic_read_u32(&MyDatabaseState->yield_requested) == 0)
		return;
	since = (TimestampTz) pg_atomic_read_u64(&MyDatabaseState->idle_since);
	if (since == 0 || !TimestampDifferenceExceeds(since, now, YIELD_IDLE_MS) || !give_up_slot())
	{
		pg_atomic_write_u32(&MyDatabaseState->yield_requested, 0);
		return;
	}

	pg_memory_barrier();
	if (pg_atomic_read_u32(&MyDatabaseState->any_dirty) != 0)
		shmem_request_launch(MyDatabaseId, true);
	shmem_wake_launcher();
	proc_exit(1);
}
