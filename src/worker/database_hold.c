/*
 * database_hold.c
 *	  Keeping the worker out of a database for the rest of a transaction.
 *
 * DROP DATABASE and its like refuse a database to which a process is connected, after
 * having looked for five seconds.  So the session asks the worker to end first, and the
 * launcher starts no other while the DatabaseState counts a hold.
 *
 * The session takes the database's own lock before it looks for the DatabaseState.  From
 * then on no process can connect to the database, so a worker that the launcher starts just
 * now either has its worker slot already, or waits for that lock.
 *
 * A hold belongs to a transaction.  Commit, ERROR and FATAL all pass through the
 * transaction callback, and after a crash shared memory is made anew, so no hold
 * outlives its session.  It is released at commit rather than at the end of the
 * command, since a worker looks up its database by name, and would miss one whose
 * new name is not committed.  Holds of a rolled-back savepoint stay until the
 * transaction ends; a prepared transaction gives them up.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "shmem/shmem.h"
#include "worker/worker_int.h"

/* How often the session looks whether the worker that it asked to end is gone. */
#define POLL_MS			5

/*
 * A worker that looks at its requests ends within milliseconds.  A worker in the middle of
 * a long scan notices only a signal.
 */
#define INSIST_AFTER_MS	1000
#define GIVE_UP_AFTER_MS 5000

/*
 * Numbers of the DatabaseStates that this transaction holds, -1 where a database had none;
 * in TopTransactionContext.
 */
static List *held = NIL;

/*
 * The list gets room for the hold before the hold counts, so that nothing can fail in
 * between.  Returns NULL where the database is not served.
 */
static DatabaseState *
take_hold(Oid dboid)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	DatabaseState *database;

	held = lappend_int(held, -1);
	MemoryContextSwitchTo(old);

	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	database = shmem_find_database(dboid);
	if (database != NULL)
	{
		if (database->holds++ == 0)
			pg_atomic_write_u32(&database->left_behind, LEFT_UNKNOWN);
		llast_int(held) = database - UncacheShmem->databases;
		pg_atomic_write_u32(&database->restart_requested, 1);
	}
	LWLockRelease(UncacheShmem->lock);
	return database;
}

/*
 * A worker clears its process id in shared memory before it leaves the array of processes,
 * which is where the commands look; so this looks there, too.
 */
static void
wait_until_gone(DatabaseState *database)
{
	TimestampTz began = clock_now();
	pid_t		pid = shmem_worker_pid(database);
	bool		insisted = false;
	TimestampTz now = began;
	uint32		wait_event = WaitEventExtensionNew("UncacheWorkerEnd");

	while (pid != 0 && BackendPidGetProc(pid) != NULL &&
		   !TimestampDifferenceExceeds(began, now, GIVE_UP_AFTER_MS))
	{
		if (!insisted && TimestampDifferenceExceeds(began, now, INSIST_AFTER_MS))
		{
			insisted = true;
			if (kill(pid, SIGTERM) != 0)
				break;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 POLL_MS, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		now = clock_now();
	}
}

LeftBehind
database_hold(Oid dboid, LOCKMODE mode)
{
	DatabaseState *database;

	LockSharedObject(DatabaseRelationId, dboid, 0, mode);
	database = take_hold(dboid);
	if (database == NULL)
		return LEFT_UNKNOWN;
	shmem_wake_worker(database);
	wait_until_gone(database);
	return pg_atomic_read_u32(&database->left_behind);
}

/* In COMMIT nothing may fail: no allocation, no heavyweight lock. */
static void
release_all(void)
{
	ListCell   *lc;

	if (held == NIL)
		return;
	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	foreach(lc, held)
	{
		if (lfirst_int(lc) < 0)
			continue;
		Assert(shmem_database(lfirst_int(lc))->holds > 0);
		shmem_database(lfirst_int(lc))->holds--;
	}
	LWLockRelease(UncacheShmem->lock);
	held = NIL;
	shmem_wake_launcher();
}

static void
on_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			release_all();
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

void
database_hold_init(void)
{
	RegisterXactCallback(on_xact_end, NULL);
}
