/*
 * deliver.c
 *	  Sends the keys of outbox rows to Redis and learns what became of them.
 *
 * A row becomes a Delivery, with a part for each of its items and targets.  Keys go to
 * command.c, patterns to patternscan.c.  A delivery is finished when all of its
 * parts are:
 *
 *		all delivered	the row is delivered, its waiter is answered
 *		some lost		a node is away: the row waits until it is back, and is then
 *						sent again, to nodes that lack something (lacking.h); its
 *						waiter is let go now
 *		some refused	what was refused moves to the side table (outboxside.c)
 *
 * Many commands are under way at once.  Rows from the ring are always sent
 * before rows from a scan, and of those only a few commands are under way at a
 * time, so that a small transaction never waits behind a large one for longer
 * than BULK_COMMANDS take.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "command.h"
#include "delivered.h"
#include "faultpoint.h"
#include "item.h"
#include "deliver.h"
#include "lacking.h"
#include "outbox.h"
#include "outboxside.h"
#include "patternscan.h"
#include "seconddelete.h"
#include "target.h"
#include "waiters.h"

/* Rows in memory that are not sent yet. */
#define SMALL_ROWS			4096
#define BULK_ROWS			1024

/* Before what could not be sent for the moment is sent again; doubles. */
#define AGAIN_FIRST_MS		50
#define AGAIN_LAST_MS		(30 * 1000)
#define AGAIN_FORGET_MS		(60 * 1000) /* quiet for so long: the first again */

struct Delivery
{
	dlist_node	all_node;		/* in all_deliveries, by number */
	dlist_node	queue_node;		/* in queues[class], until all parts are sent */
	uint64		number;
	DeliveryClass class;
	DeliveryRow row;			/* row.items is this delivery's own copy */
	ItemReader	reader;			/* items not sent yet */
	uint32		parts_left;		/* under way, plus one until all are sent */
	uint32		parts_late;		/* of these, at nodes that nobody waits for */
	bool		lost;
	bool		lost_under_way; /* somebody may have waited in vain */
	bool		lost_for_now;	/* and nothing else: it won't take long */
	bool		to_repeat;		/* a node that has it already may have forgotten it */
	uint64		lost_before;	/* "releases" at the time */
	bool		is_fragment;
	char	   *assembled;		/* the key of which it is the last piece, or NULL */
	Delivery   *joined;			/* other pieces of the same key; a chain */
	StringInfo	refused;		/* packed items that Redis refused, or NULL */
	Oid			refused_rule;	/* of the last of them */
};

/* A key in pieces, of which some have not come yet. */
typedef struct Assembly
{
	dlist_node	node;
	uint64		xid;
	int32		first_chunk;
	Oid			rule;
	FragmentHead head;			/* of any piece; offset means nothing */
	uint32		received;
	Delivery   *pieces;			/* chain by joined */
	char	   *bytes;
} Assembly;

static DatabaseSlot *slot;
static MemoryContext context;

static dlist_head all_deliveries = DLIST_STATIC_INIT(all_deliveries);
static dlist_head queues[DELIVERY_CLASSES] = {
	DLIST_STATIC_INIT(queues[CLASS_SMALL]),
	DLIST_STATIC_INIT(queues[CLASS_BULK]),
};
static int	queued[DELIVERY_CLASSES];
static dlist_head assemblies = DLIST_STATIC_INIT(assemblies);

static bool has_waiting = false;
static uint64 releases = 0;		/* of waiting rows, so far */
static TimestampTz release_at = DT_NOEND;
static TimestampTz released_at = 0;
static int	again_ms = AGAIN_FIRST_MS;

static uint64 next_number = 1;
static int	count_of_table[OUTBOX_NOWHERE + 1];
static uint64 taken_of_table[OUTBOX_NOWHERE + 1];
static TimestampTz last_of_table[OUTBOX_NOWHERE + 1];

void
deliver_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache deliveries",
									ALLOCSET_DEFAULT_SIZES);
	command_init(slot);
}

bool
deliver_has_room(DeliveryClass class)
{
	return queued[class] < (class == CLASS_SMALL ? SMALL_ROWS : BULK_ROWS);
}

uint64
deliver_xid(const Delivery *delivery)
{
	return delivery->row.xid;
}

bool
deliver_is_awaited(const Delivery *delivery)
{
	return delivery->row.waiter >= 0 || delivery->class == CLASS_BULK;
}

bool
deliver_has_unsent(void)
{
	return queued[CLASS_SMALL] + queued[CLASS_BULK] > 0;
}

uint64
deliver_next_number(void)
{
	return next_number;
}

uint64
deliver_oldest_number(void)
{
	if (dlist_is_empty(&all_deliveries))
		return next_number;
	return dlist_head_element(Delivery, all_node, &all_deliveries)->number;
}

int
deliver_count_of_table(int table)
{
	return count_of_table[table];
}

uint64
deliver_taken_of_table(int table)
{
	return taken_of_table[table];
}

TimestampTz
deliver_last_of_table(int table)
{
	return last_of_table[table];
}

void
deliver_take(DeliveryClass class, const DeliveryRow *row)
{
	Delivery   *delivery = MemoryContextAllocZero(context, sizeof(Delivery) + row->len);

	delivery->number = next_number++;
	delivery->class = class;
	delivery->row = *row;
	delivery->row.items = (char *) (delivery + 1);
	memcpy(delivery + 1, row->items, row->len);
	item_reader_init(&delivery->reader, delivery->row.items, row->len);
	delivery->parts_left = 1;

	dlist_push_tail(&all_deliveries, &delivery->all_node);
	dlist_push_tail(&queues[class], &delivery->queue_node);
	queued[class]++;
	count_of_table[row->table]++;
	taken_of_table[row->table]++;
	if (row->table < OUTBOX_TABLES)
		delivered_set(row->table, &row->tid, delivered_when_sent(row->answered));
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
		outboxside_finished(&delivery->row.tid, state == ROW_DELIVERED);
	else if (delivery->row.table < OUTBOX_TABLES)
		delivered_set(delivery->row.table, &delivery->row.tid, state);
}

static void
count_delivered(Delivery *delivery)
{
	TimestampTz now = GetCurrentTimestamp();

	last_of_table[delivery->row.table] = now;
	if (delivery->row.again)
	{
		/* How long it took when it was delivered first is not known. */
		pg_atomic_fetch_add_u64(&slot->stats.retries, 1);
		return;
	}
	if (delivery->row.chunk == 0)
		pg_atomic_fetch_add_u64(&slot->stats.transactions, 1);
	stats_latency(&slot->stats, now - delivery->row.at);
}

/* To be sent again without a node's coming back. */
void
deliver_release_soon(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (release_at != DT_NOEND)
		return;
	if (TimestampDifferenceExceeds(released_at, now, AGAIN_FORGET_MS))
		again_ms = AGAIN_FIRST_MS;
	release_at = TimestampTzPlusMilliseconds(now, again_ms);
}

static void
finish_lost(Delivery *delivery)
{
	/* Its node is back already, perhaps. */
	bool		soon = delivery->lost_for_now || delivery->lost_before != releases;

	has_waiting = true;
	pg_atomic_fetch_add_u64(&slot->stats.retries, 1);
	if (delivery->row.table == OUTBOX_NOWHERE)
		seconddelete_lost(&delivery->row, soon);
	else if (delivery->row.table == OUTBOX_SIDE)
		set_row_state(delivery, ROW_UNSENT);	/* it has pauses of its own */
	else if (soon)
		deliver_release_soon();

	/* Who waits for what is sent again soon goes on waiting. */
	if (!delivery->lost_for_now && !delivery->row.answered)
		waiters_let_go(delivery->row.xid, delivery->row.waiter,
					   delivery->class == CLASS_BULK, delivery->lost_under_way);
}

static void
finish_delivered(Delivery *delivery)
{
	if (delivery->to_repeat)
	{
		set_row_state(delivery, ROW_TO_REPEAT);
		deliver_release_soon();
	}
	else
		set_row_state(delivery, ROW_DELIVERED);
	count_delivered(delivery);
	/* Counted twice it would stand for another row, which is not delivered yet. */
	if (!delivery->row.answered)
		waiters_row_delivered(delivery->row.xid, delivery->row.waiter);
	if (delivery->row.table != OUTBOX_NOWHERE)
		seconddelete_add(&delivery->row);
}

/*
 * A row that was lost in part waits, so what was refused of it does not go to the
 * side table: it is to be sent again, too, and refused again.
 */
static void
note_refused_as_lacking(const Delivery *delivery)
{
	ItemReader	reader;
	PackedItem	item;

	if (delivery->is_fragment)
	{
		lacking_note_all();		/* the refused item is empty */
		return;
	}
	item_reader_init(&reader, delivery->refused->data, delivery->refused->len);
	while (item_read(&reader, &item) > 0)
	{
		for (int i = 0; i < target_count() && item.kind == ITEM_KEY; i++)
			lacking_note_key(target_at(i), item.bytes, item.len);
	}
}

/* A second delete is not kept; and what is there already is sent again as a whole. */
static bool
moves_to_side_table(const Delivery *delivery)
{
	return delivery->row.table != OUTBOX_NOWHERE &&
		!(delivery->row.table == OUTBOX_SIDE && delivery->to_repeat);
}

static void
finish(Delivery *delivery)
{
	if (delivery->lost && delivery->refused)
		note_refused_as_lacking(delivery);
	if (delivery->lost && delivery->to_repeat)
		lacking_note_again();
	if (delivery->lost)
		finish_lost(delivery);
	else if (delivery->refused && moves_to_side_table(delivery))
	{
		const char *items = delivery->is_fragment ? delivery->row.items : delivery->refused->data;
		uint32		len = delivery->is_fragment ? delivery->row.len : delivery->refused->len;

		outboxside_refused(&delivery->row, items, len, delivery->to_repeat);
		waiters_refused(delivery->row.xid);
	}
	else
		finish_delivered(delivery);

	dlist_delete(&delivery->all_node);
	count_of_table[delivery->row.table]--;
	if (delivery->refused)
	{
		pfree(delivery->refused->data);
		pfree(delivery->refused);
	}
	if (delivery->assembled)
		pfree(delivery->assembled);
	pfree(delivery);
}

/* Keep a refused item for the side table. */
static void
remember_refused(Delivery *delivery, const PackedItem *item)
{
	bool		first = delivery->refused == NULL;

	if (first)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);

		delivery->refused = makeStringInfo();
		MemoryContextSwitchTo(old_context);
	}
	enlargeStringInfo(delivery->refused, ITEM_MAX_HEAD + item->len);
	delivery->refused->len +=
		item_write(delivery->refused->data + delivery->refused->len, item,
				   first ? NULL : &delivery->refused_rule);
	delivery->refused_rule = item->rule;
}

static void
note_lost(Delivery *delivery, PartOutcome outcome)
{
	bool		for_now = outcome == PART_AGAIN;

	if (!delivery->lost)
	{
		delivery->lost_before = releases;
		delivery->lost_for_now = for_now;
	}
	delivery->lost = true;
	delivery->lost_for_now &= for_now;
	delivery->lost_under_way |= outcome == PART_LOST || outcome == PART_UNCONFIRMED;
	if (for_now)
		deliver_release_soon();
}

/* Nothing is left but parts that nobody waits for. */
static void
let_go_if_late(Delivery *delivery)
{
	if (delivery->parts_late > 0 && delivery->parts_left == delivery->parts_late &&
		!delivery->row.answered)
		waiters_let_go(delivery->row.xid, delivery->row.waiter,
					   delivery->class == CLASS_BULK, false);
}

void
deliver_part_done(Delivery *delivery, PartOutcome outcome, const PackedItem *item)
{
	while (delivery)
	{
		Delivery   *joined = delivery->joined;

		if (outcome == PART_REFUSED)
			remember_refused(delivery, item);
		else if (outcome != PART_DELIVERED)
			note_lost(delivery, outcome);

		Assert(delivery->parts_left > 0);
		if (--delivery->parts_left == 0)
			finish(delivery);
		else
			let_go_if_late(delivery);
		delivery = joined;
	}
}

void
deliver_part_late(Delivery *delivery)
{
	delivery->parts_late++;
}

void
deliver_part_not_late(Delivery *delivery)
{
	delivery->parts_late--;
}

/*
 * --------------------------------------------------------------------------
 * Rows that wait for a node
 * --------------------------------------------------------------------------
 */

bool
deliver_has_waiting(void)
{
	return has_waiting;
}

TimestampTz
deliver_release_at(void)
{
	return release_at;
}

/* What has a delivery, or is about to be written to the side table, stays as it is. */
void
deliver_release_waiting(void)
{
	dlist_iter	iter;

	releases++;
	again_ms = release_at == DT_NOEND ? AGAIN_FIRST_MS : Min(again_ms * 2, AGAIN_LAST_MS);
	release_at = DT_NOEND;
	released_at = GetCurrentTimestamp();
	if (!has_waiting)
		return;
	has_waiting = false;
	delivered_resume_sent();
	dlist_foreach(iter, &all_deliveries)
	{
		Delivery   *delivery = dlist_container(Delivery, all_node, iter.cur);

		if (delivery->row.table < OUTBOX_TABLES)
			delivered_set(delivery->row.table, &delivery->row.tid,
						  delivered_when_sent(delivery->row.answered));
	}
	outboxside_keep_refused();
}

void
deliver_repeat_under_way(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_deliveries)
		dlist_container(Delivery, all_node, iter.cur)->to_repeat = true;
	outboxside_repeat_unwritten();
}

/*
 * --------------------------------------------------------------------------
 * Items
 * --------------------------------------------------------------------------
 */

static Assembly *
find_assembly(uint64 xid, int32 first_chunk)
{
	dlist_iter	iter;

	dlist_foreach(iter, &assemblies)
	{
		Assembly   *assembly = dlist_container(Assembly, node, iter.cur);

		if (assembly->xid == xid && assembly->first_chunk == first_chunk)
			return assembly;
	}
	return NULL;
}

static Assembly *
new_assembly(uint64 xid, int32 first_chunk, Oid rule, const FragmentHead *head)
{
	Assembly   *assembly = MemoryContextAllocZero(context, sizeof(Assembly));

	assembly->xid = xid;
	assembly->first_chunk = first_chunk;
	assembly->rule = rule;
	assembly->head = *head;
	assembly->bytes = MemoryContextAlloc(context, head->total);
	dlist_push_tail(&assemblies, &assembly->node);
	return assembly;
}

/*
 * A piece of a long key.  The key is sent when all its pieces are here; their
 * deliveries are joined and finish together.  Returns false where the piece does
 * not make sense.
 */
static bool
gather_fragment(Delivery *delivery, const PackedItem *item)
{
	FragmentHead head;
	uint32		len = item->len - sizeof(head);
	int32		first_chunk;
	Assembly   *assembly;

	if (item->len <= sizeof(head))
		return false;
	memcpy(&head, item->bytes, sizeof(head));
	if (head.total > ITEM_MAX_BYTES || head.offset > head.total ||
		len > head.total - head.offset || head.kind != ITEM_KEY)
		return false;

	first_chunk = delivery->row.chunk - head.offset / FRAGMENT_BYTES;
	assembly = find_assembly(delivery->row.xid, first_chunk);
	if (assembly == NULL)
		assembly = new_assembly(delivery->row.xid, first_chunk, item->rule, &head);
	if (assembly->head.total != head.total)
		return false;

	delivery->is_fragment = true;
	delivery->parts_left++;
	delivery->joined = assembly->pieces;
	assembly->pieces = delivery;
	memcpy(assembly->bytes + head.offset, item->bytes + sizeof(head), len);
	assembly->received += len;
	if (assembly->received >= head.total)
	{
		char	   *bytes = assembly->bytes;
		Oid			rule = assembly->rule;
		bool		only_lacking = true;

		dlist_delete(&assembly->node);
		pfree(assembly);
		delivery->assembled = bytes;
		for (Delivery *piece = delivery; piece; piece = piece->joined)
		{
			piece->parts_left += target_count() - 1;
			only_lacking &= piece->row.only_lacking;
		}
		command_add_key(delivery, delivery->class, rule, ITEM_FRAGMENT, bytes, head.total,
						only_lacking);
	}
	return true;
}

/* Give one item on.  Returns false where it is damaged. */
static bool
gather_item(Delivery *delivery, const PackedItem *item)
{
	switch (item->kind)
	{
		case ITEM_KEY:
			delivery->parts_left += target_count();
			command_add_key(delivery, delivery->class, item->rule, ITEM_KEY, item->bytes, item->len,
							delivery->row.only_lacking);
			return true;
		case ITEM_FRAGMENT:
			return gather_fragment(delivery, item);
		case ITEM_GLOB:
		case ITEM_KEYPATTERN:
			delivery->parts_left++;
			patternscan_add(delivery, item);
			return true;
	}
	return false;
}

/* All items of the delivery are under way (or can't be read). */
static void
all_sent(Delivery *delivery)
{
	dlist_delete(&delivery->queue_node);
	queued[delivery->class]--;
	if (--delivery->parts_left == 0)
		finish(delivery);
	else
		let_go_if_late(delivery);
}

/* Send from one queue while commands of its class may be under way. */
static void
send_from(DeliveryClass class)
{
	while (!dlist_is_empty(&queues[class]) && command_has_room(class))
	{
		Delivery   *delivery = dlist_head_element(Delivery, queue_node, &queues[class]);
		PackedItem	item;
		int			read = item_read(&delivery->reader, &item);

		if (read > 0 && gather_item(delivery, &item))
			continue;
		if (read != 0)
			ereport(LOG,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("an outbox row of transaction " UINT64_FORMAT " is damaged; the rest of it is left out",
							delivery->row.xid)));
		all_sent(delivery);
	}
	command_send_open();
}

void
deliver_send(void)
{
	if (deliver_has_unsent())
	{
		command_look_for_silent();
		send_from(CLASS_SMALL);
		send_from(CLASS_BULK);
	}
	command_ask_replicas();
	node_flush_all();
	if (command_under_way())
		FAULT_POINT("batch-sent");
}

void
deliver_forget_unsent(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &assemblies)
	{
		Assembly   *assembly = dlist_container(Assembly, node, iter.cur);

		dlist_delete(&assembly->node);
		deliver_part_done(assembly->pieces, PART_LOST, NULL);
		pfree(assembly->bytes);
		pfree(assembly);
	}
	patternscan_forget();
	for (int class = 0; class < DELIVERY_CLASSES; class++)
	{
		while (!dlist_is_empty(&queues[class]))
		{
			Delivery   *delivery = dlist_head_element(Delivery, queue_node, &queues[class]);

			note_lost(delivery, PART_LOST);
			all_sent(delivery);
		}
	}
	Assert(dlist_is_empty(&all_deliveries));
}
