/*
 * delivery_fragments.h
 *	  Items that are too long for a row: put together from the pieces of several.
 */
#ifndef UNCACHE_DELIVERPIECES_H
#define UNCACHE_DELIVERPIECES_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "delivery/delivery.h"

extern void delivery_fragments_init(void);

typedef enum PieceOutcome
{
	PIECE_DAMAGED,				/* it makes no sense, and nothing was done */
	PIECE_WAITS,				/* for other pieces; it is a part of its delivery */
	PIECE_COMPLETES,			/* *whole is to be sent now, by delivery_fragments_parts() parts */
} PieceOutcome;

/*
 * A piece of a long item, an INVALIDATION_FRAGMENT.  When the last is here, with this delivery,
 * *whole is set, with bytes that stay until the delivery is finished.  The deliveries of all
 * pieces are joined and finish together: a part of this one is a part of all.
 */
extern PieceOutcome delivery_fragments_add(Delivery *delivery, const Invalidation *piece,
									  Invalidation *whole);

/*
 * The whole is about to be sent in so many parts.  Returns whether all of the pieces were
 * sent before, so that the whole goes only to the nodes that need it again.
 */
extern bool delivery_fragments_parts(Delivery *last, int parts);

/* What waits for other pieces is lost. */
extern void delivery_fragments_forget(void);

/*
 * Give up keys of which a piece is missing; "all_read": nothing is left that could bring
 * it.  Returns when to come again.
 */
extern TimestampTz delivery_fragments_turn(TimestampTz now, bool all_read);

#endif							/* UNCACHE_DELIVERPIECES_H */
