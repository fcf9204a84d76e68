/*
 * deliverpieces.h
 *	  Keys that are too long for a row: put together from the pieces of several.
 */
#ifndef UNCACHE_DELIVERPIECES_H
#define UNCACHE_DELIVERPIECES_H

#include "postgres.h"

#include "delivery.h"

extern void deliverpieces_init(void);

/*
 * A piece of a long key, an ITEM_FRAGMENT.  The key is sent when all its pieces are here;
 * their deliveries are joined and finish together.  Returns false where the piece does
 * not make sense.
 */
extern bool deliverpieces_add(Delivery *delivery, const PackedItem *item);

/* What waits for other pieces is lost. */
extern void deliverpieces_forget(void);

#endif							/* UNCACHE_DELIVERPIECES_H */
