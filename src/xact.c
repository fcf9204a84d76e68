/*
 * xact.c
 *	  What happens to the pending set when its transaction ends.
 *
 *		PRE_COMMIT		the pending set becomes rows of the outbox; everything
 *						that can fail has happened when this returns
 *		COMMIT			visible to all; row locks still held.  The rows are
 *						handed to the worker: a copy into the ring, or marks on
 *						their blocks.  Nothing here allocates or raises: an ERROR
 *						would be a PANIC of the server.
 *		AFTER_LOCKS		who asked for it waits for the worker's answer.  Row
 *						locks are gone, so nobody waits behind the waiting one.
 *
 * A crash before the commit record leaves nothing; after it, the rows are in the
 * outbox and the worker finds them when it starts.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "faultpoint.h"
#include "outbox.h"
#include "pending.h"
#include "settings.h"
#include "shmem.h"
#include "strict.h"
#include "waiters.h"
#include "xact.h"

/* What the running transaction has written; NULL: nothing. */
static OutboxWritten *written = NULL;

/* Once the outbox was written, what is added must be written at once. */
static enum
{
	RUNNING,
	PAST_PRE_COMMIT,
	PAST_PRE_PREPARE,
}			phase = RUNNING;

/* Set in COMMIT only, consumed in AFTER_LOCKS. */
static bool must_wait = false;

static uint32 wait_event = 0;

/*
 * --------------------------------------------------------------------------
 * Before the commit
 * --------------------------------------------------------------------------
 */

static void
warn_once_if_not_preloaded(void)
{
	static bool warned = false;

	if (Shared_state != NULL || warned)
		return;
	warned = true;
	ereport(WARNING,
			(errmsg("keys are recorded, but nobody deletes them from Redis"),
			 errdetail("The library pg_uncache is not in shared_preload_libraries, so there is no worker."),
			 errhint("Append pg_uncache to shared_preload_libraries and restart the server; the outbox keeps the keys until then.")));
}

/*
 * Whether this commit is one that waits.  One that would like to, and does not
 * because there is no use in it, is counted.
 */
static bool
wants_to_wait(DatabaseSlot *slot)
{
	if (setting_consistency == CONSISTENCY_EVENTUAL || setting_wait_timeout == 0 ||
		MyBackendType != B_BACKEND)
		return false;

	if (setting_delivery &&
		pg_atomic_read_u32(&slot->serving) != 0 &&
		pg_atomic_read_u32(&slot->breaker) < setting_wait_timeout &&
		!pending_has_patterns() &&
		pending_keys() <= (uint64) setting_wait_max_keys)
		return true;

	pg_atomic_fetch_add_u64(&slot->stats.waits_skipped, 1);
	return false;
}

/*
 * Announce the transaction, before anybody can see it committed: a worker that
 * finds its rows in a scan, before the ring tells of them, knows whom to answer.
 */
static void
announce(bool wait)
{
	WaitSlot   *mine = shmem_my_wait_slot();
	uint32		rows = 0;

	if (mine == NULL)
		return;
	for (OutboxWritten *w = written; w; w = w->next)
		rows += w->nrows;

	waiters_announce(mine, U64FromFullTransactionId(written->xid), rows, wait && rows > 0);
}

static void
write_for_prepare(void)
{
	if (setting_consistency == CONSISTENCY_STRICT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction with uncache.consistency = strict"),
				 errhint("Use SET LOCAL uncache.consistency = read_your_writes.")));
	warn_once_if_not_preloaded();
	written = outbox_write(OUTBOX_PREPARE, written);
	pending_clear();
	FAULT_POINT("prepare-written");
}

static void
write_pending_set(void)
{
	DatabaseSlot *slot = shmem_my_slot();
	bool		strict = setting_consistency == CONSISTENCY_STRICT;
	bool		wait;

	warn_once_if_not_preloaded();
	wait = slot != NULL && wants_to_wait(slot);
	written = outbox_write(strict ? OUTBOX_COMMIT_KEEP_ITEMS : OUTBOX_COMMIT, written);
	pending_clear();
	if (strict && written != NULL)
		strict_fence(written);
	if (written != NULL)
		announce(wait);
	FAULT_POINT("outbox-written");
}

/*
 * Something was added.  Normally it waits for PRE_COMMIT; but callbacks of other
 * extensions can run after ours and write to tables with rules.
 */
static void
pending_grew(void)
{
	if (phase == PAST_PRE_COMMIT)
		write_pending_set();
	else if (phase == PAST_PRE_PREPARE)
		write_for_prepare();
}

static void
pre_commit(void)
{
	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("UncacheDelivery");
	phase = PAST_PRE_COMMIT;
	if (!pending_is_empty())
		write_pending_set();
	else
		pending_clear();
}

/*
 * --------------------------------------------------------------------------
 * After the commit: nothing below may raise or allocate
 * --------------------------------------------------------------------------
 */

/* Make sure that the worker will look; it may be awake, or about to look anyway. */
static void
wake_worker(DatabaseSlot *slot, bool urgent)
{
	uint32		sleep;

	pg_memory_barrier();
	sleep = pg_atomic_read_u32(&slot->sleep);
	if (sleep == WORKER_SLEEPS || (urgent && sleep == WORKER_GATHERS))
		shmem_wake_worker(slot);
}

/* Mark the blocks that the worker has to read. */
static void
mark_dirty(DatabaseSlot *slot)
{
	for (OutboxWritten *w = written; w; w = w->next)
	{
		pg_atomic_uint32 *dirty = slot->dirty[w->table];

		for (uint32 i = 0; i < w->nblocks; i++)
		{
			uint32		bit = w->blocks[i] % DIRTY_BITS;

			pg_atomic_fetch_or_u32(&dirty[bit / 32], (uint32) 1 << (bit % 32));
		}
	}
	pg_atomic_write_u32(&slot->any_dirty, 1);
}

/* A transaction of one row fits into the ring, if there is room. */
static bool
put_into_ring(DatabaseSlot *slot, bool wait)
{
	RingEntry	entry = {0};
	bool		done;

	if (written->next != NULL || written->nrows != 1)
		return false;

	entry.nkeys = (uint32) written->nkeys;
	entry.xid = U64FromFullTransactionId(written->xid);
	entry.committed_at = GetCurrentTimestamp();
	entry.waiter = wait ? MyProcNumber : -1;
	entry.table = written->table;
	entry.tid = written->tid;
	entry.file = written->file;

	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	/* A slot that was given to another database meanwhile is not ours. */
	done = pg_atomic_read_u32(&slot->dboid) != MyDatabaseId ||
		ring_put(&slot->ring, &entry, written->items, written->items_len);
	LWLockRelease(slot->lock);

	if (!done)
		pg_atomic_fetch_add_u64(&slot->stats.ring_overflows, 1);
	return done;
}

/*
 * Tell the worker.  Returns whether there is one that will answer.  A worker that
 * is not connected reads the whole outbox when it is, so it need not be told.
 */
static bool
hand_over(bool wait)
{
	DatabaseSlot *slot = shmem_my_slot();

	if (slot == NULL)
	{
		shmem_request_launch(MyDatabaseId);
		return false;
	}
	for (OutboxWritten *w = written; w; w = w->next)
	{
		if (w->noted)
			pg_atomic_write_u32(&slot->note_dirty, 1);
	}
	if (pg_atomic_read_u32(&slot->serving) == 0)
		return false;

	if (!put_into_ring(slot, wait))
		mark_dirty(slot);
	wake_worker(slot, wait);
	return true;
}

static void
committed(void)
{
	WaitSlot   *mine = shmem_my_wait_slot();
	bool		wait;

	phase = RUNNING;
	strict_forget();
	if (written == NULL)
		return;

	FAULT_POINT("commit-visible");
	if (mine != NULL)
	{
		wait = waiters_state(mine) != WAIT_NONE;
		must_wait = hand_over(wait) && wait;
		pg_write_barrier();
		pg_atomic_write_u32(&mine->handing_over, 0);
		if (!must_wait)
			(void) waiters_leave(mine);
	}
	FAULT_POINT("handed-over");
	written = NULL;
}

/*
 * The worker is told of a prepared transaction already now: where COMMIT PREPARED
 * tells nobody, as in logical replication, it looks for its end by itself.
 */
static void
prepared(void)
{
	DatabaseSlot *slot = shmem_my_slot();

	phase = RUNNING;
	if (written != NULL && slot != NULL)
	{
		pg_atomic_write_u32(&slot->side_dirty, 1);
		shmem_wake_worker(slot);
	}
	written = NULL;
}

static void
aborted(void)
{
	WaitSlot   *mine = shmem_my_wait_slot();

	phase = RUNNING;
	strict_release();
	if (written == NULL)
		return;
	if (mine != NULL)
	{
		(void) waiters_leave(mine);
		pg_atomic_write_u32(&mine->handing_over, 0);
	}
	written = NULL;
}

/*
 * --------------------------------------------------------------------------
 * The wait
 * --------------------------------------------------------------------------
 */

typedef enum WaitOutcome
{
	OUTCOME_DELIVERED,
	OUTCOME_TIMED_OUT,
	OUTCOME_GIVEN_UP,			/* the worker says that it won't be soon */
	OUTCOME_LET_GO,				/* likewise, and it knew that before */
	OUTCOME_CANCELED,
	OUTCOME_TERMINATED,
} WaitOutcome;

/*
 * Interrupts are held at this place, but barriers must be taken part in: others
 * wait for everybody, DROP DATABASE for one.
 */
static void
absorb_barrier(void)
{
	MemoryContext context = CurrentMemoryContext;
	uint32		holdoffs = InterruptHoldoffCount;
	uint32		cancel_holdoffs = QueryCancelHoldoffCount;

	if (!ProcSignalBarrierPending)
		return;
	PG_TRY();
	{
		ProcessProcSignalBarrier();
	}
	PG_CATCH();
	{
		/* It stays pending, and is absorbed at the next usual place. */
		MemoryContextSwitchTo(context);
		FlushErrorState();
		/* An error sets them to 0, for those who unwind to the main loop. */
		InterruptHoldoffCount = holdoffs;
		QueryCancelHoldoffCount = cancel_holdoffs;
	}
	PG_END_TRY();
}

/* Milliseconds, by a clock that nobody sets. */
static long
time_since(instr_time begin)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, begin);
	return (long) INSTR_TIME_GET_MILLISEC(now);
}

static WaitOutcome
wait_for_answer(WaitSlot *mine)
{
	instr_time	begin;

	INSTR_TIME_SET_CURRENT(begin);
	for (;;)
	{
		WaitState	state;
		long		left;
		int			events;

		ResetLatch(MyLatch);
		state = waiters_state(mine);
		if (state == WAIT_ANSWERED)
			return OUTCOME_DELIVERED;
		if (state == WAIT_GIVEN_UP)
			return OUTCOME_GIVEN_UP;
		if (state == WAIT_NONE)
			return OUTCOME_LET_GO;
		if (ProcDiePending)
			return OUTCOME_TERMINATED;
		if (QueryCancelPending)
			return OUTCOME_CANCELED;
		absorb_barrier();

		left = setting_wait_timeout - time_since(begin);
		if (left <= 0)
			return OUTCOME_TIMED_OUT;
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH,
						   left, wait_event);
		if (events & WL_POSTMASTER_DEATH)
			return OUTCOME_TERMINATED;
	}
}

/*
 * Until Redis answers again nobody shall wait in vain.  The worker closes the
 * breaker when an answer comes back in half the time that was too short, or when
 * it knows which of several nodes is to blame.
 */
static void
open_breaker(DatabaseSlot *slot)
{
	uint32		breaker = pg_atomic_read_u32(&slot->breaker);

	/* Who is ready to wait for longer than that still does. */
	while (breaker < setting_wait_timeout &&
		   !pg_atomic_compare_exchange_u32(&slot->breaker, &breaker, setting_wait_timeout))
		 /* try again */ ;
	pg_atomic_fetch_add_u64(&slot->stats.wait_timeouts, 1);
	/* It may have to find out which node is late. */
	shmem_wake_worker(slot);
}

#define COMMITTED_DETAIL \
	errdetail("The transaction has committed. Its keys will be deleted as soon as Redis can be reached.")

/*
 * A wait in vain is news to its client; the server log hears of Redis from the
 * worker, and not from each of a thousand sessions.
 */
static void
report_outcome(WaitOutcome outcome)
{
	switch (outcome)
	{
		case OUTCOME_DELIVERED:
		case OUTCOME_LET_GO:
			break;
		case OUTCOME_TIMED_OUT:
			ereport(WARNING_CLIENT_ONLY,
					(errmsg("Redis has not confirmed the deletion of keys within %d ms",
							setting_wait_timeout),
					 COMMITTED_DETAIL));
			break;
		case OUTCOME_GIVEN_UP:
			ereport(WARNING_CLIENT_ONLY,
					(errmsg("Redis has not confirmed the deletion of keys"),
					 COMMITTED_DETAIL));
			break;
		case OUTCOME_CANCELED:
			QueryCancelPending = false;
			ereport(WARNING,
					(errmsg("canceling the wait for Redis due to user request"),
					 COMMITTED_DETAIL));
			break;
		case OUTCOME_TERMINATED:
			/* The process ends at the next usual place; it can't say more than this. */
			ereport(WARNING,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("canceling the wait for Redis and terminating connection due to administrator command"),
					 COMMITTED_DETAIL));
			break;
	}
}

static void
wait_for_delivery(void)
{
	WaitSlot   *mine = shmem_my_wait_slot();
	DatabaseSlot *slot = shmem_my_slot();
	WaitOutcome outcome;

	FAULT_POINT("waiting");
	outcome = wait_for_answer(mine);

	/* An answer that came this moment is as good as one that came in time. */
	if (waiters_leave(mine) == WAIT_ANSWERED &&
		outcome != OUTCOME_CANCELED && outcome != OUTCOME_TERMINATED)
		outcome = OUTCOME_DELIVERED;

	if (slot != NULL)
	{
		pg_atomic_fetch_add_u64(outcome == OUTCOME_LET_GO ? &slot->stats.waits_skipped :
								&slot->stats.waits, 1);
		if (outcome == OUTCOME_TIMED_OUT)
			open_breaker(slot);
	}
	report_outcome(outcome);
}

/*
 * --------------------------------------------------------------------------
 * Callbacks
 * --------------------------------------------------------------------------
 */

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pre_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			phase = PAST_PRE_PREPARE;
			if (!pending_is_empty())
				write_for_prepare();
			else
				pending_clear();
			break;
		case XACT_EVENT_COMMIT:
			committed();
			pending_forget();
			break;
		case XACT_EVENT_ABORT:
			aborted();
			pending_forget();
			break;
		case XACT_EVENT_PREPARE:
			prepared();
			pending_forget();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;				/* parallel workers write nothing */
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid,
				 SubTransactionId parent, void *arg)
{
	switch (event)
	{
		case SUBXACT_EVENT_COMMIT_SUB:
			pending_subcommit(GetCurrentTransactionNestLevel());
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			pending_subabort(GetCurrentTransactionNestLevel());
			break;
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;
	}
}

/*
 * This callback also runs for portals, for COMMIT inside DO a second time, and
 * for PREPARE TRANSACTION as if it were a commit: only the end of the top
 * transaction's own resource owner, behind a COMMIT event, counts.
 */
static void
release_callback(ResourceReleasePhase release_phase, bool is_commit, bool is_top_level, void *arg)
{
	if (!must_wait || release_phase != RESOURCE_RELEASE_AFTER_LOCKS ||
		!is_commit || !is_top_level ||
		CurrentResourceOwner != TopTransactionResourceOwner)
		return;

	must_wait = false;
	wait_for_delivery();
}

void
xact_init(void)
{
	pending_grown_hook = pending_grew;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	RegisterResourceReleaseCallback(release_callback, NULL);
}
