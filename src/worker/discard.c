/*
 * discard.c
 *	  The worker's side of uncache.discard_backlog().
 *
 * To discard everything, the worker marks the rows of the rotating tables as delivered and
 * truncates these tables without waiting for the redeliver window (outbox_rotate.c), which
 * needs no disk space and no Redis.  To discard one transaction it deletes the rows, since
 * other rows may keep their table from being truncated for long.  Rows of the side table
 * are deleted either way.  A delivery that is under way ends as delivered, whatever Redis
 * answers; its row stays until its table is truncated.
 *
 * After a crash before a table is truncated its rows are backlog again.
 */
#include "postgres.h"

#include "delivery/delivery.h"
#include "outbox/outbox_rotate.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"
#include "worker/worker_int.h"

static uint64
discard_all(void)
{
	uint64		transactions;

	Assert(!IsTransactionState());
	outbox_rotate_retire();
	transactions = outbox_scan_discard(0) + outbox_side_discard(0);
	outbox_rotate_discard();
	ereport(LOG,
			(errmsg_plural("backlog of " UINT64_FORMAT " transaction discarded on request",
						   "backlog of " UINT64_FORMAT " transactions discarded on request",
						   (unsigned long) transactions, transactions)));
	return transactions;
}

/*
 * Nothing is known any more of the place of a row that is deleted.  Delivered from the ring, it
 * would be noted as delivered there, and so would a new row that gets the place.
 */
static void
discard_in_ring(uint64 xid)
{
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	ring_discard(&MyDatabaseState->ring, xid);
	LWLockRelease(MyDatabaseState->lock);
}

static uint64
discard_transaction(uint64 xid)
{
	uint64		rows = outbox_scan_discard(xid) + outbox_side_discard(xid);

	if (rows == 0)
		return 0;
	discard_in_ring(xid);
	ereport(LOG,
			(errmsg("backlog of transaction " UINT64_FORMAT " discarded on request", xid)));
	return 1;
}

void
discard_run(DatabaseState *database)
{
	uint64		drawn = pg_atomic_read_u64(&database->discard_drawn);
	uint64		xid;

	if (drawn == pg_atomic_read_u64(&database->discard_done))
		return;
	if (pg_atomic_read_u32(&database->discard_callers) == 0)
	{
		pg_atomic_write_u64(&database->discard_done, drawn);
		return;
	}
	xid = pg_atomic_read_u64(&database->discard_xid);
	delivery_release_waiting();
	delivery_discard(xid);
	pg_atomic_fetch_add_u64(&database->discarded,
							xid == 0 ? discard_all() : discard_transaction(xid));
	pg_atomic_write_u64(&database->discard_done, drawn);
	ConditionVariableBroadcast(&database->barrier_cv);
}
