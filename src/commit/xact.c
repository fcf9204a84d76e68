/*
 * xact.c
 *	  What happens to the pending set when its transaction ends.
 *
 *		PRE_COMMIT		The pending set becomes rows of the outbox.  Nothing can fail any
 *						more when this returns.
 *		COMMIT			The transaction is visible to all, and its row locks are still held.
 *						The rows are handed to the worker: a copy in the ring, or marks on
 *						their blocks.  Nothing here allocates or raises: an ERROR would be
 *						a PANIC of the server.
 *		AFTER_LOCKS		A session that shall wait wakes the worker and waits for its answer.
 *						Its row locks are released, so no other session waits for it.
 *
 * A crash before the commit record leaves nothing; after it the rows are in the outbox, and
 * the worker finds them when it starts.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/resowner.h"

#include "base/fault_point.h"
#include "commit/commit_int.h"
#include "pending/pending_set.h"
#include "rules/size_limit.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "shmem/wait_slots.h"

/* The rows that the running transaction has written to the outbox, or NULL. */
static OutboxWritten *written = NULL;

/* After RUNNING the outbox is written, so an addition must be written at once. */
static enum
{
	RUNNING,
	PAST_PRE_COMMIT,
	PAST_PRE_PREPARE,
}			phase = RUNNING;

/* Set in COMMIT only, consumed in AFTER_LOCKS. */
static bool must_wait = false;

/*
 * --------------------------------------------------------------------------
 * Before the commit
 * --------------------------------------------------------------------------
 */

static void
warn_once_if_not_preloaded(void)
{
	static bool warned = false;

	if (UncacheShmem != NULL || warned)
		return;
	warned = true;
	ereport(WARNING,
			(errmsg("keys are recorded, but no process deletes them from Redis"),
			 errdetail("The library pg_uncache is not in shared_preload_libraries, so there is no "
					   "worker."),
			 errhint("Append pg_uncache to shared_preload_libraries and restart the server; the "
					 "outbox keeps the keys until then.")));
}

/*
 * Announce the transaction before other sessions can see it committed.  A worker may find
 * its rows in a scan of the outbox before they are in the ring; the announcement tells it
 * which session to answer.
 */
static void
announce(bool wait)
{
	WaitSlot   *mine = shmem_my_wait_slot();
	uint32		rows = 0;

	if (mine == NULL)
		return;
	Assert(written != NULL && phase == PAST_PRE_COMMIT);
	for (OutboxWritten *w = written; w; w = w->next)
		rows += w->nrows;
	wait_slots_announce(mine, U64FromFullTransactionId(written->xid), rows, wait && rows > 0);
}

static void
write_for_prepare(void)
{
	Assert(phase == PAST_PRE_PREPARE);
	if (setting_consistency == CONSISTENCY_STRICT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction with uncache.consistency = strict"),
				 errhint("Use SET LOCAL uncache.consistency = read_your_writes.")));
	warn_once_if_not_preloaded();
	written = outbox_write(OUTBOX_PREPARE, written);
	pending_set_clear();
	FAULT_POINT("prepare-written");
}

static void
write_pending_set(void)
{
	DatabaseState *database = shmem_my_database();
	bool		strict = setting_consistency == CONSISTENCY_STRICT;
	bool		wait;

	Assert(phase == PAST_PRE_COMMIT);
	warn_once_if_not_preloaded();
	wait = database != NULL && commit_wait_wanted(database);
	if (strict)
		commit_strict_check_size(written);
	written = outbox_write(strict ? OUTBOX_COMMIT_KEEP_ITEMS : OUTBOX_COMMIT, written);
	pending_set_clear();
	if (strict && written != NULL)
		commit_strict_fence(written);
	if (written != NULL)
		announce(wait);
	FAULT_POINT("outbox-written");
}

/*
 * pending_grown_hook: the pending set has grown.  Normally PRE_COMMIT writes it, but the
 * callback of another extension can run after this one and write to a table with rules.
 */
static void
pending_grew(Oid rule)
{
	size_limit_check_transaction(rule, pending_set_bytes());
	if (phase == PAST_PRE_COMMIT)
		write_pending_set();
	else if (phase == PAST_PRE_PREPARE)
		write_for_prepare();
}

static void
pre_commit(void)
{
	Assert(phase == RUNNING && !must_wait);
	commit_wait_prepare();
	phase = PAST_PRE_COMMIT;
	if (!pending_set_is_empty())
		write_pending_set();
	else
		pending_set_clear();
}

/*
 * --------------------------------------------------------------------------
 * After the commit: nothing below may raise or allocate
 * --------------------------------------------------------------------------
 */

static void
committed(void)
{
	WaitSlot   *mine = shmem_my_wait_slot();
	bool		wait;

	Assert(phase == PAST_PRE_COMMIT && pending_set_is_empty());
	phase = RUNNING;
	commit_strict_forget();
	if (written == NULL)
		return;

	FAULT_POINT("commit-visible");
	if (mine != NULL)
	{
		wait = wait_slots_state(mine) != WAIT_NONE;
		must_wait = handover(written, wait) && wait;
		pg_write_barrier();
		pg_atomic_write_u32(&mine->handing_over, 0);
		if (!must_wait)
			(void) wait_slots_leave(mine);
	}
	FAULT_POINT("handed-over");
	written = NULL;
}

/*
 * Tell the worker of a prepared transaction already now: from then on it polls for the end of
 * the transaction, since a COMMIT PREPARED of logical replication does not tell the worker.
 */
static void
prepared(void)
{
	Assert(phase == PAST_PRE_PREPARE && pending_set_is_empty());
	phase = RUNNING;
	if (written != NULL)
		handover_side();
	written = NULL;
}

static void
aborted(void)
{
	WaitSlot   *mine = shmem_my_wait_slot();

	phase = RUNNING;
	commit_strict_release();
	if (written == NULL)
		return;
	if (mine != NULL)
	{
		(void) wait_slots_leave(mine);
		pg_atomic_write_u32(&mine->handing_over, 0);
	}
	written = NULL;
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
			if (!pending_set_is_empty())
				write_for_prepare();
			else
				pending_set_clear();
			break;
		case XACT_EVENT_COMMIT:
			committed();
			pending_set_forget();
			break;
		case XACT_EVENT_ABORT:
			aborted();
			pending_set_forget();
			break;
		case XACT_EVENT_PREPARE:
			prepared();
			pending_set_forget();
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
			pending_set_subcommit(GetCurrentTransactionNestLevel());
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			pending_set_subabort(GetCurrentTransactionNestLevel());
			break;
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;
	}
}

/*
 * PostgreSQL calls this for portals, too, a second time for COMMIT inside DO, and for PREPARE
 * TRANSACTION as if it were a commit.  Only the call for the top transaction's own resource
 * owner, after a COMMIT event, is the right one.
 */
static void
release_callback(ResourceReleasePhase release_phase, bool is_commit, bool is_top_level, void *arg)
{
	if (!must_wait || release_phase != RESOURCE_RELEASE_AFTER_LOCKS ||
		!is_commit || !is_top_level ||
		CurrentResourceOwner != TopTransactionResourceOwner)
		return;

	Assert(phase == RUNNING && written == NULL);
	must_wait = false;
	commit_wait();
}

void
xact_init(void)
{
	Assert(pending_grown_hook == NULL);
	pending_grown_hook = pending_grew;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	RegisterResourceReleaseCallback(release_callback, NULL);
}
