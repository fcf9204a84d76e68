/*
 * delivery.h
 *	  From an outbox row to Redis: what the worker calls in a turn.
 *
 * Everything in here belongs to a worker.  A function *_run() does what is due at "now" and
 * returns when to call it again; DT_NOEND: only when something else happens.
 */
#ifndef UNCACHE_DELIVERY_H
#define UNCACHE_DELIVERY_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "outbox/outbox_row.h"

/* Small transactions overtake what is large or late. */
typedef enum DeliveryPriority
{
	PRIORITY_COMMIT,			/* from the ring: a session may wait for it */
	PRIORITY_SCAN,				/* from a scan, or from memory */
} DeliveryPriority;
#define DELIVERY_PRIORITIES	2

/* Once, in the worker. */
extern void delivery_queue_init(void);
extern void second_delete_init(void);

/*
 * Taking and sending: delivery_queue.c, batch_gather.c
 */

/* Whether more rows should be taken now. */
extern bool delivery_queue_has_room(DeliveryPriority priority);

/* Take a row.  The items are copied; of a row of an outbox table the state is set. */
extern void delivery_queue_take(DeliveryPriority priority, const OutboxRow *row);

/* The same for the readers of the outbox, as PRIORITY_SCAN. */
extern const OutboxSink delivery_queue_sink;

/* Send what may be sent now. */
extern void delivery_queue_send(void);

/* Whether rows were taken of which something has not been sent yet. */
extern bool delivery_queue_has_unsent(void);

/* Whether the last delivery_queue_send() has left something for a turn that follows at once. */
extern bool delivery_queue_wants_turn(void);

/* Whether an answer is due that a session waits for, or may. */
extern bool batch_is_awaited(void);

/*
 * All links are gone and have answered everything with NULL: items that were not sent yet end as
 * lost, too.  When it is settled there is no delivery left.
 */
extern void delivery_queue_forget_unsent(void);

/*
 * Steps of the turn: second_delete.c, refusal_probe.c, delivery_fragments.c, pattern_queue.c
 */

/* Take rows whose keys are to be deleted once more now. */
extern TimestampTz second_delete_run(TimestampTz now);

/* Whether there are any, now or later. */
extern bool second_delete_has_any(void);

/* A node has come back: try those again that were lost because a node was away. */
extern void second_delete_try_lost(void);

/* Ask Redis, once a second, whether it still refuses what it has refused. */
extern TimestampTz refusal_probe_run(TimestampTz now);

/*
 * Give up long items of which a fragment is missing.  "all_read": nothing is left to be read
 * that could bring it.
 */
extern TimestampTz delivery_fragments_run(TimestampTz now, bool all_read);

/* Begin a pass for the patterns that wait, if one is due, or do the next slice of it. */
extern TimestampTz pattern_queue_run(TimestampTz now);

/*
 * What follows: settle.c
 */

/*
 * Settle every delivery that has ended since the last call, and let go of the waiters of those of
 * which only parts are left that no session waits for.  Sends and takes nothing.  Called by the
 * worker after each step of its turn in which answers arrive or links break.
 */
extern void settle_run(void);

/*
 * All deliveries: delivery.c
 */

/*
 * Every delivery has a number, ascending.  delivery_oldest_number(): of the oldest one that is
 * not settled, or the next number when there is none.
 */
extern uint64 delivery_next_number(void);
extern uint64 delivery_oldest_number(void);

/*
 * Release the rows that wait to be sent again (resend.h), before a scan of the outbox begins
 * that takes them.  A row that has a delivery is not one of them.
 */
extern void delivery_release_waiting(void);

/*
 * A server that may have forgotten what it was sent takes part again: the row of each delivery
 * is sent again when it was delivered.
 */
extern void delivery_repeat_under_way(void);

/* The deliveries of a transaction (xid; 0: all) end as delivered, whatever becomes of them. */
extern void delivery_discard(uint64 xid);

#endif							/* UNCACHE_DELIVERY_H */
