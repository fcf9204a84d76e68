/*
 * command.h
 *	  Keys on their way to Redis: many in a command, of one rule.
 */
#ifndef UNCACHE_COMMAND_H
#define UNCACHE_COMMAND_H

#include "postgres.h"

#include "deliver.h"

extern void command_init(DatabaseSlot *slot);

/* Where commands are sent from now on. */
extern void command_use_link(RedisLink *link);

/*
 * Add a key, a part of the delivery.  deliver_part_done() ends it.  The bytes must
 * stay until then; of ITEM_FRAGMENT, a key put together from pieces, they are
 * palloc'd and freed then.
 */
extern void command_add_key(Delivery *delivery, DeliveryClass class, Oid rule,
							ItemKind kind, const char *bytes, uint32 len);

/* Send what has been gathered. */
extern void command_send_open(void);

/* Commands sent and not answered. */
extern int	command_under_way(DeliveryClass class);

/* Whether an answer is due on this link that somebody waits for, or may. */
extern bool command_is_awaited(const RedisLink *link);

#endif							/* UNCACHE_COMMAND_H */
