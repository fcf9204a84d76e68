/*
 * reconnect.c
 *	  What the worker does when nodes come and go.
 *
 * A node that goes takes its part of what is under way with it; those rows wait in the
 * outbox.  One that comes makes the outbox be read all over: what waited, what was
 * committed while no node was there, and, if the node may have forgotten, what had
 * been delivered.  What was sent before goes to the nodes that
 * lack something (lacking.c), which is all that is remembered of a node that is away.
 *
 * A node whose fence has no epoch gets one when all that the outbox held at some
 * moment after that is delivered.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "worker/wait_barrier.h"
#include "worker/reconnect.h"
#include "topology/connections.h"
#include "delivery/delivery_queue.h"
#include "outbox/delivery_map.h"
#include "fence/fence.h"
#include "delivery/lacking.h"
#include "outbox/outbox_overflow.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"
#include "delivery/pattern_scan.h"
#include "delivery/replica_ack.h"
#include "delivery/second_delete.h"
#include "shmem/wait_slots.h"


/* The worker before may have delivered what the first scan finds. */
static bool first_scan = true;

/*
 * Deliveries with lower numbers are to be finished before what was to be sent again
 * is; 0: not known yet.
 */
static uint64 catch_up_until = 0;

void
reconnect_init(void)
{
}

/* Nobody is going to deliver it now, and the outbox has it. */
static void
throw_ring_away(void)
{
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	MyDatabaseState->ring.taken = MyDatabaseState->ring.put;
	LWLockRelease(MyDatabaseState->lock);
}

/* There is no node left. */
void
reconnect_discard_all(void)
{
	lacking_note_all();
	delivery_queue_forget_unsent();
	throw_ring_away();
	wait_slots_give_up(MyDatabaseId);
	wait_barrier_begin_anew();
}

/* What waited for a node is sent again. */
static void
scan_again(void)
{
	lacking_scan_begins();
	delivery_release_waiting();
	outbox_scan_start_over(first_scan);
	second_delete_try_lost();
	first_scan = false;
	catch_up_until = 0;
	outbox_side_request_scan();
	outbox_overflow_look();
	wait_barrier_begin_anew();
}

/* All that the outbox holds is sent to a node again, at the next scan. */
static void
repeat_all(RedisNode *node)
{
	node->needs_resend = true;
	delivery_map_repeat_all();
	delivery_repeat_under_way();
}

static void
after_node_event(RedisNode *node)
{
	if (node->took_over)
	{
		node->took_over = false;
		repeat_all(node);
	}
	switch (node->event)
	{
		case NODE_SAME:
			break;
		case NODE_MADE:
			if (node->new_server)
				repeat_all(node);
			fence_begin(node);
			break;
		case NODE_LOST:
			fence_forget(node);
			pattern_scan_leave_out(node);
			break;
	}
}

/*
 * A node is open, and was not at the last turn.  One of several that lets us in and
 * then refuses everything must not make the others get all again each time.
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

	for (int i = 0; i < node_count(); i++)
		after_node_event(node_at(i));
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
			repeat_all(node_at(i));
			wanted = true;
		}
	}
	if (wanted)
		scan_again();
}

/*
 * A node that is found without an epoch gets one when it has been sent all that
 * the outbox holds: what it may have forgotten is in there.
 */
void
reconnect_catch_up(void)
{
	repeat_where_wanted();
	if (!fence_waits_for_catching_up() && !lacking_is_being_sent())
		return;
	if (catch_up_until == 0 && outbox_scan_is_done() && resend_release_at() == DT_NOEND)
		catch_up_until = delivery_next_number();
	if (catch_up_until != 0 && delivery_oldest_number() >= catch_up_until &&
		outbox_side_unwritten() == 0)
	{
		catch_up_until = 0;
		if (resend_release_at() == DT_NOEND)
		{
			lacking_scan_is_over();
			fence_caught_up();
		}
	}
}

TimestampTz
reconnect_turn(TimestampTz now)
{
	/* Nothing is away that could bring it back: a node has refused what it must not. */
	if (resend_has_waiting() && pg_atomic_read_u32(&MyDatabaseState->state) == WORKER_CONNECTED &&
		!replica_ack_are_short_anywhere())
		resend_release_soon();
	if (outbox_scan_is_done())
		resend_note_read(now);
	if (now >= resend_release_due_at())
		scan_again();
	return resend_release_due_at();
}
