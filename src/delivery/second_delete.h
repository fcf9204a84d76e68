/*
 * second_delete.h
 *	  Deleting delivered keys once more, uncache.second_delete_delay later.
 */
#ifndef UNCACHE_SECONDDELETE_H
#define UNCACHE_SECONDDELETE_H

#include "postgres.h"

#include "delivery/delivery_queue.h"

extern void second_delete_init(void);

/* A row was delivered: remember it, if the setting says so. */
extern void second_delete_add(const OutboxRow *row);

/*
 * A second delivery was lost: it is tried again soon, or else when a node that was
 * away comes back.
 */
extern void second_delete_lost(const OutboxRow *row, bool soon);
extern void second_delete_try_lost(void);

/* Whether any are due, now or later. */
extern bool second_delete_has_any(void);

/* Deliver what is due; returns when to come again, DT_NOEND when there is nothing. */
extern TimestampTz second_delete_turn(TimestampTz now);

#endif							/* UNCACHE_SECONDDELETE_H */
