/*
 * commit_wait.c
 *	  The wait of a COMMIT for the answer of Redis.
 *
 * The session waits after the end of its transaction: the changes are visible and the locks
 * released, so no other session waits for it.  The transaction cannot fail any more, so
 * nothing that ends the wait is more than a WARNING.  Interrupts are held, so this file checks
 * by itself for a request to cancel or to terminate, and statement_timeout does not fire.
 *
 * PostgreSQL unlinks the files of relations that the transaction has dropped only after this
 * wait, and a crash during the wait would leave them on the disk for ever.  So a transaction
 * with such files does not wait.
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
 * True if the commit unlinks files: after DROP, or a command that gives a relation a new file.
 * Files of temporary tables do not count, since the next start of the server removes them.
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
 * After the commit: nothing below may raise or allocate
 * --------------------------------------------------------------------------
 */

typedef enum WaitOutcome
{
	OUTCOME_DELIVERED,
	OUTCOME_TIMED_OUT,
	OUTCOME_GIVEN_UP,			/* the worker has given up: there is no answer soon */
	OUTCOME_LET_GO,				/* the same, and the worker knew it before the wait */
	OUTCOME_CANCELED,
	OUTCOME_TERMINATED,
} WaitOutcome;

/*
 * Call a function that may raise, and catch its ERROR, which would be a PANIC of the server
 * here.  Error-context callbacks are off meanwhile: their text may not convert to the client's
 * encoding, and that would be another ERROR.
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
		/* The ERROR has set both to 0, because it usually ends in the main loop. */
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
 * Absorb a barrier of other backends although interrupts are held here: they wait for all
 * processes, for example in DROP DATABASE.  If it fails it stays pending, and the next
 * CHECK_FOR_INTERRUPTS() absorbs it.
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

	Assert(InterruptHoldoffCount > 0 && wait_event != 0);
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
 * Open the breaker: until Redis answers again, only a session with a longer wait_timeout than
 * this one's waits.  The worker closes it when an answer takes less than half of the time that
 * was too short, or when it knows which one of several nodes is slow.
 */
static void
open_breaker(DatabaseState *database)
{
	uint32		breaker = pg_atomic_read_u32(&database->breaker);

	/* It holds the longest wait_timeout that has expired. */
	while (breaker < setting_wait_timeout &&
		   !pg_atomic_compare_exchange_u32(&database->breaker, &breaker, setting_wait_timeout))
		 /* try again */ ;
	pg_atomic_fetch_add_u64(&database->stats.wait_timeouts, 1);
	/* The worker may have to find out which node is slow. */
	shmem_wake_worker(database);
}

#define COMMITTED_DETAIL \
	errdetail("The transaction has committed. " \
			  "The outbox keeps its keys until Redis has deleted them.")

/*
 * Tell the client if its wait has ended without an answer.  Outcomes that Redis causes do not
 * go to the server log: the worker logs its trouble once, and a thousand sessions would each
 * repeat it.
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
			/* The next CHECK_FOR_INTERRUPTS() ends the process. */
			ereport(WARNING,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("canceling the wait for Redis and terminating connection due to "
							"administrator command"),
					 COMMITTED_DETAIL));
			break;
	}
}

/*
 * A request to cancel has ended the wait.  If COMMIT is a statement of its own, the request is
 * done.  In a procedure (a portal is running) the statement continues after the commit, so
 * the request stays pending, and the next CHECK_FOR_INTERRUPTS() cancels the statement.
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

	Assert(mine != NULL);
	if (database != NULL)
		handover_wake(database);
	FAULT_POINT("waiting");
	outcome = wait_for_answer(mine);

	/* An answer that has arrived since counts, unless the session was interrupted. */
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
