/*
 * batch.h
 *	  Keys on their way to the nodes: many in a command, of one rule.
 */
#ifndef UNCACHE_COMMAND_H
#define UNCACHE_COMMAND_H

#include "postgres.h"

#include "delivery/delivery.h"
#include "shmem/shmem.h"

extern void batch_init(DatabaseState *database);

/*
 * Send a key to its node of each target: as many parts of the delivery as there are
 * targets.  delivery_part_done() ends each, perhaps at once.  The bytes must stay
 * until then.  "only_lacking": it was sent before, and is done where the node lacks nothing.
 */
extern void batch_add_key(Delivery *delivery, DeliveryPriority class, const Invalidation *item,
							bool only_lacking);

/* Send what has been gathered, to all nodes. */
extern void batch_send_open(void);

/* Have replicas acknowledge what was sent, where that is asked for. */
extern void batch_ask_replicas(void);

/*
 * Whether more commands should be sent now.  Commands at silent nodes do not count;
 * which nodes are silent is looked for first, by the other function.
 */
extern bool batch_has_room(DeliveryPriority class);
extern void batch_look_for_silent(void);

/* Whether an answer is due that somebody waits for, or may. */
extern bool batch_is_awaited(void);

/* Whether any command is under way. */
extern bool batch_under_way(void);

#endif							/* UNCACHE_COMMAND_H */
