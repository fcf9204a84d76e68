/*
 * delivery.c
 *	  An outbox row on its way: its parts, and how they end.
 *
 * A row becomes a Delivery, with a part for each of its items and targets.  An answer of Redis,
 * or the loss of a link, ends parts; here they are counted, and lost or refused items are
 * noted.  A delivery whose last part has ended goes onto a list, and so does one of which only
 * parts are left that no session waits for (a node is slow; the delete is answered, and what is
 * left is to tell the stream of it).  settle.c takes them from the list once or more in a
 * turn of the worker and decides what follows.  So an answer's callback takes, settles and frees
 * no row.
 *
 * Until it is settled a delivery counts as under way for wait_barrier.c, outbox_truncate.c and
 * reconnect.c, and its bytes stay.
 *
 * All of this is in memory.  After a crash the worker reads the whole outbox and delivers again
 * also the rows that had been delivered.  delivery_queue.c limits how many deliveries there are.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/resend.h"
#include "outbox/delivery_map.h"
#include "delivery/delivery_int.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_side.h"
#include "redis/redis_error.h"

static MemoryContext context;

static dlist_head all_deliveries = DLIST_STATIC_INIT(all_deliveries);
static dlist_head to_settle = DLIST_STATIC_INIT(to_settle);

static uint64 next_number = 1;

void
delivery_init(void)
{
	Assert(context == NULL);
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
	return delivery->row.waiter >= 0 || delivery->priority == PRIORITY_SCAN;
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

Delivery *
delivery_new(DeliveryPriority priority, const OutboxRow *row)
{
	Delivery   *delivery = MemoryContextAllocZero(context, sizeof(Delivery) + row->len);

	Assert(row->table >= 0 && row->table <= OUTBOX_MEMORY);
	Assert(row->table != OUTBOX_MEMORY || (row->waiter < 0 && row->answered));
	delivery->number = next_number++;
	delivery->priority = priority;
	delivery->row = *row;
	delivery->row.items = (char *) (delivery + 1);
	memcpy(delivery + 1, row->items, row->len);
	invalidation_reader_init(&delivery->reader, delivery->row.items, row->len);
	delivery->parts_left = 1;

	dlist_push_tail(&all_deliveries, &delivery->all_node);
	if (row->table < OUTBOX_TABLES)
		delivery_map_take(row->table, &row->tid, row->answered);
	return delivery;
}

/*
 * --------------------------------------------------------------------------
 * Parts
 * --------------------------------------------------------------------------
 */

static void
note_lost(Delivery *delivery, PartOutcome outcome)
{
	bool		for_now = outcome == PART_RETRY_SOON;

	Assert(outcome != PART_DELIVERED && outcome != PART_REFUSED);
	if (!delivery->lost)
	{
		delivery->lost_before = resend_releases();
		delivery->lost_for_now = for_now;
	}
	delivery->lost = true;
	delivery->lost_for_now &= for_now;
	if (for_now)
		resend_release_soon();
}

void
delivery_note_lost(Delivery *delivery, PartOutcome outcome)
{
	note_lost(delivery, outcome);
	delivery->lost_delete = true;
	delivery->lost_under_way |= outcome == PART_NO_REPLY || outcome == PART_UNCONFIRMED;
}

/* Several targets may refuse the same item.  Of a fragment, "item" is not in the row. */
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
	Assert(item->bytes >= delivery->row.items && at <= delivery->row.len);
	delivery->refused[at / 8] |= 1 << at % 8;
}

bool
delivery_is_unawaited(const Delivery *delivery)
{
	return delivery->parts_unawaited > 0 &&
		delivery->parts_left == delivery->parts_unawaited + delivery->parts_announced;
}

bool
delivery_is_announced(const Delivery *delivery)
{
	return delivery->parts_announced > 0 && delivery->parts_left == delivery->parts_announced;
}

/* Its parts have changed: settle.c has to see it, if something follows from that. */
static void
list_to_settle(Delivery *delivery)
{
	if (delivery->to_settle || (delivery->parts_left > 0 && !delivery_is_unawaited(delivery) &&
								!delivery_is_announced(delivery)))
		return;
	delivery->to_settle = true;
	dlist_push_tail(&to_settle, &delivery->settle_node);
}

static void
end_parts(Delivery *delivery, uint32 parts)
{
	Assert(delivery->parts_left >= delivery->parts_announced + parts);
	delivery->parts_left -= parts;
	list_to_settle(delivery);
}

void
delivery_part_done(Delivery *delivery, PartOutcome outcome, const Invalidation *item)
{
	Assert(delivery != NULL);
	for (; delivery; delivery = delivery->joined)
	{
		if (outcome == PART_REFUSED)
			remember_refused(delivery, item);
		else if (outcome != PART_DELIVERED)
			delivery_note_lost(delivery, outcome);
		end_parts(delivery, 1);
	}
}

void
delivery_all_sent(Delivery *delivery)
{
	end_parts(delivery, 1);
}

void
delivery_part_unawaited(Delivery *delivery)
{
	delivery->parts_unawaited++;
	Assert(delivery->parts_unawaited <= delivery->parts_left);
}

void
delivery_part_awaited(Delivery *delivery)
{
	Assert(delivery->parts_unawaited > 0);
	delivery->parts_unawaited--;
}

void
delivery_part_announced(Delivery *delivery, int parts)
{
	Assert(parts > 0);
	for (; delivery; delivery = delivery->joined)
	{
		delivery->parts_announced += parts;
		Assert(delivery->parts_unawaited + delivery->parts_announced <= delivery->parts_left);
		list_to_settle(delivery);
	}
}

void
delivery_entry_done(Delivery *delivery, int parts, PartOutcome outcome)
{
	Assert(parts > 0 && outcome != PART_REFUSED);
	for (; delivery; delivery = delivery->joined)
	{
		Assert(delivery->parts_announced >= (uint32) parts);
		delivery->parts_announced -= parts;
		if (outcome != PART_DELIVERED)
			note_lost(delivery, outcome);
		end_parts(delivery, parts);
	}
}

void
delivery_part_added(Delivery *delivery)
{
	for (; delivery; delivery = delivery->joined)
	{
		Assert(delivery->parts_left > 0);
		delivery->parts_left++;
	}
}

Delivery *
delivery_next_to_settle(void)
{
	Delivery   *delivery;

	if (dlist_is_empty(&to_settle))
		return NULL;
	delivery = dlist_container(Delivery, settle_node, dlist_pop_head_node(&to_settle));
	Assert(delivery->to_settle);
	delivery->to_settle = false;
	return delivery;
}

void
delivery_free(Delivery *delivery)
{
	Assert(delivery->parts_left == 0 && !delivery->to_settle);
	Assert(delivery->parts_unawaited == 0 && delivery->parts_announced == 0);
	dlist_delete(&delivery->all_node);
	if (delivery->row.table < OUTBOX_TABLES)
		delivery_map_leave(delivery->row.table);
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
 * All deliveries
 * --------------------------------------------------------------------------
 */

/* Rows that have a delivery, or whose refused items are about to be written, do not wait. */
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
							 delivery_map_when_sent(delivery->row.answered));
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
