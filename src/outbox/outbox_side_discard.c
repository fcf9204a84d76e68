/*
 * outbox_side_discard.c
 *	  uncache.discard_backlog() in the side table: its rows count as delivered.
 *
 * They are deleted with the next writing (outbox_side_write.c), so a crash before that leaves
 * them, and they are delivered.  Where the table has a damaged block, whose rows can't be deleted
 * one by one, and all is discarded, the table is truncated, if no other session has it locked.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/heap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"

#include "outbox/outbox_damage.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side_int.h"
#include "outbox/outbox_tables.h"

typedef struct Discarding
{
	uint64		xid;			/* 0: all */
	uint64		transactions;
} Discarding;

static bool
note_row(const OutboxRow *row, void *arg)
{
	Discarding *discarding = arg;
	SideRow    *known;
	bool		found;

	Assert(row->table == OUTBOX_SIDE);
	if (discarding->xid != 0 && discarding->xid != row->xid)
		return true;
	known = outbox_side_rows_enter(&row->tid, &found);
	if (known->state == SIDE_DELIVERED)
		return true;
	/* A row that is under way ends as delivered, whatever Redis answers (delivery_discard()). */
	if (!found || known->state == SIDE_WAITS || known->state == SIDE_LOST)
		outbox_side_rows_set_delivered(known);
	if (discarding->xid != 0 || row->chunk == 0)
		discarding->transactions++;
	return true;
}

/* Rows in a damaged block can't be deleted: the table is truncated, if it is free. */
static bool
may_be_truncated(uint64 xid)
{
	Oid			oid = outbox_table_oid(OUTBOX_SIDE);

	return xid == 0 && outbox_damage_in_table(OUTBOX_SIDE) && OidIsValid(oid) &&
		ConditionalLockRelationOid(oid, AccessExclusiveLock);
}

static void
truncate_table(Relation rel)
{
	Assert(CheckRelationLockedByMe(rel, AccessExclusiveLock, false));
	heap_truncate_one_rel(rel);
	outbox_side_rows_forget_all();
	outbox_damage_forget_table(OUTBOX_SIDE);
}

uint64
outbox_side_discard(uint64 xid)
{
	Discarding	discarding = {.xid = xid};
	Relation	rel;
	bool		is_locked;

	Assert(!IsTransactionState());
	outbox_side_write_discard(xid);
	outbox_begin();
	is_locked = may_be_truncated(xid);
	if (outbox_scan_open(OUTBOX_SIDE, &rel) == OPENING_DONE)
	{
		outbox_scan_read(rel, OUTBOX_SIDE, 0, RelationGetNumberOfBlocks(rel),
						 READING_TO_DISCARD, note_row, &discarding);
		if (is_locked)
			truncate_table(rel);
		relation_close(rel, NoLock);
	}
	outbox_end();
	return discarding.transactions;
}
