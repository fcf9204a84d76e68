/*
 * batch_int.h
 *	  What batch.c, batch_gather.c and batch_send.c share.
 *
 * batch_gather.c fills a batch with keys, batch_send.c has it while it is under way,
 * batch_confirm.c while replicas are asked, stream.c while its keys are announced, and batch.c
 * ends it.  Only the file that has the batch changes it, and they call each other in this order
 * only.
 */
#ifndef UNCACHE_BATCH_INT_H
#define UNCACHE_BATCH_INT_H

#include "postgres.h"
#include "utils/palloc.h"

#include "delivery/delivery_int.h"
#include "fence/fence_command.h"
#include "topology/node.h"
#include "topology/target.h"

/*
 * Keys in one batch.  In a cluster all keys of a batch hash to one slot, and few keys of a
 * transaction do.
 */
#define BATCH_KEYS			FENCE_COMMAND_KEYS
#define BATCH_KEYS_OF_SLOT	8

/* Where its keys come from.  The first two are as DeliveryPriority. */
typedef enum BatchKind
{
	BATCH_COMMIT = PRIORITY_COMMIT, /* deliveries; a key is a part of one */
	BATCH_SCAN = PRIORITY_SCAN, /* the same */
	BATCH_FOUND,				/* a pass over Redis; no delivery knows the key */
	BATCH_ANNOUNCED,			/* deliveries; keys that are deleted, for the stream */
	BATCH_PATTERNS,				/* the same for patterns, as Redis globs */
} BatchKind;
#define BATCH_KINDS			5

/* Batches that are gathered for a node at the same time: one for each rule (and hash slot). */
#define OPEN_BATCHES		8

typedef struct KeyRef
{
	Delivery   *delivery;		/* NULL in a BATCH_FOUND */
	const char *bytes;			/* the delivery's; of BATCH_FOUND and BATCH_PATTERNS a copy */
	uint32		len;
} KeyRef;

/* Keys of one rule for one node, sent as one command of Redis. */
typedef struct Batch
{
	struct Batch *next;			/* among those that are free, or unconfirmed */
	const Target *target;
	BatchKind	kind;
	Oid			rule;
	uint16		hash_slot;		/* of all keys, in a cluster */
	uint16		room;			/* of keys[] */
	uint32		nkeys;
	uint32		bytes;			/* of all keys */
	bool		has_waiter;		/* a session waits for one of its keys, or may */
	bool		refusable;		/* Redis has refused keys that begin like these */
	bool		unawaited;		/* no session waits for it: refusable, or its node is slow */
	bool		to_confirm;		/* a WAIT follows */
	bool		records_gone;	/* from the node that its hash slot moves away from */
	bool		asking;			/* its node does not have the hash slot yet */
	bool		announced;		/* its deletes are answered; its entry is on its way */
	uint8		hops;			/* times it was sent again because of its answer */
	KeyRef		keys[FLEXIBLE_ARRAY_MEMBER];
} Batch;

/* The batches of a node, in RedisNode.batches. */
typedef struct NodeBatches
{
	/* Written by batch_gather.c. */
	Batch	   *open[OPEN_BATCHES];
	int			nopen;

	/* Written by batch_send.c. */
	int			under_way[BATCH_KINDS];

	/* Written by batch_send.c and stream.c: commands under way that no session waits for. */
	int			no_waiter;

	/* Written by batch_confirm.c. */
	bool		wait_is_due;	/* no WAIT was sent since the last batch to confirm */
	Batch	   *unconfirmed;	/* carried out; the answer to WAIT is due */

	/* Written by stream.c: entries lost since Redis refuses them; 0: it takes them. */
	uint64		entries_lost;
} NodeBatches;

/* Made when there is none yet.  Inline, since it is asked for with every key. */
static inline NodeBatches *
batches_of(RedisNode *node)
{
	if (node->batches == NULL)
		node->batches = MemoryContextAllocZero(node->context, sizeof(NodeBatches));
	return node->batches;
}

/*
 * For delivery_queue.c
 */

/*
 * Send a key to its node of each target: as many parts of the delivery as there are targets.
 * delivery_part_done() ends each, perhaps at once.  "is_resend": it was sent before, and is
 * done where the node does not need it again.
 */
extern void batch_add_key(Delivery *delivery, DeliveryPriority priority, const Invalidation *item,
						  bool is_resend);

/* Send what has been gathered, to all nodes or to one. */
extern void batch_gather_send_all(void);
extern void batch_gather_send(RedisNode *node);

/* Have replicas acknowledge what was sent, where that is asked for. */
extern void batch_confirm_ask(void);

/*
 * Whether more batches should be sent now.  Batches at silent nodes do not count; which nodes
 * are silent was noted by the last batch_look_for_silent().
 */
extern bool batch_has_room(DeliveryPriority priority);
extern void batch_look_for_silent(void);

/* Whether any batch is under way. */
extern bool batch_under_way(void);

/*
 * For pattern_unlink.c
 */

/* Delete a key that a pass has found at this node.  It is copied. */
extern void batch_add_found(RedisNode *node, Oid rule, const KeyRef *key, bool asking);

/*
 * What becomes of such keys.  In "ended": PART_DELIVERED; PART_REFUSED, of a single key, within
 * an answer; PART_RETRY_SOON, where the key is not at this node any more; otherwise it was lost.
 */
typedef void (*BatchFoundEnded) (const Batch *batch, PartOutcome outcome);
extern void batch_set_found_ended(BatchFoundEnded ended);

/*
 * batch.c, batch_confirm.c and batch_send.c
 */

/* A batch without keys; "many": with room for BATCH_KEYS, else for BATCH_KEYS_OF_SLOT. */
extern Batch *batch_new(const Target *target, BatchKind kind, Oid rule, uint16 hash_slot,
						bool many);

/* Add a key to a batch that has room for it. */
extern void batch_append(Batch *batch, const KeyRef *key);

/* How many keys from this one on belong to the same delivery. */
extern int	batch_run_at(const Batch *batch, uint32 i);

/* Memory for a copy of a key, which batch_finish() frees. */
extern char *batch_alloc_key(uint32 len);

/* Free a batch whose keys another one has taken over; or one whose keys end with it. */
extern void batch_free(Batch *batch);
extern void batch_drop(Batch *batch);

/*
 * Send a batch, which is the caller's no longer: it ends with its answer, or at once where
 * the link takes nothing.
 */
extern void batch_send(RedisNode *node, Batch *batch);

/* The next command is for a hash slot that the node does not have yet; false as redis_send(). */
extern bool batch_send_asking(RedisNode *node);

/* Batches under way at all nodes. */
extern int	batch_send_count_under_way(BatchKind kind);

/* End the part of a key's delivery that is this target's. */
extern void batch_key_done(const Target *target, Oid rule, const KeyRef *key,
						   PartOutcome outcome);

/* End such a part for each key of the batch, or tell the pass that found them; and free it. */
extern void batch_finish(Batch *batch, PartOutcome outcome);

/* Before it is sent: note whether replicas are to acknowledge it. */
extern void batch_confirm_decide(RedisNode *node, Batch *batch);

/*
 * The node has carried it out: finish it, when replicas have acknowledged it and the stream is
 * told of it, where that is asked for.
 */
extern void batch_confirm_carried_out(RedisNode *node, Batch *batch);

extern void batch_init(void);

#endif							/* UNCACHE_BATCH_INT_H */
