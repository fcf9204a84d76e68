/*
 * outbox_side.c
 *	  The side table of the outbox: rows of prepared transactions, and what Redis
 *	  refuses for a reason of its own.
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
#include "catalog/heap.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/invalidation.h"
#include "base/subtransaction.h"
#include "base/clock.h"
#include "outbox/outbox_damage.h"
#include "outbox/delivery_map.h"
#include "base/fault_point.h"
#include "base/log_text.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"

/* How often the worker looks for prepared transactions that have ended without telling it. */
#define POLL_MS				1000

/* Before what was refused is tried again; doubles. */
#define RETRY_FIRST_MS		1000
#define RETRY_LAST_MS		(60 * 1000)

typedef enum SideState
{
	SIDE_SENT,					/* the sink has it */
	SIDE_DELIVERED,				/* to be deleted */
	SIDE_WAITS,					/* was refused; retry_at says when */
	SIDE_LOST,					/* a node is away; the same, or when the table is read next */
} SideState;

/* A row of the side table that the worker knows. */
typedef struct SideRow
{
	ItemPointerData tid;		/* hash key */
	SideState	state;
	bool		found;			/* by the reading of the table that is going on */
	TimestampTz retry_at;		/* SIDE_WAITS, SIDE_LOST: in "waiting" by this */
	pairingheap_node heap_node;
	dlist_node	delivered_node; /* SIDE_DELIVERED: in "delivered" */
	uint32		keys;			/* refused ones in it; 0 of a prepared transaction */
} SideRow;

/* Refused items of a row: to be written here, and then finished where they came from. */
typedef struct RefusedRow
{
	dlist_node	node;
	bool		to_repeat;		/* to be sent again from where it came from */
	char		error[OUTBOX_MAX_ERROR + 1];
	OutboxRow	row;			/* row.items is a copy behind the struct */
} RefusedRow;

/* A row has room for the refused items, its other columns and the text of the error. */
StaticAssertDecl(OUTBOX_ROW_ITEMS + OUTBOX_MAX_ERROR + 100 <= MaxHeapTupleSize,
				 "a refused row must fit into a page");

static const OutboxSink *sink;
static MemoryContext context;
static HTAB *rows;
static dlist_head refused = DLIST_STATIC_INIT(refused);
static int	nrefused = 0;
static dlist_head delivered = DLIST_STATIC_INIT(delivered);
static int	ndelivered = 0;		/* rows in it */
static pairingheap *waiting;	/* rows that are to be tried again, the first one on top */

static bool look = true;		/* the table may have news */
static bool in_progress = false;	/* it has rows of running transactions */
static TimestampTz poll_at = 0;
static TimestampTz locked_until = 0;	/* the table is not tried before */
static bool released = false;	/* outbox_side_has_released() */
static bool failed = false;		/* the last writing did; it was logged */

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

static int
compare_retries(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz retry_a = pairingheap_const_container(SideRow, heap_node, a)->retry_at;
	TimestampTz retry_b = pairingheap_const_container(SideRow, heap_node, b)->retry_at;

	return retry_a < retry_b ? 1 : retry_a > retry_b ? -1 : 0;
}

void
outbox_side_init(const OutboxSink *for_rows)
{
	MemoryContext old_context;

	sink = for_rows;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache side table",
									ALLOCSET_DEFAULT_SIZES);
	rows = make_rows();
	old_context = MemoryContextSwitchTo(context);
	waiting = pairingheap_allocate(compare_retries, NULL);
	MemoryContextSwitchTo(old_context);
	pg_atomic_write_u64(&shmem_my_database()->stats.keys_refused_now, 0);
}

/* The level that the view shows is the sum of all rows known. */
static void
set_keys(SideRow *row, uint32 keys)
{
	pg_atomic_fetch_add_u64(&shmem_my_database()->stats.keys_refused_now, (int64) keys - row->keys);
	row->keys = keys;
}

/* Find a row, or enter it; a new row counts as sent, by the caller. */
static SideRow *
enter_row(const ItemPointerData *tid, bool *found)
{
	SideRow    *row = hash_search(rows, tid, HASH_ENTER, found);

	if (!*found)
	{
		row->state = SIDE_SENT;
		row->keys = 0;
	}
	return row;
}

static void
leave_state(SideRow *row)
{
	if (row->state == SIDE_WAITS || row->state == SIDE_LOST)
		pairingheap_remove(waiting, &row->heap_node);
	else if (row->state == SIDE_DELIVERED)
	{
		dlist_delete(&row->delivered_node);
		ndelivered--;
	}
	row->state = SIDE_SENT;
}

static void
set_waiting(SideRow *row, SideState state, TimestampTz retry_at)
{
	leave_state(row);
	row->state = state;
	row->retry_at = retry_at;
	pairingheap_add(waiting, &row->heap_node);
}

static void
set_delivered(SideRow *row)
{
	leave_state(row);
	row->state = SIDE_DELIVERED;
	dlist_push_tail(&delivered, &row->delivered_node);
	ndelivered++;
}

static void
forget_row(SideRow *row)
{
	leave_state(row);
	set_keys(row, 0);
	hash_search(rows, &row->tid, HASH_REMOVE, NULL);
}

void
outbox_side_retry(void)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;

	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		if (row->state == SIDE_WAITS)
			set_waiting(row, SIDE_WAITS, 0);
	}
}

void
outbox_side_request_scan(void)
{
	look = true;
}

int
outbox_side_unwritten(void)
{
	return nrefused;
}

bool
outbox_side_is_done(void)
{
	return !look && nrefused == 0 && hash_get_num_entries(rows) == ndelivered;
}

bool
outbox_side_has_rows(void)
{
	return nrefused > 0 || hash_get_num_entries(rows) > ndelivered;
}

bool
outbox_side_has_prepared(void)
{
	return in_progress;
}

/* Make the text of an error one that the database can store: Redis may send any bytes. */
static void
copy_error(char *to, const char *error)
{
	bool		is_text = pg_verifymbstr(error, strlen(error), true);

	if (is_text)
		strlcpy(to, error, pg_mbcliplen(error, strlen(error), OUTBOX_MAX_ERROR) + 1);
	else
		strlcpy(to, error, OUTBOX_MAX_ERROR + 1);
	for (char *p = to; *p; p++)
	{
		if (!is_text && IS_HIGHBIT_SET(*p))
			*p = '?';
	}
}

void
outbox_side_refused(const OutboxRow *row, const char *items, uint32 len,
					const char *error, bool to_repeat)
{
	RefusedRow *copy = MemoryContextAlloc(context, sizeof(RefusedRow) + len);

	copy->to_repeat = to_repeat;
	copy_error(copy->error, error);
	copy->row = *row;
	copy->row.attempts++;
	copy->row.items = (char *) (copy + 1);
	copy->row.len = len;
	memcpy(copy + 1, items, len);
	dlist_push_tail(&refused, &copy->node);
	nrefused++;
}

void
outbox_side_repeat_unwritten(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
		dlist_container(RefusedRow, node, iter.cur)->to_repeat = true;
}

bool
outbox_side_has_released(void)
{
	bool		result = released;

	released = false;
	return result;
}

void
outbox_side_finished(const ItemPointerData *tid, bool is_delivered)
{
	SideRow    *row = hash_search(rows, tid, HASH_FIND, NULL);

	if (row == NULL)
		return;
	if (is_delivered)
		set_delivered(row);
	else
		set_waiting(row, SIDE_LOST, TimestampTzPlusMilliseconds(clock_now(), RETRY_FIRST_MS));
}

void
outbox_side_keep_refused(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		if (from->row.table < OUTBOX_TABLES)
			delivery_map_set(from->row.table, &from->row.tid,
							 delivery_map_when_sent(from->row.answered));
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
	Datum		values[OUTBOX_SIDE_NCOLUMNS];
	bool		nulls[OUTBOX_SIDE_NCOLUMNS] = {false};
	bytea	   *items = palloc(VARHDRSZ + from->row.len);
	HeapTuple	tuple;
	SideRow    *row;
	bool		found;

	SET_VARSIZE(items, VARHDRSZ + from->row.len);
	memcpy(VARDATA(items), from->row.items, from->row.len);
	values[OUTBOX_XID - 1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(from->row.xid));
	values[OUTBOX_CHUNK - 1] = Int32GetDatum(from->row.chunk);
	values[OUTBOX_AT - 1] = TimestampTzGetDatum(from->row.at);
	values[OUTBOX_ITEMS - 1] = PointerGetDatum(items);
	values[OUTBOX_ATTEMPTS - 1] = Int32GetDatum(from->row.attempts);
	values[OUTBOX_ERROR - 1] = CStringGetTextDatum(from->error);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	heap_insert(rel, tuple, GetCurrentCommandId(true), HEAP_INSERT_NO_LOGICAL, NULL);

	row = enter_row(&tuple->t_self, &found);
	set_waiting(row, SIDE_WAITS, retry_time(now, from->row.attempts));
	set_keys(row, invalidation_count(from->row.items, from->row.len));
}

typedef struct Writing
{
	Relation	rel;
	TimestampTz now;
} Writing;

/* Store what was refused and delete what is finished, in one transaction. */
static void
write_changes(void *arg)
{
	Writing    *writing = arg;
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		insert_refused(writing->rel, from, writing->now);
		if (from->row.table == OUTBOX_SIDE)
			simple_heap_delete(writing->rel, &from->row.tid);
	}
	dlist_foreach(iter, &delivered)
		simple_heap_delete(writing->rel, &dlist_container(SideRow, delivered_node, iter.cur)->tid);
}

/* The refused items are written: finish the row where it came from. */
static void
forget_refused(RefusedRow *from, bool to_repeat)
{
	SideRow    *row;

	if (from->row.table == OUTBOX_SIDE)
	{
		row = hash_search(rows, &from->row.tid, HASH_FIND, NULL);
		if (row != NULL)
			forget_row(row);
	}
	else if (to_repeat)
	{
		delivery_map_set(from->row.table, &from->row.tid, ROW_RESEND_FORGOTTEN);
		released = true;
	}
	else
		delivery_map_set(from->row.table, &from->row.tid, ROW_DELIVERED);
	dlist_delete(&from->node);
	nrefused--;
	pfree(from);
}

/* The transaction of write_changes() has committed. */
static void
forget_written(void)
{
	while (!dlist_is_empty(&refused))
	{
		RefusedRow *from = dlist_head_element(RefusedRow, node, &refused);

		forget_refused(from, from->to_repeat);
	}
	while (!dlist_is_empty(&delivered))
		forget_row(dlist_head_element(SideRow, delivered_node, &delivered));
}

/*
 * A prepared transaction keeps its lock on this table until it is finished.  VACUUM FULL
 * waits for that lock, and the worker would wait behind it; so it tries again in a second
 * instead.  NULL where the table is gone, or locked.
 */
static Relation
open_if_free(LOCKMODE mode, TimestampTz now)
{
	Relation	rel = NULL;

	switch (outbox_open_try(outbox_table_oid(OUTBOX_SIDE), mode, &rel))
	{
		case OPENING_DONE:
			outbox_scan_check_file(OUTBOX_SIDE, RelationGetFileNumber(rel));
			break;
		case OPENING_REFUSED:
			locked_until = TimestampTzPlusMilliseconds(now, POLL_MS);
			break;
		case OPENING_GONE:
			break;
	}
	return rel;
}

/* A resource is short, such as disk space: the refused items stay in memory meanwhile. */
static void
note_failure(ErrorData *error, TimestampTz now)
{
	char		message[256];

	locked_until = TimestampTzPlusMilliseconds(now, POLL_MS);
	snprintf(message, sizeof(message),
			 "what Redis refuses cannot be set aside in table uncache.outbox_side: %s",
			 log_text_cut(error->message, 150));
	shmem_note_error(shmem_my_database(), message);
	if (!failed)
		ereport(LOG, (errmsg("%s", message)));
	failed = true;
}

static void
write_turn(TimestampTz now)
{
	Writing		writing = {.now = now};
	ErrorData  *error;

	outbox_begin();
	writing.rel = open_if_free(RowExclusiveLock, now);
	if (writing.rel != NULL)
	{
		error = subtransaction_run(write_changes, &writing);
		if (error != NULL &&
			ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES)
			ReThrowError(error);
		if (error != NULL)
			note_failure(error, now);
		else
			failed = false;
		relation_close(writing.rel, NoLock);
		FAULT_POINT("side-inserted");
	}
	outbox_end();
	FAULT_POINT("side-written");
	if (now >= locked_until)
	{
		forget_written();
		pgstat_report_stat(true);	/* for autovacuum; this is rare */
	}
}

/*
 * --------------------------------------------------------------------------
 * Reading
 * --------------------------------------------------------------------------
 */

static bool
take_row(const OutboxRow *row, void *arg)
{
	TimestampTz now = *(TimestampTz *) arg;
	bool		known;
	SideRow    *side = enter_row(&row->tid, &known);

	side->found = true;
	if (!known && row->attempts > 0)
		set_keys(side, invalidation_count(row->items, row->len));
	if (known && side->state != SIDE_LOST &&
		(side->state != SIDE_WAITS || side->retry_at > now))
		return true;
	/* Of a large table the worker takes as many rows as memory has room for. */
	if (!sink->has_room())
	{
		set_waiting(side, SIDE_LOST, now);
		return true;
	}
	leave_state(side);
	sink->take(row);
	return true;
}

/* Forget rows that another session has deleted. */
static void
forget_unfound(void)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;

	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		if (!row->found && (row->state == SIDE_WAITS || row->state == SIDE_LOST))
			forget_row(row);
		else
			row->found = false;
	}
}

/* Take those that are due, without reading the others. */
static void
take_due(Relation rel, TimestampTz now)
{
	while (!pairingheap_is_empty(waiting) && sink->has_room())
	{
		SideRow    *row = pairingheap_container(SideRow, heap_node, pairingheap_first(waiting));

		if (row->retry_at > now)
			break;
		row->found = false;
		outbox_scan_read_row(rel, OUTBOX_SIDE, &row->tid, take_row, &now);
		if (!row->found)
			forget_row(row);
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
	/* First, so that the next poll sees a transaction that commits in between. */
	note_running(rel);
	outbox_scan_read(rel, OUTBOX_SIDE, 0, RelationGetNumberOfBlocks(rel),
					 look ? READING_NEWS : READING_AGAIN, take_row, &now);
	forget_unfound();
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
	Relation	rel = open_if_free(AccessShareLock, now);

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

/* When there is something to read next; what has no room now waits for answers. */
static TimestampTz
next_due(void)
{
	TimestampTz due = DT_NOEND;

	if (!pairingheap_is_empty(waiting) && sink->has_room())
		due = pairingheap_container(SideRow, heap_node, pairingheap_first(waiting))->retry_at;
	return in_progress ? Min(due, poll_at) : due;
}

TimestampTz
outbox_side_run(TimestampTz now, bool connected)
{
	if (now < locked_until)
		return locked_until;

	/* What is written has to be committed: not with a beat. */
	if ((nrefused > 0 || ndelivered > 0) && !IsTransactionState())
		write_turn(now);
	if (!connected)
		return DT_NOEND;

	if (now >= locked_until && (look || next_due() <= now))
		read_turn(now);
	return now < locked_until ? locked_until : next_due();
}

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

	if (discarding->xid != 0 && discarding->xid != row->xid)
		return true;
	known = enter_row(&row->tid, &found);
	if (known->state == SIDE_DELIVERED)
		return true;
	/* A row that is under way ends as delivered, whatever Redis answers (delivery_discard()). */
	if (!found || known->state == SIDE_WAITS || known->state == SIDE_LOST)
		set_delivered(known);
	if (discarding->xid != 0 || row->chunk == 0)
		discarding->transactions++;
	return true;
}

static void
discard_refused(uint64 xid)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		if (xid != 0 && xid != from->row.xid)
			continue;
		if (from->row.table == OUTBOX_SIDE)
			outbox_side_finished(&from->row.tid, true);
		else
			delivery_map_set(from->row.table, &from->row.tid, ROW_DELIVERED);
		dlist_delete(&from->node);
		nrefused--;
		pfree(from);
	}
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
	HASH_SEQ_STATUS scan;
	SideRow    *row;

	heap_truncate_one_rel(rel);
	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
		forget_row(row);
	outbox_damage_forget_table(OUTBOX_SIDE);
}

uint64
outbox_side_discard(uint64 xid)
{
	Discarding	discarding = {.xid = xid};
	Relation	rel;
	bool		is_locked;

	discard_refused(xid);
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
