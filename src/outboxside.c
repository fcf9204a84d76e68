/*
 * outboxside.c
 *	  The side table of the outbox: rows of prepared transactions, and what Redis
 *	  refuses for a reason of its own.
 *
 * Unlike the tables that take turns this one is an ordinary table: a row is
 * deleted when it is delivered, and autovacuum cleans up.  It is small, since
 * both kinds of rows are rare.
 *
 * A refused row is moved here in one transaction and only then counts as done in
 * its own table, so a crash at any moment leaves it in at least one place.  It
 * is tried again after a pause that doubles with each refusal, up to a minute;
 * the number of attempts is in the row.
 *
 * The rows of a prepared transaction become visible with COMMIT PREPARED, which
 * may happen where nobody tells the worker.  So as long as the table has rows of
 * transactions in progress it is looked at once a second.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "lib/ilist.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "clock.h"
#include "delivered.h"
#include "faultpoint.h"
#include "outbox.h"
#include "outboxscan.h"
#include "outboxside.h"

/* How often prepared transactions are looked for that ended without telling us. */
#define POLL_MS				1000

/* Before what was refused is tried again; doubles. */
#define RETRY_FIRST_MS		1000
#define RETRY_LAST_MS		(60 * 1000)

typedef enum SideState
{
	SIDE_SENT,					/* deliver.c has it */
	SIDE_DELIVERED,				/* to be deleted */
	SIDE_WAITS,					/* was refused; retry_at says when */
	SIDE_LOST,					/* a node is away; likewise, or at the next look */
} SideState;

/* A row of the side table that the worker knows. */
typedef struct SideRow
{
	ItemPointerData tid;		/* hash key */
	SideState	state;
	TimestampTz retry_at;
} SideRow;

/* A row to be written here, and to be done with where it came from. */
typedef struct RefusedRow
{
	dlist_node	node;
	bool		to_repeat;		/* to be sent again from where it came from */
	DeliveryRow row;			/* row.items is a copy behind the struct */
} RefusedRow;

static MemoryContext context;
static HTAB *rows;
static dlist_head refused = DLIST_STATIC_INIT(refused);
static int	nrefused = 0;
static int	ndelivered = 0;		/* rows in SIDE_DELIVERED */

static bool look = true;		/* the table may have news */
static bool in_progress = false;	/* it has rows of running transactions */
static TimestampTz poll_at = 0;
static TimestampTz locked_until = 0;	/* not to be tried before */

static HTAB *
make_rows(void)
{
	HASHCTL		control = {
		.keysize = sizeof(ItemPointerData),
		.entrysize = sizeof(SideRow),
		.hcxt = context,
	};

	return hash_create("pg_uncache side rows", 64, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
outboxside_init(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache side table",
									ALLOCSET_DEFAULT_SIZES);
	rows = make_rows();
}

void
outboxside_look(void)
{
	look = true;
}

int
outboxside_unwritten(void)
{
	return nrefused;
}

bool
outboxside_is_done(void)
{
	return !look && nrefused == 0 && hash_get_num_entries(rows) == ndelivered;
}

bool
outboxside_has_rows(void)
{
	return nrefused > 0 || hash_get_num_entries(rows) > ndelivered;
}

bool
outboxside_has_prepared(void)
{
	return in_progress;
}

void
outboxside_refused(const DeliveryRow *row, const char *items, uint32 len, bool to_repeat)
{
	RefusedRow *copy = MemoryContextAlloc(context, sizeof(RefusedRow) + len);

	copy->to_repeat = to_repeat;
	copy->row = *row;
	copy->row.attempts++;
	copy->row.items = (char *) (copy + 1);
	copy->row.len = len;
	memcpy(copy + 1, items, len);
	dlist_push_tail(&refused, &copy->node);
	nrefused++;
}

void
outboxside_repeat_unwritten(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
		dlist_container(RefusedRow, node, iter.cur)->to_repeat = true;
}

void
outboxside_finished(const ItemPointerData *tid, bool delivered)
{
	SideRow    *row = hash_search(rows, tid, HASH_FIND, NULL);

	if (row == NULL)
		return;
	if (delivered)
	{
		row->state = SIDE_DELIVERED;
		ndelivered++;
	}
	else
	{
		row->state = SIDE_LOST;
		row->retry_at = TimestampTzPlusMilliseconds(clock_now(), RETRY_FIRST_MS);
	}
}

void
outboxside_keep_refused(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		if (from->row.table < OUTBOX_TABLES)
			delivered_set(from->row.table, &from->row.tid,
						  delivered_when_sent(from->row.answered));
	}
}

static TimestampTz
retry_time(TimestampTz now, int32 attempts)
{
	int			delay = RETRY_FIRST_MS;

	for (int i = 1; i < attempts && delay < RETRY_LAST_MS; i++)
		delay *= 2;
	return TimestampTzPlusMilliseconds(now, Min(delay, RETRY_LAST_MS));
}

/*
 * --------------------------------------------------------------------------
 * Writing
 * --------------------------------------------------------------------------
 */

static void
insert_refused(Relation rel, RefusedRow *from, TimestampTz now)
{
	Datum		values[OUTBOX_NCOLUMNS];
	bool		nulls[OUTBOX_NCOLUMNS] = {false};
	bytea	   *items = palloc(VARHDRSZ + from->row.len);
	HeapTuple	tuple;
	SideRow    *row;

	SET_VARSIZE(items, VARHDRSZ + from->row.len);
	memcpy(VARDATA(items), from->row.items, from->row.len);
	values[OUTBOX_XID - 1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(from->row.xid));
	values[OUTBOX_CHUNK - 1] = Int32GetDatum(from->row.chunk);
	values[OUTBOX_AT - 1] = TimestampTzGetDatum(from->row.at);
	values[OUTBOX_ITEMS - 1] = PointerGetDatum(items);
	values[OUTBOX_ATTEMPTS - 1] = Int32GetDatum(from->row.attempts);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	heap_insert(rel, tuple, GetCurrentCommandId(true), HEAP_INSERT_NO_LOGICAL, NULL);

	row = hash_search(rows, &tuple->t_self, HASH_ENTER, NULL);
	row->state = SIDE_WAITS;
	row->retry_at = retry_time(now, from->row.attempts);
}

/* Store what was refused and delete what is finished, in one transaction. */
static void
write_changes(Relation rel, TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		insert_refused(rel, from, now);
		if (from->row.table == OUTBOX_SIDE)
			simple_heap_delete(rel, &from->row.tid);
	}

	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		if (row->state == SIDE_DELIVERED)
			simple_heap_delete(rel, &row->tid);
	}
}

/* The transaction of write_changes() has committed. */
static void
forget_written(void)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;

	while (!dlist_is_empty(&refused))
	{
		RefusedRow *from = dlist_container(RefusedRow, node, dlist_pop_head_node(&refused));

		if (from->row.table == OUTBOX_SIDE)
			hash_search(rows, &from->row.tid, HASH_REMOVE, NULL);
		else if (from->to_repeat)
		{
			delivered_set(from->row.table, &from->row.tid, ROW_TO_REPEAT);
			deliver_release_soon();
		}
		else
			delivered_set(from->row.table, &from->row.tid, ROW_DELIVERED);
		pfree(from);
	}
	nrefused = 0;

	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		if (row->state == SIDE_DELIVERED)
			hash_search(rows, &row->tid, HASH_REMOVE, NULL);
	}
	ndelivered = 0;
}

/*
 * A prepared transaction keeps its lock on this table for as long as it likes.  Who
 * wants it alone (VACUUM FULL) waits for that, and must not have the worker wait
 * behind: it comes again in a second.  NULL where the table is gone, or locked.
 */
static Relation
open_if_free(LOCKMODE mode, TimestampTz now)
{
	Relation	rel = NULL;

	switch (opening_try(outbox_table_oid(OUTBOX_SIDE), mode, &rel))
	{
		case OPENING_DONE:
			outboxscan_check_file(OUTBOX_SIDE, RelationGetFileNumber(rel));
			break;
		case OPENING_REFUSED:
			locked_until = TimestampTzPlusMilliseconds(now, POLL_MS);
			break;
		case OPENING_GONE:
			break;
	}
	return rel;
}

static void
write_turn(TimestampTz now)
{
	Relation	rel;

	outboxscan_begin();
	rel = open_if_free(RowExclusiveLock, now);
	if (rel != NULL)
	{
		write_changes(rel, now);
		relation_close(rel, NoLock);
		FAULT_POINT("side-inserted");
	}
	outboxscan_end();
	FAULT_POINT("side-written");
	if (now >= locked_until)
		forget_written();
}

/*
 * --------------------------------------------------------------------------
 * Reading
 * --------------------------------------------------------------------------
 */

static bool
take_row(const DeliveryRow *row, void *arg)
{
	TimestampTz now = *(TimestampTz *) arg;
	bool		found;
	SideRow    *known = hash_search(rows, &row->tid, HASH_ENTER, &found);

	if (found && known->state != SIDE_LOST &&
		(known->state != SIDE_WAITS || known->retry_at > now))
		return true;
	known->state = SIDE_SENT;
	deliver_take(CLASS_BULK, row);
	return true;
}

/* Whether the table has rows whose transaction is still running. */
static bool
has_rows_in_progress(Relation rel)
{
	SnapshotData dirty;
	TableScanDesc scan;
	bool		found = false;

	InitDirtySnapshot(dirty);
	scan = table_beginscan(rel, &dirty, 0, NULL, SO_NONE);
	while (!found && heap_getnext(scan, ForwardScanDirection) != NULL)
		found = TransactionIdIsValid(dirty.xmin);
	table_endscan(scan);
	return found;
}

static void
read_turn(TimestampTz now)
{
	Relation	rel;
	bool		joined;

	in_progress = false;
	joined = outboxscan_begin_reading();
	rel = open_if_free(AccessShareLock, now);
	look = now < locked_until;
	if (rel != NULL)
	{
		/* Looked at first: what commits in between is seen by the next poll. */
		in_progress = has_rows_in_progress(rel);
		outboxscan_read(rel, OUTBOX_SIDE, 0, RelationGetNumberOfBlocks(rel), take_row, &now);
		relation_close(rel, AccessShareLock);
	}
	outboxscan_end_reading(joined);
	poll_at = TimestampTzPlusMilliseconds(now, POLL_MS);
}

/* When the first refused row is due. */
static TimestampTz
next_retry(void)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;
	TimestampTz first = DT_NOEND;

	if (hash_get_num_entries(rows) == 0)
		return DT_NOEND;
	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		if (row->state == SIDE_WAITS || row->state == SIDE_LOST)
			first = Min(first, row->retry_at);
	}
	return first;
}

TimestampTz
outboxside_turn(TimestampTz now, bool connected)
{
	TimestampTz due;

	if (now < locked_until)
		return locked_until;

	/* What is written has to be committed: not with a beat. */
	if ((nrefused > 0 || ndelivered > 0) && !IsTransactionState())
		write_turn(now);
	if (!connected)
		return DT_NOEND;

	due = next_retry();
	if (in_progress)
		due = Min(due, poll_at);
	if (look || due <= now)
	{
		read_turn(now);
		if (now < locked_until)
			return locked_until;
		due = next_retry();
		if (in_progress)
			due = Min(due, poll_at);
	}
	return due;
}

static bool
note_row(const DeliveryRow *row, void *arg)
{
	SideRow    *known;
	bool		found;

	known = hash_search(rows, &row->tid, HASH_ENTER, &found);
	if (!found || known->state == SIDE_WAITS || known->state == SIDE_LOST)
	{
		known->state = SIDE_DELIVERED;
		ndelivered++;
		if (row->chunk == 0)
			(*(uint64 *) arg)++;
	}
	return true;
}

uint64
outboxside_discard(void)
{
	uint64		transactions = 0;
	Relation	rel;

	outboxscan_begin();
	if (outboxscan_open(OUTBOX_SIDE, &rel) == OPENING_DONE)
	{
		outboxscan_read(rel, OUTBOX_SIDE, 0, RelationGetNumberOfBlocks(rel),
						note_row, &transactions);
		relation_close(rel, AccessShareLock);
	}
	outboxscan_end();
	return transactions;
}
