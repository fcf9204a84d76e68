/*
 * settle.c
 *	  What follows from the end of a delivery: the one place that decides it.
 *
 * delivery.c counts parts and lists the deliveries that have ended.  Each is settled here:
 *
 *		all delivered	the row is delivered, its waiter is answered, a second delete is noted
 *		some lost		the row waits until the node is back, and is then sent again, to the
 *						nodes that need it (resend.h); its waiter is let go now
 *		some refused	the refused items move to the side table (outbox_side.c)
 *		discarded		it counts as delivered, whatever became of it
 *
 * The waiter of a delivery is let go, too, once only parts are left of it that no session waits
 * for, and is answered once all deletes are, before the stream has been told of them (stream.c).
 * The delivery itself is settled later, when these parts have ended.
 *
 * A worker that crashes before a delivery is settled loses nothing: its successor knows of no
 * delivery at all and reads the whole outbox.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/delivery_int.h"
#include "delivery/resend.h"
#include "outbox/delivery_map.h"
#include "outbox/outbox_side.h"
#include "outbox/outbox_tables.h"
#include "shmem/counters.h"
#include "shmem/wait_slots.h"
#include "topology/target.h"

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
	if (delivery->row.table < OUTBOX_TABLES)
		delivery_map_note_delivery(delivery->row.table, clock_now());
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

/* "in_vain": it may have waited for a node that does not answer. */
static void
let_go(const Delivery *delivery, bool in_vain)
{
	wait_slots_let_go(delivery->row.xid, delivery->row.waiter,
					  delivery->priority == PRIORITY_SCAN, in_vain);
}

static void
finish_lost(Delivery *delivery)
{
	/* A release since then may mean that its node is back already. */
	bool		soon = delivery->lost_for_now || delivery->lost_before != resend_releases();

	Assert(delivery->lost);
	resend_wait();
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.retries, 1);
	if (delivery->row.table == OUTBOX_MEMORY)
		second_delete_lost(&delivery->row, soon);
	else if (delivery->row.table == OUTBOX_SIDE)
		set_row_state(delivery, ROW_UNSENT);	/* it has pauses of its own */
	else if (soon)
		resend_release_soon();

}

static void
finish_delivered(Delivery *delivery)
{
	Assert(!delivery->lost || delivery->discarded);
	if (delivery->to_repeat && !delivery->discarded)
	{
		set_row_state(delivery, ROW_RESEND_FORGOTTEN);
		resend_release_soon();
	}
	else
		set_row_state(delivery, ROW_DELIVERED);
	count_delivered(delivery);
	if (delivery->row.table != OUTBOX_MEMORY)
		second_delete_add(&delivery->row);
}

/*
 * --------------------------------------------------------------------------
 * Refused items
 * --------------------------------------------------------------------------
 */

static bool
was_refused(const Delivery *delivery, const Invalidation *item)
{
	uint32		at = item->bytes - delivery->row.items;

	Assert(delivery->refused != NULL && at <= delivery->row.len);
	return (delivery->refused[at / 8] & 1 << at % 8) != 0;
}

/*
 * Give the refused items of the row to the side table; they take no more room than the row.  A
 * fragment goes there as it is, not the item that it makes with others.
 */
static void
move_refused(const Delivery *delivery)
{
	char	   *items = palloc(delivery->row.len);
	uint32		len = 0;
	Oid			rule;
	InvalidationReader reader;
	Invalidation item;

	Assert(delivery->refused != NULL && !delivery->lost);
	invalidation_reader_init(&reader, delivery->row.items, delivery->row.len);
	while (invalidation_read(&reader, &item) > 0)
	{
		if (!delivery->is_fragment && !was_refused(delivery, &item))
			continue;
		len += invalidation_write(items + len, &item, len == 0 ? NULL : &rule);
		rule = item.rule;
	}
	if (delivery->row.attempts == 0)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys_refused,
								invalidation_count(items, len));
	outbox_side_refused(&delivery->row, items, len, delivery->refused_error, delivery->to_repeat);
	pfree(items);
}

/*
 * A row of which some items were lost and others refused waits as a whole, so the refused ones do
 * not go to the side table: they are sent again, too, and refused again.
 */
static void
note_refused_for_resend(const Delivery *delivery)
{
	InvalidationReader reader;
	Invalidation item;

	Assert(delivery->refused != NULL && delivery->lost);
	if (delivery->is_fragment)
	{
		resend_note_all();		/* the whole may be gone already */
		return;
	}
	invalidation_reader_init(&reader, delivery->row.items, delivery->row.len);
	while (invalidation_read(&reader, &item) > 0)
	{
		if (!was_refused(delivery, &item) ||
			invalidation_traits(item.kind)->keys != INVALIDATION_KEYS_ITSELF)
			continue;
		for (int i = 0; i < target_count(); i++)
			resend_note_key(target_at(i), item.bytes, item.len);
	}
}

/* Not a second delete, nor a row of that table that is to be sent again as a whole. */
static bool
moves_to_side_table(const Delivery *delivery)
{
	return delivery->row.table != OUTBOX_MEMORY &&
		!(delivery->row.table == OUTBOX_SIDE && delivery->to_repeat);
}

/*
 * --------------------------------------------------------------------------
 * The waiter
 * --------------------------------------------------------------------------
 */

/* To count the row twice would answer for another row of the transaction. */
static void
answer_waiter(Delivery *delivery)
{
	Assert(!delivery->row.answered && !delivery->lost_delete);
	wait_slots_row_delivered(delivery->row.xid, delivery->row.waiter);
	delivery->row.answered = true;
	/* Otherwise its state is set next. */
	if (delivery->row.table < OUTBOX_TABLES && (delivery->parts_left > 0 || delivery->lost))
		delivery_map_set(delivery->row.table, &delivery->row.tid, delivery_map_when_sent(true));
}

/* The deletes of the row are all answered, or lost: tell the session that waits for them. */
static void
tell_waiter(Delivery *delivery)
{
	if (delivery->row.answered)
		return;
	if (delivery->discarded && (delivery->lost || delivery->refused))
		let_go(delivery, true);
	else if (delivery->lost_delete)
	{
		/* The waiter of a row that is sent again soon goes on waiting. */
		if (!delivery->lost_for_now)
			let_go(delivery, delivery->lost_under_way);
	}
	else if (delivery->refused && moves_to_side_table(delivery))
		wait_slots_refused(delivery->row.xid);
	else
		answer_waiter(delivery);
}

/*
 * Whether a session may be waiting for it.  Of a row from a scan the session is not known; but
 * its wait slot says that it waits before the row is visible, so if none does none will.
 */
static bool
may_have_waiter(const Delivery *delivery, int *waiting)
{
	if (delivery->row.waiter >= 0)
		return true;
	if (delivery->priority != PRIORITY_SCAN)
		return false;
	if (*waiting < 0)
		*waiting = wait_slots_count(MyDatabaseId);
	return *waiting > 0;
}

static void
settle(Delivery *delivery)
{
	Assert(delivery->parts_left == 0 && delivery->parts_unawaited == 0);
	Assert(delivery->parts_announced == 0);
	tell_waiter(delivery);
	if (delivery->discarded && (delivery->lost || delivery->refused))
	{
		set_row_state(delivery, ROW_DELIVERED); /* nothing is sent again */
		return;
	}
	if (delivery->lost && delivery->refused)
		note_refused_for_resend(delivery);
	if (delivery->lost && delivery->to_repeat)
		resend_note_again();
	if (delivery->lost)
		finish_lost(delivery);
	else if (delivery->refused && moves_to_side_table(delivery))
		move_refused(delivery);
	else
		finish_delivered(delivery);
}

void
settle_run(void)
{
	Delivery   *delivery;
	int			waiting = -1;	/* sessions; -1: not counted yet */

	while ((delivery = delivery_next_to_settle()) != NULL)
	{
		if (delivery->parts_left == 0)
		{
			settle(delivery);
			delivery_free(delivery);
		}
		else if (delivery_is_announced(delivery))
		{
			if (may_have_waiter(delivery, &waiting))
				tell_waiter(delivery);
		}
		else if (delivery_is_unawaited(delivery) && !delivery->row.answered)
			let_go(delivery, false);
	}
	if (outbox_side_has_released())
		resend_release_soon();
}
