/*
 * outbox_side_write.c
 *	  Writing to the side table: rows that Redis has refused are stored, rows that are
 *	  delivered are deleted.
 *
 * Both are done in one transaction of the worker, in a turn in which no beat holds one.  A
 * refused row that came from another table counts as done there only after that commit: a crash
 * at any moment leaves it in at least one place.  Where the disk is full refused rows stay in
 * memory, last_error and once the log say so, and the worker tries again in a second.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/fault_point.h"
#include "base/invalidation.h"
#include "base/log_text.h"
#include "base/subtransaction.h"
#include "outbox/delivery_map.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side_int.h"
#include "outbox/outbox_tables.h"

/* Before the worker tries again what failed, or is locked. */
#define LOCKED_MS			1000

/* The longest pause before what was refused is tried again. */
#define RETRY_LAST_MS		(60 * 1000)

/* Refused items of a row: to be written here, and then finished where they came from. */
typedef struct RefusedRow
{
	dlist_node	node;
	bool		to_repeat;		/* to be sent again from where it came from */
	ItemPointerData written;	/* where write_changes() has put it */
	char		error[OUTBOX_MAX_ERROR + 1];
	OutboxRow	row;			/* row.items is a copy behind the struct */
} RefusedRow;

/* A row has room for the refused items, its other columns and the text of the error. */
StaticAssertDecl(OUTBOX_ROW_ITEMS + OUTBOX_MAX_ERROR + 100 <= MaxHeapTupleSize,
				 "a refused row must fit into a page");

static MemoryContext context;
static dlist_head refused = DLIST_STATIC_INIT(refused);
static int	nrefused = 0;
static TimestampTz locked_until = 0;	/* the table is not tried before */
static bool released = false;	/* outbox_side_has_released() */
static bool failed = false;		/* the last writing did; it was logged */

void
outbox_side_write_init(void)
{
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache refused rows",
									ALLOCSET_DEFAULT_SIZES);
}

int
outbox_side_unwritten(void)
{
	Assert(dlist_is_empty(&refused) == (nrefused == 0));
	return nrefused;
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

	Assert(len > 0 && len <= OUTBOX_ROW_ITEMS && row->table <= OUTBOX_SIDE);
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

/*
 * --------------------------------------------------------------------------
 * Writing
 * --------------------------------------------------------------------------
 */

static TimestampTz
retry_time(TimestampTz now, int32 attempts)
{
	int			delay = RETRY_FIRST_MS;

	Assert(attempts > 0);
	for (int i = 1; i < attempts && delay < RETRY_LAST_MS; i++)
		delay *= 2;
	return TimestampTzPlusMilliseconds(now, Min(delay, RETRY_LAST_MS));
}

static void
insert_refused(Relation rel, RefusedRow *from)
{
	Datum		values[OUTBOX_SIDE_NCOLUMNS];
	bool		nulls[OUTBOX_SIDE_NCOLUMNS] = {false};
	bytea	   *items = palloc(VARHDRSZ + from->row.len);
	HeapTuple	tuple;

	Assert(from->row.attempts > 0);
	Assert(CheckRelationLockedByMe(rel, RowExclusiveLock, true));
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
	from->written = tuple->t_self;
}

static void
delete_row(const SideRow *row, void *rel)
{
	ItemPointerData tid = row->tid;

	Assert(row->state == SIDE_DELIVERED);
	simple_heap_delete(rel, &tid);
}

/* Store what was refused and delete what is finished, in one transaction. */
static void
write_changes(void *arg)
{
	Relation	rel = arg;
	dlist_iter	iter;

	dlist_foreach(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		insert_refused(rel, from);
		if (from->row.table == OUTBOX_SIDE)
			simple_heap_delete(rel, &from->row.tid);
	}
	outbox_side_rows_each_delivered(delete_row, rel);
	FAULT_POINT("side-inserting");
}

/* The refused items are written: finish the row where it came from. */
static void
forget_refused(RefusedRow *from, bool to_repeat)
{
	SideRow    *row;

	Assert(nrefused > 0 && from->row.table <= OUTBOX_SIDE);
	if (from->row.table == OUTBOX_SIDE)
	{
		row = outbox_side_rows_find(&from->row.tid);
		if (row != NULL)
			outbox_side_rows_forget(row);
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

/* Its row is committed: it waits there to be tried again. */
static void
note_written(const RefusedRow *from, TimestampTz now)
{
	bool		found;
	SideRow    *row = outbox_side_rows_enter(&from->written, &found);

	outbox_side_rows_set_waiting(row, SIDE_WAITS, retry_time(now, from->row.attempts));
	outbox_side_rows_set_keys(row, invalidation_count(from->row.items, from->row.len));
}

/* The transaction of write_changes() has committed, or there is no table to write to. */
static void
forget_written(bool is_written, TimestampTz now)
{
	SideRow    *delivered;

	Assert(!IsTransactionState());
	while (!dlist_is_empty(&refused))
	{
		RefusedRow *from = dlist_head_element(RefusedRow, node, &refused);

		if (is_written)
			note_written(from, now);
		forget_refused(from, from->to_repeat);
	}
	while ((delivered = outbox_side_rows_first_delivered()) != NULL)
		outbox_side_rows_forget(delivered);
}

Relation
outbox_side_write_open(LOCKMODE mode, TimestampTz now)
{
	Relation	rel = NULL;

	switch (outbox_open_try(outbox_table_oid(OUTBOX_SIDE), mode, &rel))
	{
		case OPENING_DONE:
			outbox_scan_check_file(OUTBOX_SIDE, RelationGetFileNumber(rel));
			break;
		case OPENING_REFUSED:
			locked_until = TimestampTzPlusMilliseconds(now, LOCKED_MS);
			break;
		case OPENING_GONE:
			break;
	}
	return rel;
}

TimestampTz
outbox_side_write_locked_until(void)
{
	return locked_until;
}

/* A resource is short, such as disk space: the refused items stay in memory meanwhile. */
static void
note_failure(ErrorData *error, TimestampTz now)
{
	char		message[256];

	locked_until = TimestampTzPlusMilliseconds(now, LOCKED_MS);
	snprintf(message, sizeof(message),
			 "what Redis refuses cannot be set aside in table uncache.outbox_side: %s",
			 log_text_cut(error->message, 150));
	shmem_note_error(shmem_my_database(), message);
	if (!failed)
		ereport(LOG, (errmsg("%s", message)));
	failed = true;
}

void
outbox_side_write_run(TimestampTz now)
{
	Relation	rel;
	ErrorData  *error;

	Assert(!IsTransactionState());
	outbox_begin();
	rel = outbox_side_write_open(RowExclusiveLock, now);
	if (rel != NULL)
	{
		error = subtransaction_run(write_changes, rel);
		if (error != NULL &&
			ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES)
			ReThrowError(error);
		if (error != NULL)
			note_failure(error, now);
		else
			failed = false;
		relation_close(rel, NoLock);
		FAULT_POINT("side-inserted");
	}
	outbox_end();
	FAULT_POINT("side-written");
	if (now >= locked_until)
	{
		forget_written(rel != NULL, now);
		pgstat_report_stat(true);	/* for autovacuum; this is rare */
	}
}

void
outbox_side_write_discard(uint64 xid)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &refused)
	{
		RefusedRow *from = dlist_container(RefusedRow, node, iter.cur);

		if (xid != 0 && xid != from->row.xid)
			continue;
		Assert(nrefused > 0);
		if (from->row.table == OUTBOX_SIDE)
			outbox_side_finished(&from->row.tid, true);
		else
			delivery_map_set(from->row.table, &from->row.tid, ROW_DELIVERED);
		dlist_delete(&from->node);
		nrefused--;
		pfree(from);
	}
}
