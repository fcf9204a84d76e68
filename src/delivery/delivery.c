/*
 * delivery.c
 *	  An outbox row on its way: its parts, and what becomes of it.
 *
 * A row becomes a Delivery, with a part for each of its items and targets.  It is
 * finished when all of its parts are:
 *
 *		all delivered	the row is delivered, its waiter is answered
 *		some lost		a node is away: the row waits until it is back, and is then
 *						sent again, to nodes that lack something (lacking.h); its
 *						waiter is let go now
 *		some refused	what was refused moves to the side table (outbox_side.c)
 *
 * A waiter is let go, too, when nothing is left but parts that nobody waits for.
 *
 * What is known here of a row is in memory only.  After a crash the outbox is read
 * as a whole, and what was delivered already is delivered again.  How many deliveries
 * there are is limited by who takes rows (delivery_queue.c).
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/resend.h"
#include "outbox/delivery_map.h"
#include "delivery/delivery_int.h"
#include "delivery/lacking.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_side.h"
#include "delivery/second_delete.h"
#include "shmem/counters.h"
#include "topology/target.h"
#include "redis/redis_error.h"
#include "shmem/wait_slots.h"

static MemoryContext context;

static dlist_head all_deliveries = DLIST_STATIC_INIT(all_deliveries);

static uint64 next_number = 1;
static int	count_of_table[OUTBOX_MEMORY + 1];
static uint64 taken_of_table[OUTBOX_MEMORY + 1];
static TimestampTz last_of_table[OUTBOX_MEMORY + 1];

void
delivery_init(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache deliveries",
									ALLOCSET_DEFAULT_SIZES);
}

uint64
delivery_xid(const Delivery *delivery)
{
	return delivery->row.xid;
}

bool
delivery_is_awaited(const Delivery *delivery)
{
	return delivery->row.waiter >= 0 || delivery->class == PRIORITY_SCAN;
}

uint64
delivery_next_number(void)
{
	return next_number;
}

uint64
delivery_oldest_number(void)
{
	if (dlist_is_empty(&all_deliveries))
		return next_number;
	return dlist_head_element(Delivery, all_node, &all_deliveries)->number;
}

int
delivery_count_of_table(int table)
{
	return count_of_table[table];
}

uint64
delivery_taken_of_table(int table)
{
	return taken_of_table[table];
}

TimestampTz
delivery_last_of_table(int table)
{
	return last_of_table[table];
}

Delivery *
delivery_new(DeliveryPriority class, const DeliveryRow *row)
{
	Delivery   *delivery = MemoryContextAllocZero(context, sizeof(Delivery) + row->len);

	delivery->number = next_number++;
	delivery->class = class;
	delivery->row = *row;
	delivery->row.items = (char *) (delivery + 1);
	memcpy(delivery + 1, row->items, row->len);
	invalidation_reader_init(&delivery->reader, delivery->row.items, row->len);
	delivery->parts_left = 1;

	dlist_push_tail(&all_deliveries, &delivery->all_node);
	count_of_table[row->table]++;
	taken_of_table[row->table]++;
	if (row->table < OUTBOX_TABLES)
		delivery_map_set(row->table, &row->tid, delivered_when_sent(row->answered));
	return delivery;
}

/*
 * --------------------------------------------------------------------------
 * The end of a delivery
 * --------------------------------------------------------------------------
 */

static void
set_row_state(Delivery *delivery, RowState state)
{
	if (delivery->row.table == OUTBOX_SIDE)
		outbox_side_finished(&delivery->row.tid, state == ROW_DELIVERED);
	else if (delivery->row.table < OUTBOX_TABLES)
		delivery_map_set(delivery->row.table, &delivery->row.tid, state);
}

static void
count_delivered(Delivery *delivery)
{
	last_of_table[delivery->row.table] = clock_now();
	if (delivery->row.again)
	{
		/* How long it took when it was delivered first is not known. */
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.retries, 1);
		return;
	}
	if (delivery->row.chunk == 0)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.transactions, 1);
	counters_latency(&MyDatabaseState->stats, GetCurrentTimestamp() - delivery->row.at);
}

static void
finish_lost(Delivery *delivery)
{
	/* Its node is back already, perhaps. */
	bool		soon = delivery->lost_for_now || delivery->lost_before != resend_releases();

	resend_wait();
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.retries, 1);
	if (delivery->row.table == OUTBOX_MEMORY)
		second_delete_lost(&delivery->row, soon);
	else if (delivery->row.table == OUTBOX_SIDE)
		set_row_state(delivery, ROW_UNSENT);	/* it has pauses of its own */
	else if (soon)
		resend_release_soon();

	/* Who waits for what is sent again soon goes on waiting. */
	if (!delivery->lost_for_now && !delivery->row.answered)
		wait_slots_let_go(delivery->row.xid, delivery->row.waiter,
					   delivery->class == PRIORITY_SCAN, delivery->lost_under_way);
}

static void
finish_delivered(Delivery *delivery)
{
	if (delivery->to_repeat && !delivery->discarded)
	{
		set_row_state(delivery, ROW_RESEND_FORGOTTEN);
		resend_release_soon();
	}
	else
		set_row_state(delivery, ROW_DELIVERED);
	count_delivered(delivery);
	/* Counted twice it would stand for another row, which is not delivered yet. */
	if (!delivery->row.answered)
		wait_slots_row_delivered(delivery->row.xid, delivery->row.waiter);
	if (delivery->row.table != OUTBOX_MEMORY)
		second_delete_add(&delivery->row);
}

/*
 * --------------------------------------------------------------------------
 * What was refused
 * --------------------------------------------------------------------------
 */

/* Several targets may refuse the same item.  "item" is one of the row, but of a fragment. */
static void
remember_refused(Delivery *delivery, const Invalidation *item)
{
	uint32		at;

	if (delivery->refused == NULL)
	{
		delivery->refused = MemoryContextAllocZero(context, delivery->row.len / 8 + 1);
		delivery->refused_error = MemoryContextStrdup(context, redis_error_last_refusal());
	}
	if (delivery->is_fragment)
		return;
	at = item->bytes - delivery->row.items;
	Assert(at <= delivery->row.len);
	delivery->refused[at / 8] |= 1 << at % 8;
}

static bool
was_refused(const Delivery *delivery, const Invalidation *item)
{
	uint32		at = item->bytes - delivery->row.items;

	return (delivery->refused[at / 8] & 1 << at % 8) != 0;
}

/*
 * Give them to the side table: the refused items of the row, which take no more room than
 * the row does; a piece as it is, not what it makes with others.
 */
static void
move_refused(const Delivery *delivery)
{
	char	   *items = MemoryContextAlloc(context, delivery->row.len);
	uint32		len = 0;
	Oid			rule;
	InvalidationReader	reader;
	Invalidation	item;

	invalidation_reader_init(&reader, delivery->row.items, delivery->row.len);
	while (invalidation_read(&reader, &item) > 0)
	{
		if (!delivery->is_fragment && !was_refused(delivery, &item))
			continue;
		len += invalidation_write(items + len, &item, len == 0 ? NULL : &rule);
		rule = item.rule;
	}
	if (delivery->row.attempts == 0)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys_refused, invalidation_count(items, len));
	outbox_side_refused(&delivery->row, items, len, delivery->refused_error, delivery->to_repeat);
	pfree(items);
}

/*
 * A row that was lost in part waits, so what was refused of it does not go to the
 * side table: it is to be sent again, too, and refused again.
 */
static void
note_refused_as_lacking(const Delivery *delivery)
{
	InvalidationReader	reader;
	Invalidation	item;

	if (delivery->is_fragment)
	{
		lacking_note_all();		/* the whole may be gone already */
		return;
	}
	invalidation_reader_init(&reader, delivery->row.items, delivery->row.len);
	while (invalidation_read(&reader, &item) > 0)
	{
		if (!was_refused(delivery, &item) || invalidation_traits(item.kind)->keys != INVALIDATION_KEYS_ITSELF)
			continue;
		for (int i = 0; i < target_count(); i++)
			lacking_note_key(target_at(i), item.bytes, item.len);
	}
}

/* A second delete is not kept; and what is there already is sent again as a whole. */
static bool
moves_to_side_table(const Delivery *delivery)
{
	return delivery->row.table != OUTBOX_MEMORY &&
		!(delivery->row.table == OUTBOX_SIDE && delivery->to_repeat);
}

/* Who waits has waited in vain, and nothing is sent again. */
static void
finish_discarded(Delivery *delivery)
{
	set_row_state(delivery, ROW_DELIVERED);
	wait_slots_let_go(delivery->row.xid, delivery->row.waiter, delivery->class == PRIORITY_SCAN, true);
}

static void
see_to_outcome(Delivery *delivery)
{
	if (delivery->discarded && (delivery->lost || delivery->refused))
	{
		finish_discarded(delivery);
		return;
	}
	if (delivery->lost && delivery->refused)
		note_refused_as_lacking(delivery);
	if (delivery->lost && delivery->to_repeat)
		lacking_note_again();
	if (delivery->lost)
		finish_lost(delivery);
	else if (delivery->refused && moves_to_side_table(delivery))
	{
		move_refused(delivery);
		wait_slots_refused(delivery->row.xid);
	}
	else
		finish_delivered(delivery);
}

static void
finish(Delivery *delivery)
{
	see_to_outcome(delivery);
	dlist_delete(&delivery->all_node);
	count_of_table[delivery->row.table]--;
	if (delivery->refused)
	{
		pfree(delivery->refused_error);
		pfree(delivery->refused);
	}
	if (delivery->assembled)
		pfree(delivery->assembled);
	pfree(delivery);
}

/*
 * --------------------------------------------------------------------------
 * Parts
 * --------------------------------------------------------------------------
 */

void
delivery_note_lost(Delivery *delivery, PartOutcome outcome)
{
	bool		for_now = outcome == PART_RETRY_SOON;

	if (!delivery->lost)
	{
		delivery->lost_before = resend_releases();
		delivery->lost_for_now = for_now;
	}
	delivery->lost = true;
	delivery->lost_for_now &= for_now;
	delivery->lost_under_way |= outcome == PART_NO_REPLY || outcome == PART_UNCONFIRMED;
	if (for_now)
		resend_release_soon();
}

/* Nothing is left but parts that nobody waits for. */
static void
let_go_if_late(Delivery *delivery)
{
	if (delivery->parts_late > 0 && delivery->parts_left == delivery->parts_late &&
		!delivery->row.answered)
		wait_slots_let_go(delivery->row.xid, delivery->row.waiter,
					   delivery->class == PRIORITY_SCAN, false);
}

void
delivery_part_done(Delivery *delivery, PartOutcome outcome, const Invalidation *item)
{
	while (delivery)
	{
		Delivery   *joined = delivery->joined;

		if (outcome == PART_REFUSED)
			remember_refused(delivery, item);
		else if (outcome != PART_DELIVERED)
			delivery_note_lost(delivery, outcome);

		Assert(delivery->parts_left > 0);
		if (--delivery->parts_left == 0)
			finish(delivery);
		else
			let_go_if_late(delivery);
		delivery = joined;
	}
}

void
delivery_all_sent(Delivery *delivery)
{
	if (--delivery->parts_left == 0)
		finish(delivery);
	else
		let_go_if_late(delivery);
}

void
delivery_part_unawaited(Delivery *delivery)
{
	delivery->parts_late++;
}

void
delivery_part_awaited(Delivery *delivery)
{
	delivery->parts_late--;
}

/*
 * --------------------------------------------------------------------------
 * All deliveries
 * --------------------------------------------------------------------------
 */

/* What has a delivery, or is about to be written to the side table, stays as it is. */
void
delivery_release_waiting(void)
{
	dlist_iter	iter;

	if (!resend_release())
		return;
	delivery_map_resume_sent();
	dlist_foreach(iter, &all_deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, all_node, iter.cur);

		if (delivery->row.table < OUTBOX_TABLES)
			delivery_map_set(delivery->row.table, &delivery->row.tid,
						  delivered_when_sent(delivery->row.answered));
	}
	outbox_side_keep_refused();
}

void
delivery_repeat_under_way(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_deliveries)
		dlist_container(Delivery, all_node, iter.cur)->to_repeat = true;
	outbox_side_repeat_unwritten();
}

void
delivery_discard(uint64 xid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, all_node, iter.cur);

		delivery->discarded |= xid == 0 || xid == delivery->row.xid;
	}
}
