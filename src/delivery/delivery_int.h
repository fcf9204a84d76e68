/*
 * delivery_int.h
 *	  What delivery.c, delivery_queue.c, delivery_fragments.c and settle.c share.
 */
#ifndef UNCACHE_DELIVERY_INT_H
#define UNCACHE_DELIVERY_INT_H

#include "postgres.h"
#include "lib/ilist.h"

#include "delivery/delivery.h"
#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

struct Delivery
{
	dlist_node	all_node;		/* in all_deliveries, by number */
	dlist_node	queue_node;		/* delivery_queue.c: in queues[priority], until all parts are sent */
	dlist_node	settle_node;	/* in to_settle, while to_settle */
	bool		to_settle;
	uint64		number;
	DeliveryPriority priority;
	OutboxRow row;			/* row.items is this delivery's own copy */
	InvalidationReader	reader;			/* items not sent yet */
	uint32		parts_left;		/* under way, plus one until all are sent */
	uint32		parts_unawaited;		/* of these, at nodes that nobody waits for */
	bool		lost;
	bool		lost_under_way; /* somebody may have waited in vain */
	bool		lost_for_now;	/* and nothing else: it won't take long */
	bool		to_repeat;		/* a node that has it already may have forgotten it */
	uint64		lost_before;	/* resend_releases() at the time */
	bool		discarded;		/* ends as delivered */
	bool		is_fragment;	/* this and the next two: delivery_fragments.c */
	char	   *assembled;		/* the item of which it is the last piece, or NULL */
	Delivery   *joined;			/* other pieces of the same item; a chain */

	/*
	 * Which of the row's items Redis refused: a bit for each byte of the row, set where such
	 * an item's bytes begin.  NULL: none.  Means nothing for a fragment but that it was
	 * refused.
	 */
	uint8	   *refused;
	char	   *refused_error;	/* what Redis said of the first; NULL without */
};

extern void delivery_init(void);

/*
 * A delivery for this row, of which the items are copied.  It counts one part until
 * delivery_all_sent(); whoever gives a part on adds it to parts_left before.
 */
extern Delivery *delivery_new(DeliveryPriority priority, const OutboxRow *row);

/* All items of the delivery are under way (or can't be read). */
extern void delivery_all_sent(Delivery *delivery);

/* Something of it is lost.  Ends nothing. */
extern void delivery_note_lost(Delivery *delivery, PartOutcome outcome);

/*
 * For settle.c.  The next delivery, in the order of their ends, of which the last part has
 * ended, or of which only parts are left that nobody waits for; NULL: there is none.  Each
 * comes once for either.
 */
extern Delivery *delivery_next_to_settle(void);

/* Whether nothing is left of it but parts that nobody waits for. */
extern bool delivery_is_unawaited(const Delivery *delivery);

/* Free it; its last part has ended, and all that follows from that was done. */
extern void delivery_free(Delivery *delivery);

#endif							/* UNCACHE_DELIVERY_INT_H */
