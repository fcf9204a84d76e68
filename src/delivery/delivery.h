/*
 * delivery.h
 *	  An outbox row on its way: its parts, and what becomes of it.
 *
 * Everything in here belongs to a worker.  delivery_queue.h makes deliveries.
 */
#ifndef UNCACHE_DELIVERY_H
#define UNCACHE_DELIVERY_H

#include "postgres.h"

#include "base/invalidation.h"

/* Small transactions overtake what is large or late. */
typedef enum DeliveryPriority
{
	PRIORITY_COMMIT,				/* from the ring: somebody may wait */
	PRIORITY_SCAN,					/* from a scan */
} DeliveryPriority;
#define DELIVERY_PRIORITIES	2

/* A row on its way. */
typedef struct Delivery Delivery;

/* What became of a part (one item) of a delivery. */
typedef enum PartOutcome
{
	PART_DELIVERED,
	PART_REFUSED,				/* Redis said no, and will again */
	PART_NO_REPLY,					/* no answer; to be sent again when its node is back */
	PART_NODE_DOWN,					/* likewise; it was known to be away, and not sent */
	PART_RETRY_SOON,					/* to be sent again soon */
	PART_UNCONFIRMED,			/* carried out, but too few replicas have it */
} PartOutcome;

/*
 * For those that are given parts: batch.c and pattern_queue.c
 */

/* The transaction that wrote the row. */
extern uint64 delivery_xid(const Delivery *delivery);

/* Whether somebody waits for it, or may: who waits for what a scan finds is unknown. */
extern bool delivery_is_awaited(const Delivery *delivery);

/*
 * A part has ended.  The item is what was given, which is looked at only when it was refused.
 * Of an item that was put together from pieces this ends a part of each piece's delivery.
 * Nothing else happens now: what follows is decided by settle_run(), until which the delivery
 * and its bytes stay.
 */
extern void delivery_part_done(Delivery *delivery, PartOutcome outcome,
							  const Invalidation *item);

/* A part is at a node that nobody waits for; or not any more. */
extern void delivery_part_unawaited(Delivery *delivery);
extern void delivery_part_awaited(Delivery *delivery);

/*
 * All deliveries
 */

/*
 * Every delivery has a number, ascending; the oldest one that is not settled, or the next
 * number when there is none.
 */
extern uint64 delivery_next_number(void);
extern uint64 delivery_oldest_number(void);

/*
 * Have the rows that wait (resend.h) resumed, by a scan that is to be begun then.
 * A row that has a delivery is not one of them.
 */
extern void delivery_release_waiting(void);

/*
 * A server that may have forgotten what it was sent takes part again: what is under
 * way counts as to be repeated when it is delivered.
 */
extern void delivery_repeat_under_way(void);

/*
 * Nobody wants what is under way of a transaction (xid; 0: of all) any more: it ends as
 * delivered, whatever becomes of it.
 */
extern void delivery_discard(uint64 xid);

#endif							/* UNCACHE_DELIVERY_H */
