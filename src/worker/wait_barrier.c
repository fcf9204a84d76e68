/*
 * wait_barrier.c
 *	  The worker's side of uncache.wait().
 *
 * Callers draw tickets; one barrier at a time serves the highest ticket drawn when
 * it begins.
 *
 *		begun		note how far the ring is filled, and have the side table and the
 *					overflow markers read
 *		collected	all of that is taken and nothing is left to read: the deliveries
 *					whose number is below the next have to be delivered
 *		answered	the oldest unfinished delivery is not one of these
 *
 * A row that waits for a node holds the barrier up.  When a link breaks, deliveries
 * are forgotten and will be taken anew, with higher numbers: the barrier goes back to
 * collecting.  A worker that ends leaves the tickets to its successor.
 */
#include "postgres.h"

#include "delivery/delivery.h"
#include "delivery/resend.h"
#include "outbox/outbox_damage.h"
#include "outbox/outbox_overflow.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"
#include "worker/worker_int.h"

static uint64 ticket = 0;		/* the one served; 0: none, and the rest means nothing */
static uint64 ring_until;		/* the ring must be taken up to here */
static uint64 number;			/* deliveries below it must be finished; 0: collecting */
static bool just_begun;			/* no turn has passed since the barrier began */

static void
note_ring(void)
{
	LWLockAcquire(MyDatabaseState->lock, LW_SHARED);
	ring_until = MyDatabaseState->ring.put;
	LWLockRelease(MyDatabaseState->lock);
}

static void
begin(uint64 drawn)
{
	Assert(ticket == 0 && drawn > pg_atomic_read_u64(&MyDatabaseState->barrier_done));
	ticket = drawn;
	number = 0;
	just_begun = true;
	outbox_side_request_scan();
	note_ring();
}

/* Whether all that was committed before the barrier is among the deliveries by now. */
static bool
is_collected(void)
{
	if (!outbox_overflow_is_done() || outbox_damage_is_unanswered())
	{
		note_ring();			/* the patterns in their place come through the ring */
		return false;
	}
	return MyDatabaseState->ring.taken >= ring_until && outbox_scan_is_done();
}

void
wait_barrier_run(void)
{
	uint64		drawn = pg_atomic_read_u64(&MyDatabaseState->barrier_drawn);

	if (ticket == 0)
	{
		if (drawn != pg_atomic_read_u64(&MyDatabaseState->barrier_done))
			begin(drawn);
		return;					/* the next turn collects what is there now */
	}
	just_begun = false;
	Assert(ticket <= drawn);
	if (number == 0 && is_collected())
		number = delivery_next_number();
	if (number == 0 || delivery_oldest_number() < number || !outbox_side_is_done())
		return;
	if (resend_has_waiting())
		number = 0;				/* collects again when the node is back */
	else
	{
		pg_atomic_write_u64(&MyDatabaseState->barrier_done, ticket);
		ConditionVariableBroadcast(&MyDatabaseState->barrier_cv);
		ticket = 0;
	}
}

void
wait_barrier_begin_anew(void)
{
	number = 0;
}

bool
wait_barrier_is_asked_for(void)
{
	return pg_atomic_read_u64(&MyDatabaseState->barrier_drawn) !=
		pg_atomic_read_u64(&MyDatabaseState->barrier_done);
}

bool
wait_barrier_needs_turn(void)
{
	return ticket != 0 ? just_begun : wait_barrier_is_asked_for();
}
