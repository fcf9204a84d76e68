/*
 * delivery_queue.h
 *	  Sends the keys of outbox rows to Redis and learns what became of them.
 *
 * Everything in here belongs to a worker.
 */
#ifndef UNCACHE_DELIVERY_QUEUE_H
#define UNCACHE_DELIVERY_QUEUE_H

#include "postgres.h"

#include "delivery/resend.h"
#include "delivery/delivery.h"
#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

extern void delivery_queue_init(DatabaseState *database);

/* Whether more should be taken now. */
extern bool delivery_queue_has_room(DeliveryPriority priority);

/* Take a row.  The items are copied; of a row of an outbox table the state is set. */
extern void delivery_queue_take(DeliveryPriority priority, const OutboxRow *row);

/* The same for the readers of the outbox, as PRIORITY_SCAN. */
extern const OutboxSink delivery_queue_sink;

/* Send what may be sent now. */
extern void delivery_queue_send(void);

/* Whether rows were taken of which something has not been sent yet. */
extern bool delivery_queue_has_unsent(void);

/* Whether the last delivery_queue_send() has left something for the next turn that is due at once. */
extern bool delivery_queue_wants_turn(void);

/*
 * All links are gone and have answered everything with NULL: what was not sent yet ends as lost,
 * too.  When it is settled there is no delivery left.
 */
extern void delivery_queue_forget_unsent(void);

#endif							/* UNCACHE_DELIVERY_QUEUE_H */
