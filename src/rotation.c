/*
 * rotation.c
 *	  The outbox tables take turns, and are emptied in place.
 *
 * Delivered rows are not deleted one by one: that would leave dead rows, which an
 * old snapshot anywhere in the server keeps alive.  Instead the current table is
 * retired when it is large or its rows are old, and an empty one takes its place.
 * A retired table is truncated, without a new file and without a change of the
 * catalogs, when
 *
 *		everything in it was delivered at least redeliver_window ago, and
 *		nobody writes to it: its lock is free.
 *
 * Committers hold a lock on the table that they have written to until they have
 * told the worker (the ring, or marks).  So under an ExclusiveLock and with none
 * of its rows in the ring, a fresh snapshot sees every row that will ever be in the table, and
 * the worker knows which of these are delivered.  Only then is the lock
 * strengthened.  Locks are taken conditionally: whoever queued here would hold up
 * every commit behind it.
 *
 * Where no other table is empty, the current one goes on growing; where a table
 * can't be emptied now, the next second will do.  A crash during the truncation
 * leaves the table as it was or empty; both are right.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "deliver.h"
#include "delivered.h"
#include "faultpoint.h"
#include "outbox.h"
#include "outboxscan.h"
#include "outboxside.h"
#include "rotation.h"
#include "settings.h"

/* Between turns while rows come, and at the most while none do. */
#define TURN_MS				1000
#define IDLE_TURN_MS		5000

/* A table of this size is retired. */
#define RETIRE_BLOCKS		(16 * 1024 * 1024 / BLCKSZ)

typedef struct Table
{
	bool		in_use;			/* may have rows; false: known to be empty */
	uint64		taken_before;	/* deliveries taken when it was last emptied */
	TimestampTz in_use_since;
	TimestampTz retired_at;		/* meaningless for the current one */
} Table;

static DatabaseSlot *slot;
static Table tables[OUTBOX_TABLES];
static TimestampTz next_turn = 0;

void
rotation_init(DatabaseSlot *my_slot)
{
	TimestampTz now = GetCurrentTimestamp();

	slot = my_slot;
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		tables[t].in_use = true;
		tables[t].in_use_since = now;
		tables[t].retired_at = now;
	}
}

static bool
ring_has_rows_of(int table)
{
	bool		has;

	LWLockAcquire(slot->lock, LW_SHARED);
	has = ring_has_table(&slot->ring, table);
	LWLockRelease(slot->lock);
	return has;
}

static BlockNumber
table_blocks(int table)
{
	Relation	rel = outboxscan_open(table);
	BlockNumber blocks = 0;

	if (rel != NULL)
	{
		blocks = RelationGetNumberOfBlocks(rel);
		relation_close(rel, AccessShareLock);
	}
	return blocks;
}

/*
 * --------------------------------------------------------------------------
 * Taking turns
 * --------------------------------------------------------------------------
 */

/* Note which tables have got rows since they were emptied. */
static bool
note_use(TimestampTz now)
{
	bool		any = false;

	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Table	   *table = &tables[t];

		if (!table->in_use && deliver_taken_of_table(t) != table->taken_before)
		{
			table->in_use = true;
			table->in_use_since = now;
			table->retired_at = now;	/* late writers of a table that was retired */
		}
		any = any || table->in_use;
	}
	return any;
}

/* A table without a page has no rows, whatever was thought of it. */
static void
note_empty_tables(void)
{
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		if (tables[t].in_use && deliver_count_of_table(t) == 0 && table_blocks(t) == 0)
		{
			tables[t].in_use = false;
			tables[t].taken_before = deliver_taken_of_table(t);
		}
	}
}

static bool
is_due(int current, TimestampTz now)
{
	int			seconds = Max(setting_redeliver_window, 1);

	return tables[current].in_use &&
		(TimestampDifferenceExceeds(tables[current].in_use_since, now, seconds * 1000) ||
		 table_blocks(current) >= RETIRE_BLOCKS);
}

static void
retire_current(TimestampTz now)
{
	int			current = pg_atomic_read_u32(&slot->current_table);

	if (!is_due(current, now))
		return;
	for (int i = 1; i < OUTBOX_TABLES; i++)
	{
		int			next = (current + i) % OUTBOX_TABLES;

		if (tables[next].in_use)
			continue;
		tables[current].retired_at = now;
		pg_atomic_write_u32(&slot->current_table, next);
		return;
	}
}

/*
 * --------------------------------------------------------------------------
 * Emptying
 * --------------------------------------------------------------------------
 */

static bool
look_for_undelivered(const DeliveryRow *row, void *arg)
{
	bool	   *all_delivered = arg;

	RowState	state = delivered_get(row->table, &row->tid);

	if (state == ROW_DELIVERED)
		return true;
	if (state != ROW_SENT)
		deliver_take(CLASS_BULK, row);
	*all_delivered = false;
	return false;
}

/* Under an ExclusiveLock: whether every row that is or will be is delivered. */
static bool
all_is_delivered(Relation rel, int table)
{
	bool		all_delivered = true;

	if (ring_has_rows_of(table) || deliver_count_of_table(table) > 0 || outboxside_unwritten() > 0)
		return false;
	/* The snapshot must be younger than the lock. */
	outboxscan_read(rel, table, 0, RelationGetNumberOfBlocks(rel),
					look_for_undelivered, &all_delivered);
	return all_delivered;
}

static bool
empty_locked(Oid oid, int table)
{
	Relation	rel = try_relation_open(oid, NoLock);
	bool		emptied = false;

	if (rel == NULL)
		return false;
	outboxscan_check_file(table, RelationGetFileNumber(rel));
	if (RelationGetNumberOfBlocks(rel) == 0)
		emptied = true;
	else
	{
		PushActiveSnapshot(GetLatestSnapshot());
		if (all_is_delivered(rel, table) &&
			ConditionalLockRelationOid(oid, AccessExclusiveLock))
		{
			heap_truncate_one_rel(rel);
			emptied = true;
		}
		PopActiveSnapshot();
	}
	relation_close(rel, NoLock);
	return emptied;
}

static void
try_to_empty(int table)
{
	Oid			oid;
	bool		emptied = false;

	StartTransactionCommand();
	oid = outbox_table_oid(table);
	if (OidIsValid(oid) && ConditionalLockRelationOid(oid, ExclusiveLock))
	{
		FAULT_POINT("emptying-locked");
		emptied = empty_locked(oid, table);
	}
	if (emptied)
		FAULT_POINT("emptied");
	CommitTransactionCommand();

	if (emptied)
	{
		delivered_forget_table(table);
		tables[table].in_use = false;
		tables[table].taken_before = deliver_taken_of_table(table);
	}
}

static bool
is_ready_to_empty(int table, TimestampTz now)
{
	TimestampTz since = Max(tables[table].retired_at, deliver_last_of_table(table));

	return tables[table].in_use && deliver_count_of_table(table) == 0 &&
		TimestampDifferenceExceeds(since, now, setting_redeliver_window * 1000);
}

/* An idle server is not to be woken more often than its window is long. */
static int
time_to_next_turn(void)
{
	static uint64 taken_before = 0;
	uint64		taken = 0;
	bool		idle;

	for (int t = 0; t < OUTBOX_TABLES; t++)
		taken += deliver_taken_of_table(t);
	idle = taken == taken_before;
	taken_before = taken;
	if (!idle)
		return TURN_MS;
	return Min(IDLE_TURN_MS, Max(TURN_MS, setting_redeliver_window * 1000 / 12));
}

TimestampTz
rotation_turn(TimestampTz now)
{
	if (!note_use(now))
		return DT_NOEND;
	if (now < next_turn)
		return next_turn;
	next_turn = TimestampTzPlusMilliseconds(now, time_to_next_turn());

	outboxscan_begin();
	note_empty_tables();
	retire_current(now);
	outboxscan_end();

	/* What is being read has rows that nobody knows of yet. */
	if (outboxscan_is_done())
	{
		for (int t = 0; t < OUTBOX_TABLES; t++)
		{
			if (t != (int) pg_atomic_read_u32(&slot->current_table) &&
				is_ready_to_empty(t, now))
				try_to_empty(t);
		}
	}
	return next_turn;
}
