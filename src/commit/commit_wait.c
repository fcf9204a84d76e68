/*
 * commit_wait.c
 *	  The wait of a COMMIT for the answer of Redis.
 *
 * It takes place when the transaction is over for everybody else: its changes are
 * visible and its locks are gone, so nobody waits behind who waits here.  The
 * transaction cannot fail any more, so whatever ends the wait is a WARNING at the
 * most.  Interrupts are held; a request to cancel or to terminate is looked for by
 * hand, and statement_timeout does not count.
 *
 * The process unlinks the files of relations that the transaction has dropped only after
 * this wait, and a crash before that leaves them on the disk for ever.  So a transaction with
 * such files does not wait.
 */
#include "postgres.h"

#include "catalog/storage.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/fault_point.h"
#include "commit/commit_int.h"
#include "pending/pending_set.h"
#include "settings/settings.h"
#include "shmem/wait_slots.h"

static uint32 wait_event = 0;

/*
 * --------------------------------------------------------------------------
 * Before the commit
 * --------------------------------------------------------------------------
 */

void
commit_wait_prepare(void)
{
	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("UncacheDelivery");
}

/*
 * Whether the commit unlinks files: DROP, and whatever gives a relation a new file.  Those
 * of temporary tables do not count, since the next start of the server removes them.
 */
static bool
unlinks_files(void)
{
	RelFileLocator *files;
	int			nfiles = smgrGetPendingDeletes(true, &files);

	if (nfiles > 0)
		pfree(files);
	return nfiles > 0;
}

bool
commit_wait_wanted(DatabaseState *database)
{
	if (setting_consistency == CONSISTENCY_EVENTUAL || setting_wait_timeout == 0 ||
		MyBackendType != B_BACKEND)
		return false;

	if (setting_delivery &&
		pg_atomic_read_u32(&database->serving) != 0 &&
		pg_atomic_read_u32(&database->breaker) < setting_wait_timeout &&
		pending_set_is_awaited() &&
		pending_set_keys() <= (uint64) setting_wait_max_keys &&
		!unlinks_files())
		return true;

	pg_atomic_fetch_add_u64(&database->stats.waits_skipped, 1);
	return false;
}

/*
 * --------------------------------------------------------------------------
 * After it: nothing below may raise or allocate
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
 * Do what may raise, and let no ERROR out, which would be a PANIC of the server here.
 * Nor are those heard who would add their CONTEXT: what they say can be a statement
 * that the encoding of the client has no characters for.
 */
static void
do_guarded(void (*function) (const void *arg), const void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback *callbacks = error_context_stack;
	uint32		holdoffs = InterruptHoldoffCount;
	uint32		cancel_holdoffs = QueryCancelHoldoffCount;

	error_context_stack = NULL;
	PG_TRY();
	{
		function(arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		/* An error sets them to 0, for those who unwind to the main loop. */
		InterruptHoldoffCount = holdoffs;
		QueryCancelHoldoffCount = cancel_holdoffs;
	}
	PG_END_TRY();
	error_context_stack = callbacks;
}

static void
process_barrier(const void *arg)
{
	ProcessProcSignalBarrier();
}

/*
 * Interrupts are held at this place, but barriers must be taken part in: others
 * wait for everybody, DROP DATABASE for one.  One that fails stays pending, and is
 * absorbed at the next usual place.
 */
static void
absorb_barrier(void)
{
	if (ProcSignalBarrierPending)
		do_guarded(process_barrier, NULL);
}

static WaitOutcome
wait_for_answer(WaitSlot *mine)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), setting_wait_timeout);

	for (;;)
	{
		WaitState	state;
		long		left;
		int			events;

		ResetLatch(MyLatch);
		state = wait_slots_state(mine);
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

		left = TimestampDifferenceMilliseconds(clock_now(), deadline);
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
open_breaker(DatabaseState *database)
{
	uint32		breaker = pg_atomic_read_u32(&database->breaker);

	/* Who is ready to wait for longer than that still does. */
	while (breaker < setting_wait_timeout &&
		   !pg_atomic_compare_exchange_u32(&database->breaker, &breaker, setting_wait_timeout))
		 /* try again */ ;
	pg_atomic_fetch_add_u64(&database->stats.wait_timeouts, 1);
	/* It may have to find out which node is late. */
	shmem_wake_worker(database);
}

#define COMMITTED_DETAIL \
	errdetail("The transaction has committed. The outbox keeps its keys until Redis has deleted them.")

/*
 * A wait in vain is news to its client; the server log hears of Redis from the
 * worker, and not from each of a thousand sessions.
 */
static void
report_outcome(const void *arg)
{
	switch (*(const WaitOutcome *) arg)
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
			ereport(WARNING,
					(get_timeout_indicator(STATEMENT_TIMEOUT, false) ?
					 errmsg("canceling the wait for Redis due to statement timeout") :
					 errmsg("canceling the wait for Redis due to user request"),
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

/*
 * A COMMIT that is a statement of its own is all that there was to cancel.  In a procedure
 * (a portal is running) the statement goes on after the commit: the request stays, and
 * cancels it at the next usual place.
 */
static void
take_cancel(void)
{
	if (ActivePortal != NULL)
		return;
	QueryCancelPending = false;
	(void) get_timeout_indicator(STATEMENT_TIMEOUT, true);
}

void
commit_wait(void)
{
	WaitSlot   *mine = shmem_my_wait_slot();
	DatabaseState *database = shmem_my_database();
	WaitOutcome outcome;

	if (database != NULL)
		handover_wake(database);
	FAULT_POINT("waiting");
	outcome = wait_for_answer(mine);

	/* An answer that came this moment is as good as one that came in time. */
	if (wait_slots_leave(mine) == WAIT_ANSWERED &&
		outcome != OUTCOME_CANCELED && outcome != OUTCOME_TERMINATED)
		outcome = OUTCOME_DELIVERED;

	if (database != NULL)
	{
		pg_atomic_fetch_add_u64(outcome == OUTCOME_LET_GO ? &database->stats.waits_skipped :
								&database->stats.waits, 1);
		if (outcome == OUTCOME_TIMED_OUT)
			open_breaker(database);
	}
	do_guarded(report_outcome, &outcome);
	if (outcome == OUTCOME_CANCELED)
		take_cancel();
}
