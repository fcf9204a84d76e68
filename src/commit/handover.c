/*
 * handover.c
 *	  Telling the worker which rows a transaction has left in the outbox.
 *
 * This runs in COMMIT while row locks are held, so the ring gets the changes of one row in
 * the order of their commits.  Nothing here may allocate, raise, or wait for anything but the
 * ring's lock.  The ring is a hint: if it is lost, the worker finds the rows in the outbox
 * when it starts or connects.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "commit/commit_int.h"
#include "shmem/shmem.h"

/*
 * Make sure that the worker looks at the ring and the marks.  It needs no signal while it is
 * awake.  While it gathers (WORKER_GATHERS) it looks soon, which is enough if not "urgent".
 */
static void
wake_worker(DatabaseState *database, bool urgent)
{
	uint32		sleep;

	pg_memory_barrier();
	sleep = pg_atomic_read_u32(&database->sleep);
	if (sleep == WORKER_SLEEPS || (urgent && sleep == WORKER_GATHERS))
		shmem_wake_worker(database);
}

/*
 * Mark the blocks that the worker has to read.  Returns false if the DatabaseState has been
 * given to another database: then the marks mean nothing.
 */
static bool
mark_dirty(DatabaseState *database, const OutboxWritten *written)
{
	for (const OutboxWritten *w = written; w; w = w->next)
	{
		pg_atomic_uint32 *dirty;

		Assert(w->table >= 0 && w->table < lengthof(database->dirty));
		dirty = database->dirty[w->table];
		for (uint32 i = 0; i < w->nblocks; i++)
		{
			uint32		bit = w->blocks[i] % DIRTY_BITS;

			pg_atomic_fetch_or_u32(&dirty[bit / 32], (uint32) 1 << (bit % 32));
		}
	}
	pg_atomic_write_u32(&database->any_dirty, 1);

	/* A worker that gives its DatabaseState up reads the marks once more afterwards. */
	pg_memory_barrier();
	return pg_atomic_read_u32(&database->dboid) == MyDatabaseId;
}

/*
 * Copy the items of a transaction that has one row into the ring.  False if it has more rows,
 * the ring has no room, or the DatabaseState was given to another database meanwhile.
 */
static bool
put_into_ring(DatabaseState *database, const OutboxWritten *written, bool wait)
{
	RingEntry	entry = {0};
	bool		ours;
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

	Assert(written->nkeys <= PG_UINT32_MAX && FullTransactionIdIsValid(written->xid));
	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	ours = pg_atomic_read_u32(&database->dboid) == MyDatabaseId;
	done = ours && ring_put(&database->ring, &entry, written->items, written->items_len);
	LWLockRelease(database->lock);

	if (!done && ours)
		pg_atomic_fetch_add_u64(&database->stats.ring_overflows, 1);
	return done;
}

/* True if the DatabaseState is this database's; the lock waits for one being given up. */
static bool
is_ours(DatabaseState *database)
{
	bool		result;

	LWLockAcquire(database->lock, LW_SHARED);
	result = pg_atomic_read_u32(&database->dboid) == MyDatabaseId;
	LWLockRelease(database->lock);
	return result;
}

/*
 * Returns false if the DatabaseState is another database's.  A worker that is not connected to
 * Redis needs no ring entry and no marks: it reads the whole outbox when it connects.
 */
static bool
tell_worker(DatabaseState *database, const OutboxWritten *written, bool wait)
{
	for (const OutboxWritten *w = written; w; w = w->next)
	{
		if (w->noted)
			pg_atomic_write_u32(&database->markers_dirty, 1);
	}
	if (pg_atomic_read_u32(&database->serving) == 0)
		return is_ours(database);
	return put_into_ring(database, written, wait) || mark_dirty(database, written);
}

bool
handover(const OutboxWritten *written, bool wait)
{
	DatabaseState *database = shmem_my_database();

	Assert(written != NULL && InterruptHoldoffCount > 0);
	if (database == NULL || !tell_worker(database, written, wait))
	{
		shmem_request_launch(MyDatabaseId, true);
		return false;
	}
	if (pg_atomic_read_u32(&database->serving) == 0)
		return false;
	if (!wait)
		wake_worker(database, false);
	return true;
}

void
handover_wake(DatabaseState *database)
{
	wake_worker(database, true);
}

void
handover_side(void)
{
	DatabaseState *database = shmem_my_database();

	if (database != NULL)
	{
		pg_atomic_write_u32(&database->side_dirty, 1);
		if (is_ours(database))
		{
			shmem_wake_worker(database);
			return;
		}
	}
	shmem_request_launch(MyDatabaseId, true);
}
