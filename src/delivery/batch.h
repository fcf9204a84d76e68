/*
 * batch.h
 *	  Keys on their way to the nodes: many in one command of Redis, of one rule.
 */
#ifndef UNCACHE_BATCH_H
#define UNCACHE_BATCH_H

#include "postgres.h"

#include "delivery/delivery.h"

/*
 * Send a key to its node of each target: as many parts of the delivery as there are targets.
 * delivery_part_done() ends each, perhaps at once.  "is_resend": it was sent before, and is
 * done where the node does not need it again.
 */
extern void batch_add_key(Delivery *delivery, DeliveryPriority priority, const Invalidation *item,
						  bool is_resend);

/* Send what has been gathered, to all nodes. */
extern void batch_send_open(void);

/* Have replicas acknowledge what was sent, where that is asked for. */
extern void batch_ask_replicas(void);

/*
 * Whether more batches should be sent now.  Batches at silent nodes do not count; which nodes
 * are silent was noted by the last batch_look_for_silent().
 */
extern bool batch_has_room(DeliveryPriority priority);
extern void batch_look_for_silent(void);

/* Whether an answer is due that a session waits for, or may. */
extern bool batch_is_awaited(void);

/* Whether any batch is under way. */
extern bool batch_under_way(void);

#endif							/* UNCACHE_BATCH_H */
