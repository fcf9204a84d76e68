/*
 * outbox_truncate.c
 *	  A retired outbox table is truncated in place, in steps.
 *
 * A table may be truncated when every row that is in it, or ever will be, is
 * delivered.  After an outage it can have gigabytes; so the worker reads it in small
 * steps, between which it delivers, and holds no lock meanwhile:
 *
 *		begin		a moment under ExclusiveLock: no session is writing.  Note how many
 *					rows were taken for delivery, and how many sessions have written late.
 *		steps		read some blocks with a fresh snapshot: are their rows delivered?
 *		end			ExclusiveLock again.  If neither count has changed, the table holds
 *					the rows that were read, all of them delivered.  Strengthen the lock,
 *					truncate.
 *
 * What makes that sound: a delivered row stays delivered unless all are to be sent again,
 * and then they are taken.  A committer keeps the table locked until it has told the worker,
 * so at the beginning each row is either visible to the steps or never will be.  A session
 * that locks the table later finds that it is not the current one any more, and adds to the
 * count of late writers (outbox_write.c): it may have chosen the table long ago, or other
 * tables may have refused it.
 *
 * Locks are taken conditionally: every commit would queue behind a worker that queued.  A
 * lock that is refused is tried again a second later.  A crash during the truncation
 * leaves the table as it was or empty; both are right.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"

#include "outbox/outbox_damage.h"
#include "outbox/delivery_map.h"
#include "outbox/outbox_truncate.h"
#include "base/fault_point.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"

/* Blocks of one step: some 1,500 rows, in a fraction of a millisecond. */
#define STEP_BLOCKS		16

/* How far a table has been read.  Until "begun" the other fields mean nothing. */
typedef struct Check
{
	bool		begun;
	BlockNumber nblocks;
	BlockNumber next;			/* to be read; nblocks: all are read */
	uint64		taken;			/* deliveries of this table at the beginning */
	uint32		late_writers;
} Check;

static Check checks[OUTBOX_TABLES];
static const OutboxSink *sink;

void
outbox_truncate_init(const OutboxSink *for_rows)
{
	sink = for_rows;
}

/* Whether the worker holds no row of this table that is not delivered and settled. */
static bool
is_quiet(int table)
{
	bool		in_ring;

	LWLockAcquire(MyDatabaseState->lock, LW_SHARED);
	in_ring = ring_has_table(&MyDatabaseState->ring, table);
	LWLockRelease(MyDatabaseState->lock);
	return !in_ring && delivery_map_under_way(table) == 0 && outbox_side_unwritten() == 0;
}

/* Whether the rows that were read are still all rows of the table. */
static bool
still_holds(const Check *check, int table)
{
	return check->taken == delivery_map_taken(table) &&
		check->late_writers == pg_atomic_read_u32(&MyDatabaseState->late_writers[table]);
}

/* Open a table if no session writes to it, and keep it so until the transaction ends. */
static Relation
open_unwritten(int table)
{
	Oid			oid = outbox_table_oid(table);
	Relation	rel;

	Assert(table >= 0 && table < OUTBOX_TABLES);
	Assert(IsTransactionState());
	if (!OidIsValid(oid) || !ConditionalLockRelationOid(oid, ExclusiveLock))
		return NULL;
	rel = try_relation_open(oid, NoLock);
	if (rel != NULL)
		outbox_scan_check_file(table, RelationGetFileNumber(rel));
	return rel;
}

static bool
begin_check(Check *check, int table)
{
	Relation	rel;

	Assert(!check->begun);
	if (!is_quiet(table))
		return false;
	outbox_begin();
	rel = open_unwritten(table);
	if (rel != NULL)
	{
		check->begun = true;
		check->nblocks = RelationGetNumberOfBlocks(rel);
		check->next = 0;
		check->taken = delivery_map_taken(table);
		check->late_writers = pg_atomic_read_u32(&MyDatabaseState->late_writers[table]);
		relation_close(rel, NoLock);
	}
	outbox_end();
	return rel != NULL;
}

/* A row that is not delivered is sent, and the check begins anew after that. */
static bool
look_for_undelivered(const OutboxRow *row, void *arg)
{
	bool	   *all_delivered = arg;
	RowState	state = delivery_map_get(row->table, &row->tid);

	Assert(row->table < OUTBOX_TABLES);
	if (state == ROW_DELIVERED)
		return true;
	if (delivery_map_is_due(state))
		sink->take(row);
	*all_delivered = false;
	return false;
}

static bool
read_step(Check *check, int table)
{
	bool		all_delivered = true;
	BlockNumber blocks = Min(STEP_BLOCKS, check->nblocks - check->next);
	Relation	rel;

	Assert(check->begun && check->next <= check->nblocks);
	outbox_begin();
	if (outbox_scan_open(table, &rel) != OPENING_DONE)
		all_delivered = false;
	else
	{
		/* A VACUUM by hand can have shortened it. */
		if (check->next < RelationGetNumberOfBlocks(rel))
			outbox_scan_read(rel, table, check->next, blocks, READING_AGAIN,
							 look_for_undelivered, &all_delivered);
		relation_close(rel, AccessShareLock);
	}
	outbox_end();
	check->next += blocks;
	FAULT_POINT("emptying-step");
	/* A block that can't be read counts as delivered once patterns stand for its keys. */
	return all_delivered && !outbox_damage_is_unanswered();
}

static bool
truncate_if_free(Relation rel)
{
	Assert(CheckRelationLockedByMe(rel, ExclusiveLock, true));
	if (RelationGetNumberOfBlocks(rel) == 0)
		return true;
	if (!ConditionalLockRelationOid(RelationGetRelid(rel), AccessExclusiveLock))
		return false;
	heap_truncate_one_rel(rel);
	return true;
}

static bool
end_check(Check *check, int table)
{
	bool		emptied = false;
	Relation	rel;

	Assert(check->begun && check->next == check->nblocks);
	outbox_begin();
	rel = open_unwritten(table);
	if (rel != NULL)
	{
		FAULT_POINT("emptying-locked");
		emptied = is_quiet(table) && still_holds(check, table) && truncate_if_free(rel);
		relation_close(rel, NoLock);
	}
	if (emptied)
		FAULT_POINT("emptied");
	outbox_end();
	return emptied;
}

TruncateResult
outbox_truncate_run(int table)
{
	Check	   *check = &checks[table];

	Assert(table >= 0 && table < OUTBOX_TABLES && sink != NULL);
	Assert(table != (int) pg_atomic_read_u32(&MyDatabaseState->current_table));
	if (!check->begun || !still_holds(check, table))
	{
		check->begun = false;
		return begin_check(check, table) ? TRUNCATE_GOES_ON : TRUNCATE_LATER;
	}
	if (check->next < check->nblocks)
	{
		check->begun = read_step(check, table);
		return check->begun ? TRUNCATE_GOES_ON : TRUNCATE_LATER;
	}
	if (!end_check(check, table))
		return TRUNCATE_LATER;
	check->begun = false;
	delivery_map_forget_table(table);
	outbox_damage_forget_table(table);
	pg_atomic_fetch_and_u32(&MyDatabaseState->unwritable_tables, ~((uint32) 1 << table));
	return TRUNCATE_DONE;
}
