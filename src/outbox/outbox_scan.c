/*
 * outbox_scan.c
 *	  The worker reads the outbox.
 *
 * Two kinds of reading:
 *
 *		all over	every block of every table, the oldest table first: when the
 *					worker starts, and when it has connected again
 *		marked		the blocks on which a committed transaction has left rows that
 *					are not in the ring, because it was full or they are many
 *
 * Either way a row is taken if it is visible and unsent.  A row that a scan does not see,
 * because its transaction had not committed yet, is reported by the committer after the
 * commit, through the ring or through marks.  So the worker takes over (and clears) the
 * marks before it takes the snapshot of the scan.
 *
 * A table that another session has locked is skipped, and tried again a second later; until
 * it was read, reading is not done.
 *
 * Reading goes in steps of a few blocks, each in a transaction of its own that is
 * over before anything is sent: the worker never holds a snapshot while it talks
 * to Redis.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/subtransaction.h"
#include "base/clock.h"
#include "outbox/outbox_damage.h"
#include "outbox/delivery_map.h"
#include "base/fault_point.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_scan.h"

/* Blocks of one step: a quarter of a megabyte. */
#define STEP_BLOCKS		32


/* Before a table that another session has locked is tried again. */
#define LOCKED_MS		1000

/* Reading all over: which tables are left, from which block; which table is the oldest. */
static bool full_left[OUTBOX_TABLES];
static BlockNumber full_block[OUTBOX_TABLES];
static int	full_oldest = 0;
static bool full_again;

/* Until when a table counts as locked; 0: it is not. */
static TimestampTz locked_until[OUTBOX_TABLES];

/* Marked blocks that were taken over from MyDatabaseState and are to be read. */
static uint32 marked[OUTBOX_TABLES][DIRTY_WORDS];
static int	nmarked = 0;

static const OutboxSink *sink;

void
outbox_scan_init(const OutboxSink *for_rows)
{
	sink = for_rows;
}

/*
 * The worker knows rows by their tid.  VACUUM FULL and the like give a table a new file, in
 * which the rows have other tids.  Then all that the worker knows is wrong, so it ends, and
 * its successor reads everything.
 */
void
outbox_scan_check_file(int table, RelFileNumber file)
{
	static RelFileNumber files[OUTBOX_TABLES + 1];	/* as first met; 0: not yet */

	Assert(table >= 0 && table <= OUTBOX_SIDE);
	if (files[table] == 0)
		files[table] = file;
	if (files[table] == file)
		return;
	ereport(LOG,
			(errmsg("a table of the outbox has a new file; what was sent from it may be sent "
					"again")));
	proc_exit(1);
}

Opening
outbox_scan_open(int table, Relation *rel)
{
	Opening		opening = outbox_open_try(outbox_table_oid(table), AccessShareLock, rel);

	Assert(table >= 0 && table <= OUTBOX_SIDE);
	Assert(IsTransactionState());
	if (opening == OPENING_DONE)
		outbox_scan_check_file(table, RelationGetFileNumber(*rel));
	if (table < OUTBOX_TABLES)
		locked_until[table] = opening == OPENING_REFUSED ?
			TimestampTzPlusMilliseconds(clock_now(), LOCKED_MS) : 0;
	return opening;
}

static bool
is_locked(int table, TimestampTz now)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	return locked_until[table] > now;
}

static void
row_from_tuple(OutboxRow *row, int table, HeapTuple tuple, TupleDesc desc)
{
	Datum		values[OUTBOX_SIDE_NCOLUMNS];
	bool		nulls[OUTBOX_SIDE_NCOLUMNS];
	struct varlena *items;

	Assert(desc->natts <= OUTBOX_SIDE_NCOLUMNS);

	outbox_check_tuple(tuple);
	heap_deform_tuple(tuple, desc, values, nulls);
	items = (struct varlena *) DatumGetPointer(values[OUTBOX_ITEMS - 1]);
	row->xid = U64FromFullTransactionId(DatumGetFullTransactionId(values[OUTBOX_XID - 1]));
	row->chunk = DatumGetInt32(values[OUTBOX_CHUNK - 1]);
	row->at = DatumGetTimestampTz(values[OUTBOX_AT - 1]);
	row->attempts = DatumGetInt32(values[OUTBOX_ATTEMPTS - 1]);
	row->table = table;
	row->tid = tuple->t_self;
	row->waiter = -1;
	row->again = false;
	row->is_resend = false;
	row->answered = false;
	row->items = VARDATA_ANY(items);
	row->len = VARSIZE_ANY_EXHDR(items);
}

/* Blocks being read. */
typedef struct Range
{
	Relation	rel;
	int			table;
	BlockNumber from;
	BlockNumber count;
	OutboxRowFunction function;
	void	   *arg;
	bool		more;			/* the function has not returned false */
} Range;

static void
read_range(void *arg)
{
	Range	   *range = arg;
	TableScanDesc scan;
	HeapTuple	tuple;

	scan = table_beginscan_strat(range->rel, GetActiveSnapshot(), 0, NULL, true, false);
	heap_setscanlimits(scan, range->from, range->count);
	while (range->more && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		OutboxRow	row;

		row_from_tuple(&row, range->table, tuple, RelationGetDescr(range->rel));
		range->more = range->function(&row, range->arg);
	}
	table_endscan(scan);
}

/* Returns why the blocks can't be read, NULL where they can. */
static ErrorData *
try_to_read(Range *range)
{
	ErrorData  *error = subtransaction_run(read_range, range);

	if (error != NULL && !outbox_damage_is_meant(error))
		ReThrowError(error);
	return error;
}

void
outbox_scan_read(Relation rel, int table, BlockNumber from, BlockNumber count,
				 ReadingFor what, OutboxRowFunction function, void *arg)
{
	Range		range = {rel, table, from, count, function, arg, true};
	BlockNumber end = from + count;

	Assert(table >= 0 && table <= OUTBOX_SIDE && end >= from);
	Assert(ActiveSnapshotSet() && CheckRelationLockedByMe(rel, AccessShareLock, true));
	if (count == 0 || (!outbox_damage_in_table(table) && try_to_read(&range) == NULL))
		return;
	/* Something is damaged: read block by block, to find which. */
	range.count = 1;
	for (range.from = from; range.from < end && range.more; range.from++)
	{
		ErrorData  *error = try_to_read(&range);

		if (error != NULL)
			outbox_damage_note_block(table, range.from, what, error->message);
	}
}

/* A row to be found by its tid. */
typedef struct RowSought
{
	Relation	rel;
	int			table;
	const ItemPointerData *tid;
	OutboxRowFunction function;
	void	   *arg;
} RowSought;

static void
read_row(void *arg)
{
	RowSought  *sought = arg;
	HeapTupleData tuple = {.t_self = *sought->tid};
	Buffer		buffer = InvalidBuffer;
	OutboxRow	row;

	Assert(ItemPointerIsValid(sought->tid) && ActiveSnapshotSet());
	if (!heap_fetch(sought->rel, GetActiveSnapshot(), &tuple, &buffer, false))
		return;
	row_from_tuple(&row, sought->table, &tuple, RelationGetDescr(sought->rel));
	sought->function(&row, sought->arg);
	ReleaseBuffer(buffer);
}

void
outbox_scan_read_row(Relation rel, int table, const ItemPointerData *tid,
					 OutboxRowFunction function, void *arg)
{
	RowSought	sought = {rel, table, tid, function, arg};
	ErrorData  *error = subtransaction_run(read_row, &sought);

	if (error != NULL && !outbox_damage_is_meant(error))
		ReThrowError(error);
	if (error != NULL)
		outbox_damage_note_block(table, ItemPointerGetBlockNumber(tid), READING_AGAIN,
								 error->message);
}

static bool
take_if_unsent(const OutboxRow *row, void *arg)
{
	bool	   *again = arg;
	RowState	state = delivery_map_get(row->table, &row->tid);
	OutboxRow	copy = *row;

	Assert(row->table < OUTBOX_TABLES);
	copy.again = *again || state == ROW_RESEND_FORGOTTEN;
	copy.answered = state == ROW_RESEND_FORGOTTEN;
	copy.is_resend = delivery_map_was_sent(state);
	if (delivery_map_is_due(state))
		sink->take(&copy);
	return true;
}

/*
 * --------------------------------------------------------------------------
 * Reading all over
 * --------------------------------------------------------------------------
 */

void
outbox_scan_start_over(bool again)
{
	full_again = again;
	/* The table after the current one is the one that was retired first. */
	full_oldest = (pg_atomic_read_u32(&MyDatabaseState->current_table) + 1) % OUTBOX_TABLES;
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		full_left[t] = true;
		full_block[t] = 0;
	}
}

/* The table to be read next, of those that are not locked; -1: none. */
static int
next_full_table(TimestampTz now)
{
	for (int i = 0; i < OUTBOX_TABLES; i++)
	{
		int			t = (full_oldest + i) % OUTBOX_TABLES;

		if (full_left[t] && !is_locked(t, now))
			return t;
	}
	return -1;
}

/* Read a step of a table; returns the number of blocks read. */
static BlockNumber
read_full_step(int table, BlockNumber most)
{
	Relation	rel;
	BlockNumber blocks = 0;

	Assert(full_left[table] && most > 0);
	switch (outbox_scan_open(table, &rel))
	{
		case OPENING_DONE:
			if (full_block[table] < RelationGetNumberOfBlocks(rel))
			{
				blocks = Min(most, RelationGetNumberOfBlocks(rel) - full_block[table]);
				outbox_scan_read(rel, table, full_block[table], blocks, READING_NEWS,
								 take_if_unsent, &full_again);
			}
			relation_close(rel, AccessShareLock);
			break;
		case OPENING_REFUSED:
			return 0;
		case OPENING_GONE:
			break;
	}
	full_block[table] += blocks;
	full_left[table] = blocks > 0;
	return blocks;
}

/*
 * --------------------------------------------------------------------------
 * Reading what is marked
 * --------------------------------------------------------------------------
 */

void
outbox_scan_collect_dirty(void)
{
	if (pg_atomic_read_u32(&MyDatabaseState->any_dirty) == 0)
		return;

	pg_atomic_write_u32(&MyDatabaseState->any_dirty, 0);
	pg_memory_barrier();
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		for (int w = 0; w < DIRTY_WORDS; w++)
		{
			uint32		bits = 0;

			if (pg_atomic_read_u32(&MyDatabaseState->dirty[t][w]) != 0)
				bits = pg_atomic_exchange_u32(&MyDatabaseState->dirty[t][w], 0);
			nmarked += pg_popcount32(bits & ~marked[t][w]);
			marked[t][w] |= bits;
		}
	}
}

/*
 * Find the next mark from here on, in tables that are not locked; returns false when
 * there is none.
 */
static bool
next_marked(int *table, uint32 *bit, TimestampTz now)
{
	Assert(*table >= 0 && *bit <= DIRTY_BITS);
	for (; *table < OUTBOX_TABLES; (*table)++, *bit = 0)
	{
		for (; !is_locked(*table, now) && *bit < DIRTY_BITS; (*bit)++)
		{
			if (marked[*table][*bit / 32] & ((uint32) 1 << (*bit % 32)))
				return true;
		}
	}
	return false;
}

static void
read_marked_step(BlockNumber most, TimestampTz now)
{
	int			table = 0;
	uint32		bit = 0;
	bool		again = false;

	while (most > 0 && next_marked(&table, &bit, now))
	{
		Relation	rel;
		Opening		opening = outbox_scan_open(table, &rel);

		if (opening == OPENING_REFUSED)
			continue;
		Assert(nmarked > 0);
		marked[table][bit / 32] &= ~((uint32) 1 << (bit % 32));
		nmarked--;
		if (opening == OPENING_GONE)
			continue;
		for (BlockNumber b = bit; b < RelationGetNumberOfBlocks(rel); b += DIRTY_BITS)
		{
			outbox_scan_read(rel, table, b, 1, READING_NEWS, take_if_unsent, &again);
			most -= Min(most, 1);
		}
		relation_close(rel, AccessShareLock);
	}
}

static void
read_step(TimestampTz now)
{
	BlockNumber left = STEP_BLOCKS;
	int			table = 0;
	uint32		bit = 0;
	bool		joined = outbox_begin_reading();

	if (next_marked(&table, &bit, now))
		read_marked_step(left, now);
	else
	{
		while (left > 0 && (table = next_full_table(now)) >= 0)
			left -= read_full_step(table, left);
	}
	outbox_end_reading(joined);
	FAULT_POINT("scan-step");
	if (!joined)
		pgstat_report_stat(false);
}

TimestampTz
outbox_scan_run(TimestampTz now)
{
	TimestampTz wake = DT_NOEND;

	if (outbox_scan_has_work() && sink->has_room())
		read_step(now);
	if (outbox_scan_is_done())
		return DT_NOEND;
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		if (is_locked(t, now))
			wake = Min(wake, locked_until[t]);
	}
	return wake;
}

bool
outbox_scan_is_done(void)
{
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		if (full_left[t])
			return false;
	}
	return nmarked == 0;
}

bool
outbox_scan_is_done_with(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	Assert(nmarked >= 0);
	if (full_left[table])
		return false;
	for (int w = 0; nmarked > 0 && w < DIRTY_WORDS; w++)
	{
		if (marked[table][w] != 0)
			return false;
	}
	return true;
}

bool
outbox_scan_has_work(void)
{
	TimestampTz now;
	int			table = 0;
	uint32		bit = 0;

	if (outbox_scan_is_done())
		return false;
	now = clock_now();
	return next_full_table(now) >= 0 || (nmarked > 0 && next_marked(&table, &bit, now));
}

static bool
look_for_undelivered(const OutboxRow *row, void *arg)
{
	bool	   *found = arg;

	Assert(row->table < OUTBOX_TABLES);
	*found = delivery_map_get(row->table, &row->tid) != ROW_DELIVERED;
	return !*found;
}

bool
outbox_scan_has_undelivered(void)
{
	bool		joined = outbox_begin_reading();
	bool		found = false;

	for (int t = 0; t < OUTBOX_TABLES && !found; t++)
	{
		Relation	rel;
		Opening		opening = outbox_scan_open(t, &rel);

		found = opening == OPENING_REFUSED;
		if (opening != OPENING_DONE)
			continue;
		outbox_scan_read(rel, t, 0, RelationGetNumberOfBlocks(rel), READING_AGAIN,
						 look_for_undelivered, &found);
		relation_close(rel, AccessShareLock);
	}
	outbox_end_reading(joined);
	return found;
}

/*
 * --------------------------------------------------------------------------
 * uncache.discard_backlog()
 * --------------------------------------------------------------------------
 */

typedef struct Discarding
{
	uint64		xid;			/* 0: all */
	uint64		transactions;
	List	   *found;			/* of one transaction: rows to be deleted */
} Discarding;

static bool
discard_row(const OutboxRow *row, void *arg)
{
	Discarding *discarding = arg;
	RowState	state = delivery_map_get(row->table, &row->tid);
	bool		is_due;

	Assert(row->table < OUTBOX_TABLES);
	if (state == ROW_DELIVERED || (discarding->xid != 0 && discarding->xid != row->xid))
		return true;
	/* A row that is under way ends as delivered, whatever Redis answers (delivery_discard()). */
	is_due = delivery_map_is_due(state);
	if (is_due)
		delivery_map_set(row->table, &row->tid, ROW_DELIVERED);
	if (discarding->xid != 0 ||
		(state != ROW_RESEND_FORGOTTEN && state != ROW_SENT_AGAIN && row->chunk == 0))
		discarding->transactions++;
	if (discarding->xid != 0 && is_due)
		discarding->found = lappend(discarding->found, memcpy(palloc(sizeof(ItemPointerData)),
															  &row->tid, sizeof(ItemPointerData)));
	return true;
}

/*
 * Other rows may keep the table from being truncated for long, and a new worker does not
 * know which rows were discarded: so they are deleted.  After a VACUUM new rows may get their
 * places, of which nothing must be known then.
 */
static void
delete_found(Relation rel, int table, List *found)
{
	ListCell   *cell;

	Assert(CheckRelationLockedByMe(rel, RowExclusiveLock, true));
	foreach(cell, found)
	{
		simple_heap_delete(rel, lfirst(cell));
		delivery_map_set(table, lfirst(cell), ROW_UNSENT);
	}
}

/* All rows of the table are known now: nothing is left to be read. */
static void
forget_reading(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	full_left[table] = false;
	for (int w = 0; w < DIRTY_WORDS; w++)
	{
		nmarked -= pg_popcount32(marked[table][w]);
		marked[table][w] = 0;
	}
	Assert(nmarked >= 0);
}

uint64
outbox_scan_discard(uint64 xid)
{
	Discarding	discarding = {.xid = xid};

	Assert(!IsTransactionState());
	/* Marks that come later are of rows that this may not see. */
	if (xid == 0)
		outbox_scan_collect_dirty();
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		outbox_begin();
		if (outbox_scan_open(t, &rel) == OPENING_DONE)
		{
			outbox_scan_read(rel, t, 0, RelationGetNumberOfBlocks(rel),
							 xid == 0 ? READING_TO_DISCARD : READING_AGAIN,
							 discard_row, &discarding);
			if (discarding.found != NIL &&
				ConditionalLockRelationOid(RelationGetRelid(rel), RowExclusiveLock))
				delete_found(rel, t, discarding.found);
			if (xid == 0)
				forget_reading(t);
			relation_close(rel, NoLock);
		}
		list_free_deep(discarding.found);
		discarding.found = NIL;
		outbox_end();
	}
	return discarding.transactions;
}
