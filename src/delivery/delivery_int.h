/*
 * delivery_int.h
 *	  What the files of this folder share; no other folder includes it.
 *
 * A call goes downwards only:
 *
 *		second_delete_run, refusal_probe		sources in memory
 *		delivery_queue							takes rows and gives their items on
 *		batch, pattern_queue, delivery_fragments	get items, and end parts
 *		delivery								counts parts
 *
 *		settle									empties the list of ended deliveries
 *		second_delete_add, resend, outbox		gets what follows
 */
#ifndef UNCACHE_DELIVERY_INT_H
#define UNCACHE_DELIVERY_INT_H

#include "postgres.h"
#include "lib/ilist.h"

#include "base/invalidation.h"
#include "delivery/delivery.h"
#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

/* What became of a part (one item) of a delivery. */
typedef enum PartOutcome
{
	PART_DELIVERED,
	PART_REFUSED,				/* Redis said no, and will again */
	PART_NO_REPLY,				/* sent, but not answered; sent again when the node is back */
	PART_NODE_DOWN,				/* not sent, since the node is away; sent when it is back */
	PART_RETRY_SOON,			/* to be sent again soon */
	PART_UNCONFIRMED,			/* carried out, but too few replicas have it */
} PartOutcome;

/* An outbox row on its way. */
typedef struct Delivery
{
	dlist_node	all_node;		/* in all_deliveries, by number */
	dlist_node	queue_node;		/* in a queue of delivery_queue.c until all parts are sent */
	dlist_node	settle_node;	/* in to_settle, while to_settle */
	bool		to_settle;
	uint64		number;
	DeliveryPriority priority;
	OutboxRow	row;			/* row.items is this delivery's own copy */
	InvalidationReader reader;	/* items not sent yet */
	uint32		parts_left;		/* under way, plus one until all are sent */
	uint32		parts_unawaited;	/* of these, parts that no session waits for */
	uint32		parts_announced;	/* and parts whose delete is answered (stream.c) */
	bool		lost;			/* a part was; without it lost_* mean nothing */
	bool		lost_delete;	/* it was not its entry in the stream alone */
	bool		lost_under_way; /* a session may have waited for its answer */
	bool		lost_for_now;	/* all lost parts are PART_RETRY_SOON */
	uint64		lost_before;	/* resend_releases() when the first was lost */
	bool		to_repeat;		/* a node that has it already may have forgotten it */
	bool		discarded;		/* ends as delivered */
	bool		is_fragment;	/* this and the next two: delivery_fragments.c */
	char	   *assembled;		/* the item of which it is the last fragment, or NULL */
	struct Delivery *joined;	/* other fragments of the same item; a chain */

	/*
	 * Which of the row's items Redis refused: a bit for each byte of the row, set where such an
	 * item's bytes begin.  NULL: none.  Of a fragment only whether it is NULL means anything.
	 */
	uint8	   *refused;
	char	   *refused_error;	/* what Redis said of the first; NULL without */
} Delivery;

/*
 * delivery.c
 */

extern void delivery_init(void);

/*
 * A delivery for this row, of which the items are copied.  It counts one part until
 * delivery_all_sent(); the caller adds each part that it gives on to parts_left before.
 */
extern Delivery *delivery_new(DeliveryPriority priority, const OutboxRow *row);

/* All items of the delivery are under way (or can't be read). */
extern void delivery_all_sent(Delivery *delivery);

/* The transaction that wrote the row. */
extern uint64 delivery_xid(const Delivery *delivery);

/* Whether a session waits for it, or may: of a row that a scan has found it is not known. */
extern bool delivery_is_awaited(const Delivery *delivery);

/*
 * A part has ended.  The item is what was given, which is looked at only when it was refused.
 * Of an item that was put together from fragments this ends a part of each fragment's delivery.
 * Nothing else happens now: settle_run() decides what follows; until then the delivery and its
 * bytes stay.
 */
extern void delivery_part_done(Delivery *delivery, PartOutcome outcome,
							   const Invalidation *item);

/* A part is at a node that no session waits for; or not any more. */
extern void delivery_part_unawaited(Delivery *delivery);
extern void delivery_part_awaited(Delivery *delivery);

/*
 * The deletes of so many parts are answered, and their entry in the stream is on its way, for
 * which no session waits.  delivery_entry_done() ends the parts, of this delivery and of those
 * that are joined to it: the entry is answered, or lost.
 */
extern void delivery_part_announced(Delivery *delivery, int parts);
extern void delivery_entry_done(Delivery *delivery, int parts, PartOutcome outcome);

/* One part more, of this delivery and of those that are joined to it. */
extern void delivery_part_added(Delivery *delivery);

/* A part of it is lost.  Ends none. */
extern void delivery_note_lost(Delivery *delivery, PartOutcome outcome);

/*
 * For settle.c: the next delivery of which the last part has ended, or of which only parts are
 * left that no session waits for, or whose deletes are all answered; in the order in which that
 * happened; NULL: there is none.
 */
extern Delivery *delivery_next_to_settle(void);

/* Whether only parts are left of it that no session waits for. */
extern bool delivery_is_unawaited(const Delivery *delivery);

/* Whether all that is left of it are entries in the stream. */
extern bool delivery_is_announced(const Delivery *delivery);

/* Free it; its last part has ended, and all that follows from that was done. */
extern void delivery_free(Delivery *delivery);

/*
 * delivery_fragments.c
 */

extern void delivery_fragments_init(void);

typedef enum FragmentOutcome
{
	FRAGMENT_DAMAGED,			/* it makes no sense, and nothing was done */
	FRAGMENT_WAITS,				/* for others; it is a part of its delivery */
	FRAGMENT_COMPLETES,			/* *whole is to be sent, by delivery_fragments_parts() parts */
} FragmentOutcome;

/*
 * A fragment of a long item (INVALIDATION_FRAGMENT).  When the last one is here, with this
 * delivery, *whole is set, with bytes that stay until the delivery is settled.  The deliveries of
 * all fragments are joined and end together: a part of this one is a part of all.
 */
extern FragmentOutcome delivery_fragments_add(Delivery *delivery, const Invalidation *fragment,
											  Invalidation *whole);

/*
 * The whole is about to be sent in so many parts.  Returns whether all fragments were sent before,
 * so that it goes only to the nodes that need it again.
 */
extern bool delivery_fragments_parts(Delivery *last, int parts);

/* The links are gone: items of which a fragment is missing are lost. */
extern void delivery_fragments_forget(void);

/*
 * pattern_queue.c
 */

extern void pattern_queue_init(void);

/* Take a pattern, a part of the delivery.  delivery_part_done() ends it. */
extern void pattern_queue_add(Delivery *delivery, const Invalidation *item);

/* The links are gone: every pattern is lost. */
extern void pattern_queue_forget(void);

/*
 * second_delete.c
 */

/* A row was delivered: remember it, if uncache.second_delete_delay says so. */
extern void second_delete_add(const OutboxRow *row);

/* A second delete was lost: it is tried again soon, or else when a node comes back. */
extern void second_delete_lost(const OutboxRow *row, bool soon);

#endif							/* UNCACHE_DELIVERY_INT_H */
