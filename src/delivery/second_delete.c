/*
 * second_delete.c
 *	  Deleting delivered keys once more, uncache.second_delete_delay later.
 *
 * A reader that has read the old row before the commit, and stores it after the
 * delete, leaves a stale value.  An application that can't use fenced fills may bound how
 * long the value stays, by having the key deleted again when such a reader should be done.  That is
 * luck, not proof, and so this is kept simple: rows wait in memory, in the order in which they
 * were delivered.  A worker that ends forgets them, but its successor sends all rows again that
 * the outbox still holds.  When too many wait, the oldest are deleted early, and the log says so.
 *
 * Rows that were lost with a node wait until a node comes back, apart from the others: the other
 * nodes have got them, and shall not lose their keys again and again.  As many are kept as fit
 * into the same memory; of more the oldest are forgotten.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/log_throttle.h"
#include "delivery/delivery_int.h"
#include "outbox/outbox_tables.h"
#include "settings/settings.h"

/* Memory for rows that wait: some 200,000 transactions of one key. */
#define MAX_BYTES		(32 * 1024 * 1024)

/* Pause before a row is tried again that was lost although no node is away. */
#define RETRY_MS		1000

typedef struct Waiting
{
	dlist_node	node;
	TimestampTz due;
	OutboxRow	row;			/* row.items is a copy behind the struct */
} Waiting;

static MemoryContext context;
static dlist_head queue = DLIST_STATIC_INIT(queue); /* by due, mostly */
static dlist_head lost = DLIST_STATIC_INIT(lost);	/* wait for a node */
static size_t bytes = 0;
static size_t lost_bytes = 0;
static LogThrottle throttle;

void
second_delete_init(void)
{
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache second deletes",
									ALLOCSET_DEFAULT_SIZES);
}

static Waiting *
copy_row(const OutboxRow *row, TimestampTz due)
{
	Waiting    *waiting = MemoryContextAlloc(context, sizeof(Waiting) + row->len);

	waiting->due = due;
	waiting->row = *row;
	waiting->row.table = OUTBOX_MEMORY;
	waiting->row.waiter = -1;
	waiting->row.again = true;
	waiting->row.is_resend = false;
	waiting->row.answered = true;
	waiting->row.items = (char *) (waiting + 1);
	memcpy(waiting + 1, row->items, row->len);
	return waiting;
}

static size_t
size_of(const Waiting *waiting)
{
	return sizeof(Waiting) + waiting->row.len;
}

static void
remember(const OutboxRow *row, TimestampTz due)
{
	Waiting    *waiting = copy_row(row, due);

	dlist_push_tail(&queue, &waiting->node);
	bytes += size_of(waiting);
}

void
second_delete_add(const OutboxRow *row)
{
	Assert(row->table != OUTBOX_MEMORY);
	if (setting_second_delete_delay == 0)
		return;
	remember(row, TimestampTzPlusMilliseconds(clock_now(),
											  setting_second_delete_delay));
}

static void
leave_lost(Waiting *waiting)
{
	Assert(lost_bytes >= size_of(waiting));
	dlist_delete(&waiting->node);
	lost_bytes -= size_of(waiting);
}

/* All rows of a transaction at once: some fragments of a key would wait for the others. */
static void
forget_oldest_lost(void)
{
	uint64		xid = dlist_head_element(Waiting, node, &lost)->row.xid;

	while (!dlist_is_empty(&lost))
	{
		Waiting    *oldest = dlist_head_element(Waiting, node, &lost);

		if (oldest->row.xid != xid && lost_bytes <= MAX_BYTES)
			return;
		xid = oldest->row.xid;
		leave_lost(oldest);
		pfree(oldest);
	}
}

void
second_delete_lost(const OutboxRow *row, bool soon)
{
	TimestampTz due = TimestampTzPlusMilliseconds(clock_now(), RETRY_MS);
	Waiting    *waiting;

	Assert(row->table == OUTBOX_MEMORY);
	if (soon)
	{
		remember(row, due);
		return;
	}
	waiting = copy_row(row, due);
	dlist_push_tail(&lost, &waiting->node);
	lost_bytes += size_of(waiting);
	if (lost_bytes > MAX_BYTES)
		forget_oldest_lost();
}

/* The lost ones are the oldest of all, so they go before those that wait for their time. */
void
second_delete_try_lost(void)
{
	TimestampTz now = clock_now();

	while (!dlist_is_empty(&lost))
	{
		Waiting    *newest = dlist_tail_element(Waiting, node, &lost);

		leave_lost(newest);
		newest->due = now;
		dlist_push_head(&queue, &newest->node);
		bytes += size_of(newest);
	}
}

static void
tell_early(TimestampTz now)
{
	if (!log_throttle_passes(&throttle, NULL, now, LOG_THROTTLE_MS))
		return;
	ereport(LOG,
			(errmsg("keys are deleted a second time before uncache.second_delete_delay is over"),
			 errdetail("More of them wait than %d MB of memory can hold.",
					   MAX_BYTES / (1024 * 1024))));
}

TimestampTz
second_delete_run(TimestampTz now)
{
	while (!dlist_is_empty(&queue) && delivery_queue_has_room(PRIORITY_SCAN))
	{
		Waiting    *first = dlist_head_element(Waiting, node, &queue);

		if (first->due > now)
		{
			if (bytes <= MAX_BYTES)
				return first->due;
			tell_early(now);
		}
		Assert(bytes >= size_of(first));
		dlist_delete(&first->node);
		bytes -= size_of(first);
		delivery_queue_take(PRIORITY_SCAN, &first->row);
		pfree(first);
	}
	return DT_NOEND;
}

bool
second_delete_has_any(void)
{
	return !dlist_is_empty(&queue) || !dlist_is_empty(&lost);
}
