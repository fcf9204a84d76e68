/*
 * delivery_queue.c
 *	  Takes outbox rows and sends their items to Redis, those that sessions wait for first.
 *
 * Rows that were taken wait in two queues.  When there is room their items are given on: keys to
 * batch_gather.c, patterns to pattern_queue.c, fragments of either to delivery_fragments.c first.
 * Each item is a part of the row's delivery; when the last part has ended settle.c decides what
 * follows.
 *
 * Many batches are under way at once.  Rows from the ring are always sent before rows from a
 * scan, and of the latter only a few batches are under way at a time, so that a small
 * transaction never waits behind a large one for longer than SCAN_BATCHES take.
 *
 * When all links are gone the queues are emptied, too: every row is lost, and a scan of the
 * outbox will find it, as after a crash.  Of a row that cannot be read to its end the readable
 * items are sent, and outbox_damage.c stands in for the rest.
 */
#include "postgres.h"

#include "lib/ilist.h"

#include "delivery/batch_int.h"
#include "outbox/outbox_damage.h"
#include "delivery/delivery_int.h"
#include "base/fault_point.h"
#include "topology/node.h"
#include "delivery/refusal.h"
#include "delivery/stream.h"
#include "topology/target.h"

/* Most rows of a queue: enough for several turns; with their items 40 MB. */
#define COMMIT_ROWS			4096
#define SCAN_ROWS			1024

static dlist_head queues[DELIVERY_PRIORITIES] = {
	DLIST_STATIC_INIT(queues[PRIORITY_COMMIT]),
	DLIST_STATIC_INIT(queues[PRIORITY_SCAN]),
};
static int	queued[DELIVERY_PRIORITIES];

/*
 * Patterns that are given on in one turn: some 100 microseconds.  A row has a hundred, and
 * pattern_queue.c takes any number.
 */
#define PATTERNS_PER_TURN	500
static int	patterns_given = 0;

void
delivery_queue_init(void)
{
	delivery_init();
	delivery_fragments_init();
	batch_init();
	stream_init();
	refusal_init();
	pattern_queue_init();
}

bool
delivery_queue_has_room(DeliveryPriority priority)
{
	return queued[priority] < (priority == PRIORITY_COMMIT ? COMMIT_ROWS : SCAN_ROWS);
}

bool
delivery_queue_wants_turn(void)
{
	return patterns_given >= PATTERNS_PER_TURN;
}

bool
delivery_queue_has_unsent(void)
{
	return queued[PRIORITY_COMMIT] + queued[PRIORITY_SCAN] > 0;
}

void
delivery_queue_take(DeliveryPriority priority, const OutboxRow *row)
{
	Delivery   *delivery = delivery_new(priority, row);

	Assert(delivery->priority == priority && queued[priority] >= 0);
	dlist_push_tail(&queues[priority], &delivery->queue_node);
	queued[priority]++;
}

static bool
has_room_for_scan(void)
{
	return delivery_queue_has_room(PRIORITY_SCAN);
}

static void
take_from_scan(const OutboxRow *row)
{
	delivery_queue_take(PRIORITY_SCAN, row);
}

const OutboxSink delivery_queue_sink = {
	.has_room = has_room_for_scan,
	.take = take_from_scan,
};

static bool gather_item(Delivery *delivery, const Invalidation *item, bool is_whole);

/* A fragment of an item, which is given on when all its fragments are here. */
static bool
gather_fragment(Delivery *delivery, const Invalidation *fragment)
{
	Invalidation whole;

	switch (delivery_fragments_add(delivery, fragment, &whole))
	{
		case FRAGMENT_DAMAGED:
			return false;
		case FRAGMENT_WAITS:
			return true;
		case FRAGMENT_COMPLETES:
			return gather_item(delivery, &whole, true);
	}
	return false;
}

/* The item is given on in so many parts.  Returns whether only to nodes that need it again. */
static bool
add_parts(Delivery *delivery, int parts, bool is_whole)
{
	Assert(parts > 0 && delivery->parts_left > 0);
	if (is_whole)
		return delivery_fragments_parts(delivery, parts);
	delivery->parts_left += parts;
	return delivery->row.is_resend;
}

/*
 * Give one item on.  It is in the delivery's row, or ("is_whole") the last of its fragments is.
 * Returns false where it is damaged.
 */
static bool
gather_item(Delivery *delivery, const Invalidation *item, bool is_whole)
{
	bool		is_resend;

	switch (invalidation_traits(item->kind)->command)
	{
		case INVALIDATION_UNLINK:
			is_resend = add_parts(delivery, target_count(), is_whole);
			batch_add_key(delivery, delivery->priority, item, is_resend);
			return true;
		case INVALIDATION_SCAN:
			(void) add_parts(delivery, 1, is_whole);
			patterns_given++;
			pattern_queue_add(delivery, item);
			return true;
		case INVALIDATION_JOIN:
			return gather_fragment(delivery, item);
	}
	return false;
}

/* All items of the delivery are under way (or can't be read). */
static void
all_sent(Delivery *delivery)
{
	dlist_delete(&delivery->queue_node);
	Assert(queued[delivery->priority] > 0);
	queued[delivery->priority]--;
	delivery_all_sent(delivery);
}

/* Send from one queue while more batches of its priority may be under way. */
static void
send_from(DeliveryPriority priority)
{
	while (!dlist_is_empty(&queues[priority]) && batch_has_room(priority) &&
		   patterns_given < PATTERNS_PER_TURN)
	{
		Delivery   *delivery = dlist_head_element(Delivery, queue_node, &queues[priority]);
		Invalidation item;
		int			read = invalidation_read(&delivery->reader, &item);

		if (read > 0 && gather_item(delivery, &item, false))
			continue;
		if (read != 0)
			outbox_damage_note_row(delivery->row.xid, "its items cannot be read to their end");
		all_sent(delivery);
	}
	batch_gather_send_all();
}

void
delivery_queue_send(void)
{
	patterns_given = 0;
	stream_turn();
	if (delivery_queue_has_unsent())
	{
		batch_look_for_silent();
		send_from(PRIORITY_COMMIT);
		send_from(PRIORITY_SCAN);
	}
	batch_confirm_ask();
	node_flush_all();
	if (batch_under_way())
		FAULT_POINT("batch-sent");
}

void
delivery_queue_forget_unsent(void)
{
	delivery_fragments_forget();
	pattern_queue_forget();
	refusal_forget_all();
	for (int priority = 0; priority < DELIVERY_PRIORITIES; priority++)
	{
		while (!dlist_is_empty(&queues[priority]))
		{
			Delivery   *delivery = dlist_head_element(Delivery, queue_node, &queues[priority]);

			delivery_note_lost(delivery, PART_NO_REPLY);
			all_sent(delivery);
		}
	}
	Assert(!delivery_queue_has_unsent());
}
