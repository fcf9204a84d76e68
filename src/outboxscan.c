/*
 * outboxscan.c
 *	  The worker reads the outbox.
 *
 * Two kinds of reading:
 *
 *		all over	every block of every table, the oldest table first: when the
 *					worker starts, and when it has connected again
 *		marked		the blocks on which a committed transaction has left rows that
 *					are not in the ring, because it was full or they are many
 *
 * Either way a row is taken if it is visible and unsent.  What a scan does not
 * see because its transaction had not committed yet is told to the worker by
 * the committer, through the ring or through marks, after the commit.  So marks
 * are taken over (and cleared) before the snapshot that looks for them.
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
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "deliver.h"
#include "delivered.h"
#include "faultpoint.h"
#include "outbox.h"
#include "outboxscan.h"

/* Blocks of one step: a quarter of a megabyte. */
#define STEP_BLOCKS		32

static DatabaseSlot *slot;

/* Reading all over: tables_left of them are left, "table" first, from "block". */
static int	tables_left = 0;
static int	full_table;
static BlockNumber full_block;
static bool full_again;

/* Marked blocks that were taken over from the slot and are to be read. */
static uint32 marked[OUTBOX_TABLES][DIRTY_WORDS];
static int	nmarked = 0;

void
outboxscan_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
}

void
outboxscan_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
outboxscan_end(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Returns whether there was a transaction already, for outboxscan_end_reading(). */
bool
outboxscan_begin_reading(void)
{
	bool		joins = IsTransactionState();

	if (joins)
		PushActiveSnapshot(GetTransactionSnapshot());
	else
		outboxscan_begin();
	return joins;
}

void
outboxscan_end_reading(bool joined)
{
	if (joined)
		PopActiveSnapshot();
	else
		outboxscan_end();
}

/*
 * The worker knows rows by their place.  VACUUM FULL and the like give a table a
 * new file, with the rows at other places: then nothing that the worker knows is
 * worth anything, and its successor reads all.
 */
void
outboxscan_check_file(int table, RelFileNumber file)
{
	static RelFileNumber files[OUTBOX_TABLES + 1];	/* as first met; 0: not yet */

	if (files[table] == 0)
		files[table] = file;
	if (files[table] == file)
		return;
	ereport(LOG,
			(errmsg("a table of the outbox has a new file; what was sent from it may be sent again")));
	proc_exit(1);
}

Relation
outboxscan_open(int table)
{
	Oid			oid = outbox_table_oid(table);
	Relation	rel = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : NULL;

	if (rel != NULL)
		outboxscan_check_file(table, RelationGetFileNumber(rel));
	return rel;
}

static void
row_from_tuple(DeliveryRow *row, int table, HeapTuple tuple, TupleDesc desc)
{
	Datum		values[OUTBOX_NCOLUMNS];
	bool		nulls[OUTBOX_NCOLUMNS];
	struct varlena *items;

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
	row->only_lacking = false;
	row->answered = false;
	row->items = VARDATA_ANY(items);
	row->len = VARSIZE_ANY_EXHDR(items);
}

void
outboxscan_read(Relation rel, int table, BlockNumber from, BlockNumber count,
				OutboxRowFunction function, void *arg)
{
	TableScanDesc scan;
	HeapTuple	tuple;
	bool		more = true;

	scan = table_beginscan_strat(rel, GetActiveSnapshot(), 0, NULL, true, false);
	heap_setscanlimits(scan, from, count);
	while (more && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		DeliveryRow row;

		row_from_tuple(&row, table, tuple, RelationGetDescr(rel));
		more = function(&row, arg);
	}
	table_endscan(scan);
}

static bool
take_if_unsent(const DeliveryRow *row, void *arg)
{
	bool	   *again = arg;
	RowState	state = delivered_get(row->table, &row->tid);
	DeliveryRow copy = *row;

	copy.again = *again || state == ROW_TO_REPEAT;
	copy.answered = state == ROW_TO_REPEAT;
	copy.only_lacking = delivered_was_sent(state);
	if (delivered_is_due(state))
		deliver_take(CLASS_BULK, &copy);
	return true;
}

/*
 * --------------------------------------------------------------------------
 * Reading all over
 * --------------------------------------------------------------------------
 */

void
outboxscan_start_over(bool again)
{
	full_again = again;
	/* The table after the current one is the one that was retired first. */
	tables_left = OUTBOX_TABLES;
	full_table = (pg_atomic_read_u32(&slot->current_table) + 1) % OUTBOX_TABLES;
	full_block = 0;
}

/* Read a step; returns the number of blocks read. */
static BlockNumber
read_full_step(BlockNumber most)
{
	Relation	rel = outboxscan_open(full_table);
	BlockNumber blocks = 0;

	if (rel != NULL)
	{
		BlockNumber nblocks = RelationGetNumberOfBlocks(rel);

		if (full_block < nblocks)
		{
			blocks = Min(most, nblocks - full_block);
			outboxscan_read(rel, full_table, full_block, blocks, take_if_unsent, &full_again);
		}
		relation_close(rel, AccessShareLock);
	}

	full_block += blocks;
	if (blocks == 0)
	{
		tables_left--;
		full_table = (full_table + 1) % OUTBOX_TABLES;
		full_block = 0;
	}
	return blocks;
}

/*
 * --------------------------------------------------------------------------
 * Reading what is marked
 * --------------------------------------------------------------------------
 */

void
outboxscan_collect_dirty(void)
{
	if (pg_atomic_read_u32(&slot->any_dirty) == 0)
		return;

	pg_atomic_write_u32(&slot->any_dirty, 0);
	pg_memory_barrier();
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		for (int w = 0; w < DIRTY_WORDS; w++)
		{
			uint32		bits = 0;

			if (pg_atomic_read_u32(&slot->dirty[t][w]) != 0)
				bits = pg_atomic_exchange_u32(&slot->dirty[t][w], 0);
			nmarked += pg_popcount32(bits & ~marked[t][w]);
			marked[t][w] |= bits;
		}
	}
}

/* Find the next mark from here on; returns false when there is none. */
static bool
next_marked(int *table, uint32 *bit)
{
	for (; *table < OUTBOX_TABLES; (*table)++, *bit = 0)
	{
		for (; *bit < DIRTY_BITS; (*bit)++)
		{
			if (marked[*table][*bit / 32] & ((uint32) 1 << (*bit % 32)))
				return true;
		}
	}
	return false;
}

static void
read_marked_step(BlockNumber most)
{
	int			table = 0;
	uint32		bit = 0;
	bool		again = false;

	while (most > 0 && next_marked(&table, &bit))
	{
		Relation	rel = outboxscan_open(table);

		marked[table][bit / 32] &= ~((uint32) 1 << (bit % 32));
		nmarked--;
		if (rel == NULL)
			continue;
		for (BlockNumber b = bit; b < RelationGetNumberOfBlocks(rel); b += DIRTY_BITS)
		{
			outboxscan_read(rel, table, b, 1, take_if_unsent, &again);
			most -= Min(most, 1);
		}
		relation_close(rel, AccessShareLock);
	}
}

void
outboxscan_turn(void)
{
	BlockNumber left = STEP_BLOCKS;
	bool		joined;

	if (outboxscan_is_done() || !deliver_has_room(CLASS_BULK))
		return;

	joined = outboxscan_begin_reading();
	if (nmarked > 0)
		read_marked_step(left);
	else
	{
		while (tables_left > 0 && left > 0)
			left -= read_full_step(left);
	}
	outboxscan_end_reading(joined);
	FAULT_POINT("scan-step");
	if (!joined)
		pgstat_report_stat(false);
}

bool
outboxscan_is_done(void)
{
	return tables_left == 0 && nmarked == 0;
}

/*
 * --------------------------------------------------------------------------
 * uncache.discard_backlog()
 * --------------------------------------------------------------------------
 */

static bool
discard_row(const DeliveryRow *row, void *arg)
{
	uint64	   *transactions = arg;

	RowState	state = delivered_get(row->table, &row->tid);

	if (delivered_is_due(state))
	{
		delivered_set(row->table, &row->tid, ROW_DELIVERED);
		if (state != ROW_TO_REPEAT && row->chunk == 0)
			(*transactions)++;
	}
	return true;
}

uint64
outboxscan_discard(void)
{
	uint64		transactions = 0;

	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		outboxscan_begin();
		rel = outboxscan_open(t);
		if (rel != NULL)
		{
			outboxscan_read(rel, t, 0, RelationGetNumberOfBlocks(rel),
							discard_row, &transactions);
			relation_close(rel, AccessShareLock);
		}
		outboxscan_end();
	}
	return transactions;
}
