/*
 * backlog.c
 *	  Reading what is committed and not yet delivered, for the views.
 *
 * The outbox is read page by page with SnapshotSelf: rows are judged as of now.
 * That has three reasons.  An old snapshot (REPEATABLE READ) would show rows of
 * long ago.  A snapshot that is not MVCC takes no predicate locks, so that a
 * SERIALIZABLE transaction that looks never makes a writer fail.  And it works
 * on a standby.
 *
 * The reader releases a table's lock as soon as the table is read: a transaction that
 * looked and went idle must not keep the worker from truncating the table, which needs an
 * AccessExclusiveLock.  While the lock is held the table cannot shrink.
 *
 * The worker alone knows which rows are delivered, and says so in shared memory
 * (delivery_map.h).  Without a worker, after a crash or on a standby every row of
 * the outbox counts as undelivered, just as a new worker would see it.  A row
 * of the side table is undelivered for as long as it exists.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/subtransaction.h"
#include "outbox/backlog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "outbox/outbox_damage.h"
#include "outbox/delivery_map.h"
#include "base/invalidation.h"
#include "outbox/outbox_tables.h"

/* Most blocks of a table that backlog_sum() reads. */
#define SAMPLE_BLOCKS	8192

/*
 * SOME_BLOCKS: what backlog_sum_quickly() reads of a table, in well under a millisecond.
 * For backlog_visit_some(), which visits each row that it reads: a table of up to about
 * 100,000 small transactions is read as a whole, of a larger one some 25,000 transactions.
 */
#define WHOLE_BLOCKS	1024
#define SOME_BLOCKS		256

/* A table being read. */
typedef struct Reading
{
	Relation	rel;
	int			table;			/* index of the outbox table */
	BlockNumber nblocks;
	BlockNumber nread;			/* of these, evenly spread, are read */
	bool		warn;			/* of blocks that can't be read */
	bool		in_worker;		/* which knows itself what is delivered */
	DeliveryMapView *delivered; /* NULL: nothing is known to be delivered */
	BufferAccessStrategy strategy;
} Reading;

typedef void (*TupleVisit) (Reading *reading, HeapTuple tuple, void *arg);

/* Find the committed rows of a page, on which the caller holds a pin only. */
static int
find_rows(Reading *reading, Buffer buffer, OffsetNumber *found)
{
	Page		page = BufferGetPage(buffer);
	HeapTupleData tuple;
	OffsetNumber last;
	int			n = 0;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber i = FirstOffsetNumber; i <= last; i++)
	{
		ItemId		lp = PageGetItemId(page, i);

		if (!ItemIdIsNormal(lp))
			continue;
		tuple.t_tableOid = RelationGetRelid(reading->rel);
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
		tuple.t_len = ItemIdGetLength(lp);
		ItemPointerSet(&tuple.t_self, BufferGetBlockNumber(buffer), i);
		if (HeapTupleSatisfiesVisibility(&tuple, SnapshotSelf, buffer))
			found[n++] = i;
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return n;
}

static bool
is_delivered(Reading *reading, ItemPointer tid)
{
	if (reading->table == OUTBOX_SIDE)
		return false;
	if (reading->in_worker)
		return delivery_map_get(reading->table, tid) == ROW_DELIVERED;
	return reading->delivered != NULL &&
		delivery_map_view_has(reading->delivered, reading->table, tid);
}

typedef struct BlockReading
{
	Reading    *reading;
	BlockNumber block;
	TupleVisit	visit;
	void	   *arg;
} BlockReading;

/*
 * Visit a page's undelivered rows.  The pin keeps them in their place, so the
 * visitor may take its time.
 */
static void
read_block(void *arg)
{
	BlockReading *one = arg;
	Reading    *reading = one->reading;
	OffsetNumber found[MaxHeapTuplesPerPage];
	Buffer		buffer = ReadBufferExtended(reading->rel, MAIN_FORKNUM, one->block,
											RBM_NORMAL, reading->strategy);
	int			n = find_rows(reading, buffer, found);

	Assert(one->block < reading->nblocks);
	for (int i = 0; i < n; i++)
	{
		Page		page = BufferGetPage(buffer);
		ItemId		lp = PageGetItemId(page, found[i]);
		HeapTupleData tuple;

		tuple.t_tableOid = RelationGetRelid(reading->rel);
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
		tuple.t_len = ItemIdGetLength(lp);
		ItemPointerSet(&tuple.t_self, one->block, found[i]);
		outbox_check_tuple(&tuple);
		if (!is_delivered(reading, &tuple.t_self))
			one->visit(reading, &tuple, one->arg);
	}
	ReleaseBuffer(buffer);
}

/*
 * A damaged block must not keep a user from seeing the rest.  In a parallel query there can
 * be no subtransaction, so there the ERROR ends the query.
 */
static void
read_block_if_sound(Reading *reading, BlockNumber block, TupleVisit visit, void *arg)
{
	BlockReading one = {reading, block, visit, arg};
	ErrorData  *error = NULL;

	if (IsInParallelMode())
		read_block(&one);
	else
		error = subtransaction_run(read_block, &one);
	if (error != NULL && !outbox_damage_is_meant(error))
		ReThrowError(error);
	if (error != NULL && reading->warn)
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("block %u of table \"%s\" of the outbox cannot be read, and is not counted",
						block, RelationGetRelationName(reading->rel)),
				 errdetail("%s", error->message)));
}

/* Read nread blocks of the table. */
static void
read_table(Reading *reading, TupleVisit visit, void *arg)
{
	Assert(reading->nread <= reading->nblocks);
	for (BlockNumber i = 0; i < reading->nread; i++)
	{
		CHECK_FOR_INTERRUPTS();
		/* Evenly spread; the same as i where all blocks are read. */
		read_block_if_sound(reading, (uint64) i * reading->nblocks / reading->nread, visit, arg);
	}
}

/* To truncate a table takes less.  A session that holds it for longer may do so for hours. */
#define LOCK_MS			200

/* Without queueing: a view must answer also while a lock keeps the outbox from moving. */
static bool
lock_in_time(Oid table)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), LOCK_MS);

	while (!ConditionalLockRelationOid(table, AccessShareLock))
	{
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
		{
			ereport(WARNING,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("table %s of the outbox is locked by another session, and not counted",
							get_rel_name(table)),
					 errhint("See pg_locks, and pg_prepared_xacts for prepared transactions.")));
			return false;
		}
		pg_usleep(1000);
	}
	return true;
}

/* "wait": for a lock, as lock_in_time() does. */
static bool
lock_table(Oid table, bool wait)
{
	return wait ? lock_in_time(table) : ConditionalLockRelationOid(table, AccessShareLock);
}

/* Lock and open outbox table i; false where it is gone or locked. */
static bool
begin_reading(Reading *reading, int i, DeliveryMapView *delivered, bool in_worker)
{
	Oid			oid = outbox_table_oid(i);

	reading->rel = OidIsValid(oid) && lock_table(oid, !in_worker) ? try_table_open(oid, NoLock) :
		NULL;
	if (reading->rel == NULL)
		return false;
	reading->table = i;
	reading->warn = false;
	reading->in_worker = in_worker;
	reading->delivered = delivered;
	reading->nblocks = reading->nread = RelationGetNumberOfBlocks(reading->rel);
	/* As a sequential scan does, so that a large table does not empty the buffer cache. */
	reading->strategy = reading->nblocks > NBuffers / 4 ?
		GetAccessStrategy(BAS_BULKREAD) : NULL;
	return true;
}

static void
end_reading(Reading *reading)
{
	if (reading->strategy != NULL)
		FreeAccessStrategy(reading->strategy);
	table_close(reading->rel, AccessShareLock);
}

static Datum
column(Reading *reading, HeapTuple tuple, int attnum)
{
	bool		isnull;
	Datum		value = row_getattr(tuple, attnum, RelationGetDescr(reading->rel), &isnull);

	if (isnull)
		elog(ERROR, "null in column %d of \"%s\"", attnum, RelationGetRelationName(reading->rel));
	return value;
}

static DeliveryMapView *
open_delivered(void)
{
	DatabaseState *database = shmem_my_database();

	return database == NULL ? NULL : delivery_map_view_open(database);
}

/* ---------- row by row ---------- */

typedef struct Visiting
{
	BacklogVisit visit;
	void	   *arg;
} Visiting;

int64
backlog_count_keys(const char *bytes, uint32 len)
{
	return invalidation_count(bytes, len);
}

static void
visit_tuple(Reading *reading, HeapTuple tuple, void *arg)
{
	Visiting   *visiting = arg;
	bytea	   *items = (bytea *) DatumGetPointer(column(reading, tuple, OUTBOX_ITEMS));
	BacklogRow	row;
	bool		no_error = true;
	Datum		error = 0;

	Assert(reading->nread > 0);
	if (reading->table == OUTBOX_SIDE)
		error = row_getattr(tuple, OUTBOX_ERROR, RelationGetDescr(reading->rel), &no_error);
	row.xid = FullTransactionIdFromU64(DatumGetUInt64(column(reading, tuple, OUTBOX_XID)));
	row.at = DatumGetTimestampTz(column(reading, tuple, OUTBOX_AT));
	row.chunk = DatumGetInt32(column(reading, tuple, OUTBOX_CHUNK));
	row.attempts = DatumGetInt32(column(reading, tuple, OUTBOX_ATTEMPTS));
	row.table = reading->table;
	row.tid = tuple->t_self;
	row.blocks = (double) reading->nblocks / reading->nread;
	row.items = VARDATA_ANY(items);
	row.len = VARSIZE_ANY_EXHDR(items);
	row.error = no_error ? NULL : (text *) DatumGetPointer(error);
	visiting->visit(&row, visiting->arg);
}

static void
visit_all(Visiting *visiting, BlockNumber whole, BlockNumber some)
{
	DeliveryMapView *delivered = open_delivered();
	Reading		reading;

	Assert(some <= whole);
	for (int i = 0; i <= OUTBOX_SIDE; i++)
	{
		if (!begin_reading(&reading, i, delivered, false))
			continue;
		if (reading.nblocks > whole)
			reading.nread = some;
		reading.warn = true;
		read_table(&reading, visit_tuple, visiting);
		end_reading(&reading);
	}
	if (delivered != NULL)
		delivery_map_view_close(delivered);
}

void
backlog_visit(BacklogVisit visit, void *arg)
{
	Visiting	visiting = {visit, arg};

	visit_all(&visiting, MaxBlockNumber, 0);
}

void
backlog_visit_some(BacklogVisit visit, void *arg)
{
	Visiting	visiting = {visit, arg};

	visit_all(&visiting, WHOLE_BLOCKS, SOME_BLOCKS);
}

/* ---------- in sums ---------- */

typedef struct Summing
{
	uint64		rows;
	TimestampTz oldest_at;
} Summing;

static void
sum_tuple(Reading *reading, HeapTuple tuple, void *arg)
{
	Summing    *summing = arg;
	TimestampTz at = DatumGetTimestampTz(column(reading, tuple, OUTBOX_AT));

	summing->rows++;
	if (summing->oldest_at == 0 || at < summing->oldest_at)
		summing->oldest_at = at;
}

/*
 * The size of all forks.  pg_table_size() fails while the table is being dropped, which is
 * when DROP EXTENSION asks.
 */
static int64
table_bytes(Relation rel)
{
	int64		blocks = 0;

	for (ForkNumber fork = MAIN_FORKNUM; fork <= MAX_FORKNUM; fork++)
	{
		if (smgrexists(RelationGetSmgr(rel), fork))
			blocks += RelationGetNumberOfBlocksInFork(rel, fork);
	}
	return blocks * BLCKSZ;
}

static void
sum_table(Reading *reading, BlockNumber most_blocks, BacklogTotals *totals)
{
	Summing		summing = {0, totals->oldest_at};

	reading->nread = Min(reading->nblocks, most_blocks);
	read_table(reading, sum_tuple, &summing);
	if (reading->nread > 0)
		totals->rows += (double) summing.rows * reading->nblocks / reading->nread;
	totals->oldest_at = summing.oldest_at;
	totals->bytes += table_bytes(reading->rel);
}

void
backlog_sum(BacklogTotals *totals)
{
	DeliveryMapView *delivered = open_delivered();
	Reading		reading;

	memset(totals, 0, sizeof(BacklogTotals));
	for (int i = 0; i <= OUTBOX_SIDE; i++)
	{
		if (!begin_reading(&reading, i, delivered, false))
			continue;
		sum_table(&reading, SAMPLE_BLOCKS, totals);
		end_reading(&reading);
	}
	if (delivered != NULL)
		delivery_map_view_close(delivered);
}

void
backlog_sum_quickly(BacklogTotals *totals)
{
	Reading		reading;

	Assert(MyDatabaseState != NULL);
	memset(totals, 0, sizeof(BacklogTotals));
	for (int i = 0; i <= OUTBOX_SIDE; i++)
	{
		if (!begin_reading(&reading, i, NULL, true))
			continue;
		sum_table(&reading, SOME_BLOCKS, totals);
		end_reading(&reading);
	}
}

uint64
backlog_rows(void)
{
	BacklogTotals totals;

	backlog_sum(&totals);
	return (uint64) totals.rows;
}
