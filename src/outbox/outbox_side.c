/*
 * outbox_side.c
 *	  The side table of the outbox: rows of prepared transactions, and items that Redis
 *	  refuses for a reason of their own.
 *
 * Unlike the tables that take turns this one is an ordinary table: the worker deletes a
 * row when it is delivered, and autovacuum cleans up, since the worker reports what it
 * writes.  The worker reads the whole table only when it may have new rows; it finds a row
 * that is due by its tid, so that the cost does not grow with the rows that Redis refuses.
 *
 * A refused row is moved here in one transaction and only then counts as done in
 * its own table, so a crash at any moment leaves it in at least one place.  It
 * is tried again after a pause that doubles with each refusal, up to a minute;
 * the number of attempts is in the row.
 *
 * The rows of a prepared transaction become visible with COMMIT PREPARED, which may happen
 * without a call that tells the worker (logical apply).  So as long as the table has rows
 * of transactions in progress the worker reads it once a second.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/invalidation.h"
#include "base/subtransaction.h"
#include "outbox/outbox_damage.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side_int.h"
#include "outbox/outbox_tables.h"

/* How often the worker looks for prepared transactions that have ended without telling it. */
#define POLL_MS				1000

static const OutboxSink *sink;
static bool look = true;		/* the table may have news */
static bool in_progress = false;	/* it has rows of running transactions */
static TimestampTz poll_at = 0;

void
outbox_side_init(const OutboxSink *for_rows)
{
	sink = for_rows;
	outbox_side_rows_init();
	outbox_side_write_init();
}

void
outbox_side_request_scan(void)
{
	look = true;
}

bool
outbox_side_is_done(void)
{
	return !look && outbox_side_unwritten() == 0 && outbox_side_rows_undelivered() == 0;
}

bool
outbox_side_has_rows(void)
{
	return outbox_side_unwritten() > 0 || outbox_side_rows_undelivered() > 0;
}

bool
outbox_side_has_prepared(void)
{
	return in_progress;
}

static bool
take_row(const OutboxRow *row, void *arg)
{
	TimestampTz now = *(TimestampTz *) arg;
	bool		known;
	SideRow    *side = outbox_side_rows_enter(&row->tid, &known);

	Assert(row->table == OUTBOX_SIDE);
	side->found = true;
	if (!known && row->attempts > 0)
		outbox_side_rows_set_keys(side, invalidation_count(row->items, row->len));
	if (known && side->state != SIDE_LOST &&
		(side->state != SIDE_WAITS || side->retry_at > now))
		return true;
	/* Of a large table the worker takes as many rows as memory has room for. */
	if (!sink->has_room())
	{
		outbox_side_rows_set_waiting(side, SIDE_LOST, now);
		return true;
	}
	outbox_side_rows_set_sent(side);
	sink->take(row);
	return true;
}

/* Take those that are due, without reading the others. */
static void
take_due(Relation rel, TimestampTz now)
{
	SideRow    *row;

	Assert(IsTransactionState());
	while ((row = outbox_side_rows_next()) != NULL && row->retry_at <= now && sink->has_room())
	{
		row->found = false;
		outbox_scan_read_row(rel, OUTBOX_SIDE, &row->tid, take_row, &now);
		if (!row->found)
			outbox_side_rows_forget(row);
		else
			row->found = false;
	}
}

/* Note whether the table has rows whose transaction is still running. */
static void
look_for_running(void *arg)
{
	Relation	rel = arg;
	SnapshotData dirty;
	TableScanDesc scan;

	Assert(CheckRelationLockedByMe(rel, AccessShareLock, true));
	in_progress = false;
	InitDirtySnapshot(dirty);
	scan = table_beginscan(rel, &dirty, 0, NULL, SO_NONE);
	while (!in_progress && heap_getnext(scan, ForwardScanDirection) != NULL)
		in_progress = TransactionIdIsValid(dirty.xmin);
	table_endscan(scan);
}

/* Where the table can't be read to its end, there may be such rows behind the damage. */
static void
note_running(Relation rel)
{
	ErrorData  *error = subtransaction_run(look_for_running, rel);

	if (error == NULL)
		return;
	if (!outbox_damage_is_meant(error))
		ReThrowError(error);
	in_progress = true;
}

static void
read_whole(Relation rel, TimestampTz now)
{
	Assert(IsTransactionState());
	/* First, so that the next poll sees a transaction that commits in between. */
	note_running(rel);
	outbox_scan_read(rel, OUTBOX_SIDE, 0, RelationGetNumberOfBlocks(rel),
					 look ? READING_NEWS : READING_AGAIN, take_row, &now);
	outbox_side_rows_forget_unfound();
	poll_at = TimestampTzPlusMilliseconds(now, POLL_MS);
}

static bool
is_to_be_read(TimestampTz now)
{
	return look || (in_progress && poll_at <= now);
}

static void
read_turn(TimestampTz now)
{
	bool		joined = outbox_begin_reading();
	Relation	rel = outbox_side_write_open(AccessShareLock, now);

	if (rel != NULL)
	{
		if (is_to_be_read(now))
			read_whole(rel, now);
		else
			take_due(rel, now);
		look = false;
		relation_close(rel, AccessShareLock);
	}
	outbox_end_reading(joined);
}

/* When there is something to read next; a row without room waits for answers. */
static TimestampTz
next_due(void)
{
	const SideRow *next = outbox_side_rows_next();
	TimestampTz due = next != NULL && sink->has_room() ? next->retry_at : DT_NOEND;

	return in_progress ? Min(due, poll_at) : due;
}

TimestampTz
outbox_side_run(TimestampTz now, bool connected)
{
	if (now < outbox_side_write_locked_until())
		return outbox_side_write_locked_until();

	/* The write has to be committed, so not within the transaction of a beat. */
	if ((outbox_side_unwritten() > 0 || outbox_side_rows_delivered() > 0) && !IsTransactionState())
		outbox_side_write_run(now);
	if (!connected)
		return DT_NOEND;

	if (now >= outbox_side_write_locked_until() && (look || next_due() <= now))
		read_turn(now);
	return now < outbox_side_write_locked_until() ? outbox_side_write_locked_until() : next_due();
}
