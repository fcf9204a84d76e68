/*
 * wait_functions.c
 *	  What SQL can ask of the worker: wait(), discard_backlog(), reclaim_fence().
 *
 * Each is a ticket (wait_ticket.c) that the worker answers.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/heap.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "outbox/backlog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/fault_point.h"
#include "outbox/outbox_tables.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "worker/worker_int.h"

SQL_FUNCTION(uncache_wait);
SQL_FUNCTION(uncache_discard_backlog);
SQL_FUNCTION(uncache_discard_transaction);
SQL_FUNCTION(uncache_reclaim_fence);
SQL_FUNCTION(uncache_require_preload);

/*
 * --------------------------------------------------------------------------
 * wait()
 * --------------------------------------------------------------------------
 */

/* The install script calls this first. */
Datum
uncache_require_preload(PG_FUNCTION_ARGS)
{
	shmem_require_preload(PG_NARGS() > 0 && !PG_ARGISNULL(0) ?
						  text_to_cstring(PG_GETARG_TEXT_PP(0)) : "this");
	PG_RETURN_VOID();
}

/*
 * Wait until each transaction that others can see is handed to the worker.  A committer
 * takes a few microseconds for that.
 */
static void
wait_for_handovers(void)
{
	for (int proc = 0; proc < UncacheShmem->nwaitslots; proc++)
	{
		WaitSlot   *wait = &UncacheShmem->wait_slots[proc];
		uint64		xid = pg_atomic_read_u64(&wait->xid);

		while (pg_atomic_read_u32(&wait->handing_over) != 0 &&
			   pg_atomic_read_u32(&wait->dboid) == MyDatabaseId &&
			   pg_atomic_read_u64(&wait->xid) == xid &&
			   !TransactionIdIsInProgress(XidFromFullTransactionId(FullTransactionIdFromU64(xid))))
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(100);
		}
	}
}

/* The worker answers in this time, so that a timeout of 0 can ask without waiting. */
#define ANSWER_MS		50

/* A longer timeout has no end: its deadline may be no valid timestamp. */
#define FOR_EVER_US		(100.0 * 365 * USECS_PER_DAY)

static TimestampTz
wait_deadline(const Interval *timeout)
{
	double		us = ((double) timeout->month * DAYS_PER_MONTH + timeout->day) * USECS_PER_DAY +
		timeout->time;

	if (us > FOR_EVER_US)
		return DT_NOEND;
	return clock_now() + (int64) Max(us, ANSWER_MS * 1000.0);
}

Datum
uncache_wait(PG_FUNCTION_ARGS)
{
	TimestampTz deadline;
	DatabaseState *database;
	WaitTicket	ticket;

	shmem_require_preload("uncache.wait()");
	PreventCommandDuringRecovery("uncache.wait()");
	deadline = PG_ARGISNULL(0) ? DT_NOEND : wait_deadline(PG_GETARG_INTERVAL_P(0));
	database = wait_ticket_database(deadline);
	if (database == NULL)
		PG_RETURN_BOOL(false);

	wait_for_handovers();
	PG_RETURN_BOOL(wait_ticket_draw(&ticket, database, &database->barrier_drawn,
									&database->barrier_done, NULL, NULL) &&
				   wait_ticket_await(&ticket, deadline));
}

/*
 * --------------------------------------------------------------------------
 * discard_backlog()
 * --------------------------------------------------------------------------
 */

/*
 * A prepared transaction may hold a lock on this table, so it can't be truncated: its rows
 * are deleted one by one.
 */
static void
delete_side_rows(void)
{
	Oid			oid = outbox_table_oid(OUTBOX_SIDE);
	Relation	rel = OidIsValid(oid) ? try_relation_open(oid, RowExclusiveLock) : NULL;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (rel == NULL)
		return;
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL, SO_NONE);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
		simple_heap_delete(rel, &tuple->t_self);
	table_endscan(scan);
	relation_close(rel, NoLock);
}

/* Commits hold their lock on an outbox table for much less than this. */
#define LOCK_MS			200

/*
 * Lock a table in order to empty it, without queueing: each commit would queue behind this
 * session for as long as a transaction that has looked at the table stays open.
 */
static void
lock_or_give_up(Oid table, LOCKMODE mode, TimestampTz deadline)
{
	while (!ConditionalLockRelationOid(table, mode))
	{
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not lock the outbox to discard the backlog"),
					 errdetail("A transaction that has read its tables is still open."),
					 errhint("Try again when that transaction has ended.")));
		pg_usleep(1000);
	}
}

/* The state of this database if it has a worker, which is to discard; else NULL. */
static DatabaseState *
database_with_worker(void)
{
	DatabaseState *database = shmem_my_database();

	return database == NULL || shmem_worker_pid(database) == 0 ? NULL : database;
}

/*
 * Without a worker no other process knows of the rows: empty the tables here.  Returns false,
 * and does nothing, where a worker has started: it would take new rows for those that it has
 * delivered from the same places.  A worker that starts later finds the tables locked until they
 * are empty.
 */
static bool
empty_tables(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), LOCK_MS);
	Oid			locked[OUTBOX_TABLES];

	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		locked[t] = outbox_table_oid(t);
		if (OidIsValid(locked[t]))
			lock_or_give_up(locked[t], AccessExclusiveLock, deadline);
	}
	if (database_with_worker() != NULL)
	{
		for (int t = 0; t < OUTBOX_TABLES; t++)
		{
			if (OidIsValid(locked[t]))
				UnlockRelationOid(locked[t], AccessExclusiveLock);
		}
		return false;
	}
	delete_side_rows();
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Oid			oid = outbox_table_oid(t);
		Relation	rel = OidIsValid(oid) ? try_relation_open(oid, NoLock) : NULL;

		if (rel == NULL)
			continue;
		heap_truncate_one_rel(rel);
		relation_close(rel, NoLock);
	}
	return true;
}

/* Of several rows of a transaction, the first counts. */
static void
count_transaction(const BacklogRow *row, void *arg)
{
	if (row->chunk == 0)
		(*(uint64 *) arg)++;
}

/* Rows of one transaction. */
typedef struct RowsFound
{
	FullTransactionId xid;
	List	   *tids[OUTBOX_TABLES + 1];	/* ItemPointer, by table */
	int			count;
} RowsFound;

static void
find_row(const BacklogRow *row, void *arg)
{
	RowsFound  *found = arg;
	ItemPointer tid;

	if (!FullTransactionIdEquals(row->xid, found->xid))
		return;
	tid = palloc(sizeof(ItemPointerData));
	*tid = row->tid;
	found->tids[row->table] = lappend(found->tids[row->table], tid);
	found->count++;
}

/* Without a worker: delete the rows of a transaction.  Returns how many rows there were. */
static int
delete_rows_of(FullTransactionId xid)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), LOCK_MS);
	RowsFound	found = {.xid = xid};

	for (int t = 0; t <= OUTBOX_TABLES; t++)
	{
		if (OidIsValid(outbox_table_oid(t)))
			lock_or_give_up(outbox_table_oid(t), RowExclusiveLock, deadline);
	}
	backlog_visit(find_row, &found);
	for (int t = 0; t <= OUTBOX_TABLES; t++)
	{
		Relation	rel = found.tids[t] == NIL ? NULL :
			try_relation_open(outbox_table_oid(t), NoLock);
		ListCell   *cell;

		if (rel == NULL)
			continue;
		foreach(cell, found.tids[t])
			simple_heap_delete(rel, lfirst(cell));
		relation_close(rel, NoLock);
	}
	return found.count;
}

/* The worker reads the whole outbox before it answers. */
#define DISCARD_MS		(60 * 1000)

static void
write_discard(DatabaseState *database, const void *xid)
{
	Assert(LWLockHeldByMeInMode(database->lock, LW_EXCLUSIVE));
	pg_atomic_write_u64(&database->discard_xid, *(const uint64 *) xid);
}

/*
 * A session that gives up, or is made to, must not have later transactions forgotten when
 * the worker sees the ticket: "callers" says whether one still waits.
 */
static bool
ask_to_discard(DatabaseState *database, uint64 xid)
{
	return wait_ticket_ask(database, &database->discard_callers, &database->discard_drawn,
						   &database->discard_done, write_discard, &xid,
						   TimestampTzPlusMilliseconds(clock_now(), DISCARD_MS));
}

/* Have the worker discard; returns the number of transactions. */
static int64
discard_by_worker(DatabaseState *database, uint64 xid)
{
	Oid			extension = get_extension_oid("pg_uncache", false);
	uint64		before;
	bool		done;

	/* One caller at a time.  The number 1 tells this lock from that of the extension. */
	LockDatabaseObject(ExtensionRelationId, extension, 1, ExclusiveLock);
	before = pg_atomic_read_u64(&database->discarded);
	done = ask_to_discard(database, xid);
	UnlockDatabaseObject(ExtensionRelationId, extension, 1, ExclusiveLock);
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker has not discarded the backlog in time"),
				 errhint("Try again; the server log, and last_error in uncache.stat, may say what "
						 "keeps the worker.")));
	return (int64) (pg_atomic_read_u64(&database->discarded) - before);
}

static void
begin_to_discard(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to discard the backlog")));
	PreventCommandDuringRecovery("uncache.discard_backlog()");
}

/* discard_backlog() returns bigint */
Datum
uncache_discard_backlog(PG_FUNCTION_ARGS)
{
	DatabaseState *database;

	begin_to_discard();
	while ((database = database_with_worker()) == NULL)
	{
		uint64		transactions = 0;

		CHECK_FOR_INTERRUPTS();
		backlog_visit(count_transaction, &transactions);
		FAULT_POINT("discard-counted");
		if (empty_tables())
			PG_RETURN_INT64((int64) transactions);
	}
	PG_RETURN_INT64(discard_by_worker(database, 0));
}

/* discard_backlog(xid xid8) returns bigint */
Datum
uncache_discard_transaction(PG_FUNCTION_ARGS)
{
	DatabaseState *database;
	FullTransactionId xid;

	begin_to_discard();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument 1 of uncache.discard_backlog() must not be null"),
				 errhint("Call uncache.discard_backlog() without an argument to discard all of "
						 "it.")));
	xid = PG_GETARG_FULLTRANSACTIONID(0);
	if (!FullTransactionIdIsValid(xid))
		PG_RETURN_INT64(0);
	database = database_with_worker();
	if (database != NULL)
	{
		/* What comes into the ring after the worker has looked there would not be discarded. */
		wait_for_handovers();
		PG_RETURN_INT64(discard_by_worker(database, U64FromFullTransactionId(xid)));
	}
	PG_RETURN_INT64(delete_rows_of(xid) > 0 ? 1 : 0);
}

/*
 * --------------------------------------------------------------------------
 * reclaim_fence()
 * --------------------------------------------------------------------------
 */

/* Enough for a node that is away: the worker tries it once a second, and then asks it. */
#define RECLAIM_MS		(10 * 1000)

Datum
uncache_reclaim_fence(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), RECLAIM_MS);
	DatabaseState *database;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to reclaim the fence")));
	shmem_require_preload("uncache.reclaim_fence()");
	PreventCommandDuringRecovery("uncache.reclaim_fence()");
	if (setting_fence_ttl == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("uncache.reclaim_fence() needs the fence"),
				 errhint("Set uncache.fence_ttl in postgresql.conf; five minutes are "
						 "recommended.")));
	database = wait_ticket_database(deadline);
	PG_RETURN_BOOL(database != NULL &&
				   wait_ticket_ask(database, &database->reclaim_callers, &database->reclaim_drawn,
								   &database->reclaim_done, NULL, NULL, deadline));
}
