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
 *		AFTER_LOCKS		who asked for it wakes the worker and waits for its answer.
 *						Row locks are gone, so nobody waits behind the waiting one.
 *
 * A crash before the commit record leaves nothing; after it, the rows are in the
 * outbox and the worker finds them when it starts.
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
			(errmsg("keys are recorded, but nobody deletes them from Redis"),
			 errdetail("The library pg_uncache is not in shared_preload_libraries, so there is no worker."),
			 errhint("Append pg_uncache to shared_preload_libraries and restart the server; the outbox keeps the keys until then.")));
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

	wait_slots_announce(mine, U64FromFullTransactionId(written->xid), rows, wait && rows > 0);
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
	pending_set_clear();
	FAULT_POINT("prepare-written");
}

static void
write_pending_set(void)
{
	DatabaseState *database = shmem_my_database();
	bool		strict = setting_consistency == CONSISTENCY_STRICT;
	bool		wait;

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
 * Something was added.  Normally it waits for PRE_COMMIT; but callbacks of other
 * extensions can run after ours and write to tables with rules.
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
 * The worker is told of a prepared transaction already now: where COMMIT PREPARED
 * tells nobody, as in logical replication, it looks for its end by itself.
 */
static void
prepared(void)
{
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
	commit_wait();
}

void
xact_init(void)
{
	pending_grown_hook = pending_grew;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	RegisterResourceReleaseCallback(release_callback, NULL);
}
