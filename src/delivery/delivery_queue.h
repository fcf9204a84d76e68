/*
 * delivery_queue.h
 *	  Sends the keys of outbox rows to Redis and learns what became of them.
 *
 * Everything in here belongs to a worker.
 */
#ifndef UNCACHE_DELIVER_H
#define UNCACHE_DELIVER_H

#include "postgres.h"

#include "delivery/resend.h"
#include "delivery/delivery.h"
#include "shmem/shmem.h"

extern void deliver_init(DatabaseSlot *slot);

/* Whether more should be taken now. */
extern bool deliver_has_room(DeliveryClass class);

/* Take a row.  The items are copied; of a row of an outbox table the state is set. */
extern void deliver_take(DeliveryClass class, const DeliveryRow *row);

/* Send what may be sent now. */
extern void deliver_send(void);

/* Whether rows were taken of which something has not been sent yet. */
extern bool deliver_has_unsent(void);

/* Whether the last deliver_send() has left something for the next turn that is due at once. */
extern bool deliver_wants_turn(void);

/*
 * All links are gone and have answered everything with NULL: forget what was not
 * sent yet, too.
 */
extern void deliver_forget_unsent(void);

#endif							/* UNCACHE_DELIVER_H */
