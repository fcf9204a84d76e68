/*
 * outbox_side_rows.c
 *	  Which rows of the side table the worker knows, and when each is due.
 *
 * A row is found by its tid.  Those that wait are in a heap by the time at which they are tried
 * again, those that are delivered in a list until they are deleted from the table:
 *
 *		SENT --> DELIVERED --> deleted, forgotten
 *		  |  \-> LOST, after a pause SENT again
 *		  \----> written anew, as a row that WAITS, with what was refused of it
 *
 * All of it is in memory.  After a crash the table is read and every row of it is sent again.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "outbox/outbox_side_int.h"
#include "shmem/shmem.h"

static MemoryContext context;
static HTAB *rows;
static dlist_head delivered = DLIST_STATIC_INIT(delivered);
static int	ndelivered = 0;		/* rows in it */
static pairingheap *waiting;	/* rows that are to be tried again, the first one on top */

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
outbox_side_rows_init(void)
{
	MemoryContext old_context;

	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache side rows",
									ALLOCSET_DEFAULT_SIZES);
	rows = make_rows();
	old_context = MemoryContextSwitchTo(context);
	waiting = pairingheap_allocate(compare_retries, NULL);
	MemoryContextSwitchTo(old_context);
	pg_atomic_write_u64(&shmem_my_database()->stats.keys_refused_now, 0);
}

/* The level that the view shows is the sum of all rows known. */
void
outbox_side_rows_set_keys(SideRow *row, uint32 keys)
{
	pg_atomic_fetch_add_u64(&shmem_my_database()->stats.keys_refused_now, (int64) keys - row->keys);
	row->keys = keys;
}

SideRow *
outbox_side_rows_enter(const ItemPointerData *tid, bool *found)
{
	SideRow    *row = hash_search(rows, tid, HASH_ENTER, found);

	Assert(ItemPointerIsValid(tid));
	if (!*found)
	{
		row->state = SIDE_SENT;
		row->keys = 0;
	}
	return row;
}

void
outbox_side_rows_set_sent(SideRow *row)
{
	if (row->state == SIDE_WAITS || row->state == SIDE_LOST)
		pairingheap_remove(waiting, &row->heap_node);
	else if (row->state == SIDE_DELIVERED)
	{
		Assert(ndelivered > 0);
		dlist_delete(&row->delivered_node);
		ndelivered--;
	}
	row->state = SIDE_SENT;
}

void
outbox_side_rows_set_waiting(SideRow *row, SideState state, TimestampTz retry_at)
{
	Assert(state == SIDE_WAITS || state == SIDE_LOST);
	outbox_side_rows_set_sent(row);
	row->state = state;
	row->retry_at = retry_at;
	pairingheap_add(waiting, &row->heap_node);
}

void
outbox_side_rows_set_delivered(SideRow *row)
{
	outbox_side_rows_set_sent(row);
	row->state = SIDE_DELIVERED;
	dlist_push_tail(&delivered, &row->delivered_node);
	ndelivered++;
}

void
outbox_side_rows_forget(SideRow *row)
{
	Assert(outbox_side_rows_find(&row->tid) == row);
	outbox_side_rows_set_sent(row);
	outbox_side_rows_set_keys(row, 0);
	hash_search(rows, &row->tid, HASH_REMOVE, NULL);
}

SideRow *
outbox_side_rows_find(const ItemPointerData *tid)
{
	return hash_search(rows, tid, HASH_FIND, NULL);
}

void
outbox_side_rows_forget_unfound(void)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;

	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		if (!row->found && (row->state == SIDE_WAITS || row->state == SIDE_LOST))
			outbox_side_rows_forget(row);
		else
			row->found = false;
	}
}

void
outbox_side_rows_forget_all(void)
{
	HASH_SEQ_STATUS scan;
	SideRow    *row;

	hash_seq_init(&scan, rows);
	while ((row = hash_seq_search(&scan)) != NULL)
		outbox_side_rows_forget(row);
	Assert(ndelivered == 0 && pairingheap_is_empty(waiting));
}

SideRow *
outbox_side_rows_next(void)
{
	SideRow    *next;

	if (pairingheap_is_empty(waiting))
		return NULL;
	next = pairingheap_container(SideRow, heap_node, pairingheap_first(waiting));
	Assert(next->state == SIDE_WAITS || next->state == SIDE_LOST);
	return next;
}

int
outbox_side_rows_delivered(void)
{
	return ndelivered;
}

SideRow *
outbox_side_rows_first_delivered(void)
{
	Assert(dlist_is_empty(&delivered) == (ndelivered == 0));
	if (dlist_is_empty(&delivered))
		return NULL;
	return dlist_head_element(SideRow, delivered_node, &delivered);
}

int
outbox_side_rows_undelivered(void)
{
	Assert(hash_get_num_entries(rows) >= ndelivered);
	return (int) hash_get_num_entries(rows) - ndelivered;
}

void
outbox_side_rows_each_delivered(void (*function) (const SideRow *row, void *arg), void *arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &delivered)
		function(dlist_container(SideRow, delivered_node, iter.cur), arg);
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
			outbox_side_rows_set_waiting(row, SIDE_WAITS, 0);
	}
}

void
outbox_side_finished(const ItemPointerData *tid, bool is_delivered)
{
	SideRow    *row = outbox_side_rows_find(tid);

	if (row == NULL)
		return;
	if (is_delivered)
		outbox_side_rows_set_delivered(row);
	else
		outbox_side_rows_set_waiting(row, SIDE_LOST,
									 TimestampTzPlusMilliseconds(clock_now(), RETRY_FIRST_MS));
}
