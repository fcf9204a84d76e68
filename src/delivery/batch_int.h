/*
 * batch_int.h
 *	  What batch.c, batch_send.c and commandend.c share, and nobody else sees.
 *
 * batch.c gathers keys in a command, batch_send.c has it while it is under way, and
 * commandend.c ends it.  Whoever has it is the only one to change it, and calls go in this
 * order only.
 */
#ifndef UNCACHE_COMMAND_INT_H
#define UNCACHE_COMMAND_INT_H

#include "postgres.h"
#include "utils/palloc.h"

#include "delivery/batch.h"
#include "topology/node.h"
#include "topology/target.h"

/*
 * Keys in one command.  Redis carries a command out in one go: 128 keys are about
 * 150 microseconds in which nobody else is served.  Few keys of a transaction are in
 * the same slot of a cluster.
 */
#define COMMAND_KEYS		128
#define COMMAND_KEYS_OF_SLOT 8

/* Rules (and slots) whose keys are gathered at the same time. */
#define OPEN_COMMANDS		8

typedef struct KeyRef
{
	Delivery   *delivery;
	const char *bytes;
	uint32		len;
} KeyRef;

/* Keys of one node, being gathered or under way. */
typedef struct Command
{
	struct Command *next;		/* free, or unconfirmed */
	const Target *target;
	DeliveryPriority class;
	Oid			rule;
	uint16		slot;
	uint16		room;			/* of keys[] */
	uint32		nkeys;
	uint32		bytes;
	bool		awaited;		/* somebody waits for the answer, or may */
	bool		refusable;		/* Redis has refused such keys; nobody waits for them */
	bool		late;			/* nobody waits for it, for that or for its node's sake */
	bool		to_confirm;		/* a WAIT follows */
	bool		records_gone;	/* from the node that its slot moves away from */
	uint8		hops;
	KeyRef		keys[FLEXIBLE_ARRAY_MEMBER];
} Command;

/* What is kept of a node, in RedisNode.commands. */
typedef struct CommandQueue
{
	/* batch.c */
	Command    *open[OPEN_COMMANDS];
	int			nopen;

	/* batch_send.c */
	int			under_way[DELIVERY_PRIORITIES];
	int			not_awaited;	/* of those under way */

	/* commandend.c */
	bool		wait_is_due;	/* no WAIT was sent since the last command to confirm */
	Command    *unconfirmed;	/* carried out, the answer to WAIT is due */
} CommandQueue;

/* Made when there is none yet.  Inline, since it is asked for with every key. */
static inline CommandQueue *
command_queue_of(RedisNode *node)
{
	if (node->commands == NULL)
		node->commands = MemoryContextAllocZero(node->context, sizeof(CommandQueue));
	return node->commands;
}

/* A command without keys.  "many": with room for COMMAND_KEYS, else for COMMAND_KEYS_OF_SLOT. */
extern Command *batch_new(const Target *target, DeliveryPriority class, Oid rule, uint16 key_slot,
							bool many);

/* Free it; its keys were taken over. */
extern void batch_free(Command *command);

/*
 * Send it.  The command is not the caller's any more: it is finished with its answer, or
 * at once where the link is of no use.
 */
extern void batch_send(RedisNode *node, Command *command);

/* At all nodes. */
extern int	batch_send_count_under_way(DeliveryPriority class);

/* End a part of the key's delivery, for this target. */
extern void batch_key_done(const Target *target, Oid rule, const KeyRef *key,
							 PartOutcome outcome);

/* End a part for each of its keys, and free it. */
extern void batch_finish(Command *command, PartOutcome outcome);

/* It is about to be sent, so its queue exists: see whether replicas are to acknowledge it. */
extern void batch_see_to_confirm(RedisNode *node, Command *command);

/* The node has carried it out: finish it, now or when replicas have acknowledged it. */
extern void batch_carried_out(RedisNode *node, Command *command);

extern void batch_send_init(void);
extern void commandend_init(void);

#endif							/* UNCACHE_COMMAND_INT_H */
