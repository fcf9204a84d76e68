/*
 * reconnect.c
 *	  What the worker does when nodes come and go.
 *
 * When a link breaks, its unanswered batches fail; their rows stay in the outbox.  When a
 * node opens, the worker reads the outbox from its beginning: rows that waited, rows that
 * were committed while no node was there, and, if the node may have forgotten, rows that
 * had been delivered.  Of a node that is away the worker remembers only that it has missed
 * something; a row that was sent before goes to such nodes only (resend.c).
 *
 * A node whose fence has no epoch gets one when all that the outbox held at some moment
 * after the node opened is delivered.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "delivery/delivery.h"
#include "delivery/resend.h"
#include "delivery/pattern_scan.h"
#include "delivery/replica_ack.h"
#include "delivery/stream.h"
#include "fence/fence.h"
#include "outbox/delivery_map.h"
#include "outbox/outbox_overflow.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"
#include "shmem/wait_slots.h"
#include "topology/connections.h"
#include "worker/worker_int.h"

/* The rows that the first scan finds may have been delivered by the worker before. */
static bool first_scan = true;

/*
 * When all deliveries with lower numbers are finished, the nodes have got what they may
 * have missed; 0: the rows are not read yet, so the number is not known.
 */
static uint64 catch_up_until = 0;

/* Without a node the worker delivers nothing from the ring, and the outbox has it all. */
static void
throw_ring_away(void)
{
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	MyDatabaseState->ring.taken = MyDatabaseState->ring.put;
	LWLockRelease(MyDatabaseState->lock);
}

void
reconnect_discard_all(void)
{
	resend_note_all();
	delivery_queue_forget_unsent();
	settle_run();
	Assert(delivery_oldest_number() == delivery_next_number());
	throw_ring_away();
	wait_slots_give_up(MyDatabaseId);
	wait_barrier_begin_anew();
}

/* Send again what waited for a node. */
static void
scan_again(void)
{
	resend_begin();
	delivery_release_waiting();
	outbox_scan_start_over(first_scan);
	second_delete_try_lost();
	first_scan = false;
	catch_up_until = 0;
	outbox_side_request_scan();
	outbox_overflow_request_scan();
	wait_barrier_begin_anew();
}

/*
 * Have the next scan send all that the outbox holds again, to the nodes that need it.  Called
 * once for all nodes of a turn, since it looks at the whole map and at all that is under way.
 */
static void
repeat_all(void)
{
	delivery_map_repeat_all();
	delivery_repeat_under_way();
}

/* Returns whether the node needs again what it was sent before. */
static bool
after_node_event(RedisNode *node)
{
	bool		needs_all = node->took_over;

	node->took_over = false;
	if (node->event != NODE_SAME)
		stream_note_links();
	switch (node->event)
	{
		case NODE_SAME:
			break;
		case NODE_MADE:
			needs_all |= node->new_server;
			fence_begin(node);
			break;
		case NODE_LOST:
			fence_forget(node);
			pattern_scan_leave_out(node);
			break;
	}
	node->needs_resend |= needs_all;
	return needs_all;
}

static void
after_node_events(void)
{
	bool		needs_all = false;

	for (int i = 0; i < node_count(); i++)
		needs_all |= after_node_event(node_at(i));
	if (needs_all)
		repeat_all();
}

/*
 * Whether a node is open that was not at the last turn.  A node, one of several, that
 * accepts the link and then refuses everything does not count: the others must not get
 * everything again each time.
 */
static bool
some_node_has_opened(void)
{
	bool		opened = false;

	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->open && !node->was_open)
		{
			if (node_count() > 1 && node_is_on_probation(node))
				resend_release_soon();
			else
				opened = true;
		}
		node->was_open = node->open;
	}
	return opened;
}

void
reconnect_connect(void)
{
	bool		served = connections_is_serving();
	bool		keys_moved = connections_turn();

	fence_publish();			/* before a session is told that its wait is over */
	settle_run();
	if (!node_turn_is_full())
		return;					/* no node has come or gone */
	after_node_events();
	if (served && !connections_is_serving())
		reconnect_discard_all();
	if (keys_moved)
		pattern_scan_note_moves();
	if (some_node_has_opened() || keys_moved)
		scan_again();
}

static void
repeat_where_wanted(void)
{
	bool		wanted = false;

	for (int i = 0; i < node_count(); i++)
	{
		if (fence_wants_resending(node_at(i)))
		{
			node_at(i)->needs_resend = true;
			wanted = true;
		}
	}
	if (!wanted)
		return;
	repeat_all();
	scan_again();
}

/*
 * A node that is found without an epoch gets one when it has been sent all that
 * the outbox holds, which includes whatever it may have forgotten.
 */
void
reconnect_catch_up(void)
{
	if (!node_turn_is_full())
		return;
	repeat_where_wanted();
	if (!fence_waits_for_catching_up() && !resend_is_in_progress())
		return;
	if (catch_up_until == 0 && outbox_scan_is_done() && resend_release_at() == DT_NOEND)
		catch_up_until = delivery_next_number();
	if (catch_up_until != 0 && delivery_oldest_number() >= catch_up_until &&
		outbox_side_unwritten() == 0)
	{
		catch_up_until = 0;
		if (resend_release_at() == DT_NOEND)
		{
			resend_end();
			fence_caught_up();
		}
	}
}

void
reconnect_run(TimestampTz now)
{
	/* All nodes are connected, so none will come and cause a scan: begin one. */
	if (resend_has_waiting() && pg_atomic_read_u32(&MyDatabaseState->state) == WORKER_CONNECTED &&
		!replica_ack_are_short_anywhere())
		resend_release_soon();
	if (outbox_scan_is_done())
		resend_note_read(now);
	if (now >= resend_release_due_at())
		scan_again();
}
