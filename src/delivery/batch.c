/*
 * batch.c
 *	  A batch of keys: made, confirmed by replicas, and ended.
 *
 * A batch ends as a whole: each of its keys ends a part of a delivery, all with the same outcome;
 * of the keys that a pass over Redis has found the pass is told instead (pattern_unlink.c).
 * Its memory is kept for the next batch, since a worker under load needs as many again at once.
 *
 * Where replicas are to acknowledge (replica_ack.c), a batch that Redis has carried out ends with
 * the answer to the WAIT that follows it on the link.  One WAIT is for all batches before it.
 * Where too few replicas have them in time the outcome is PART_UNCONFIRMED; as long as they are
 * known to be too few, no session waits for such a batch.
 *
 * Of a key that ends neither delivered nor refused it is noted that its node needs it again
 * (resend.h), since its row will be sent again.  After a crash nothing of this is known, and all
 * rows are sent again, to all nodes.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/batch_int.h"
#include "delivery/resend.h"
#include "delivery/replica_ack.h"

static MemoryContext context;
static Batch *free_batches[2];	/* with room for few keys, and for many */
static BatchFoundEnded found_ended;

void
batch_init(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache batches",
									ALLOCSET_DEFAULT_SIZES);
}

Batch *
batch_new(const Target *target, BatchKind kind, Oid rule, uint16 hash_slot, bool many)
{
	Batch	   *batch = free_batches[many];

	if (batch)
		free_batches[many] = batch->next;
	else
	{
		int			room = many ? BATCH_KEYS : BATCH_KEYS_OF_SLOT;

		batch = MemoryContextAlloc(context, offsetof(Batch, keys) + room * sizeof(KeyRef));
		batch->room = room;
	}
	batch->target = target;
	batch->kind = kind;
	batch->rule = rule;
	batch->hash_slot = hash_slot;
	batch->nkeys = 0;
	batch->bytes = 0;
	batch->has_waiter = false;
	batch->refusable = false;
	batch->unawaited = false;
	batch->to_confirm = false;
	batch->records_gone = false;
	batch->asking = false;
	batch->hops = 0;
	return batch;
}

char *
batch_alloc_key(uint32 len)
{
	return MemoryContextAlloc(context, Max(len, 1));
}

void
batch_append(Batch *batch, const KeyRef *key)
{
	Assert(batch->nkeys < batch->room);
	Assert((key->delivery == NULL) == (batch->kind == BATCH_FOUND));
	batch->keys[batch->nkeys++] = *key;
	batch->bytes += key->len;
}

void
batch_free(Batch *batch)
{
	bool		many = batch->room == BATCH_KEYS;

	Assert(many || batch->room == BATCH_KEYS_OF_SLOT);
	batch->next = free_batches[many];
	free_batches[many] = batch;
}

void
batch_key_done(const Target *target, Oid rule, const KeyRef *key, PartOutcome outcome)
{
	Invalidation item = {
		.kind = INVALIDATION_KEY, .rule = rule, .bytes = key->bytes, .len = key->len
	};

	if (outcome != PART_DELIVERED && outcome != PART_REFUSED)
		resend_note_key(target, key->bytes, key->len);
	delivery_part_done(key->delivery, outcome, &item);
}

void
batch_set_found_ended(BatchFoundEnded ended)
{
	found_ended = ended;
}

static void
finish_found(Batch *batch, PartOutcome outcome)
{
	found_ended(batch, outcome);
	for (uint32 i = 0; i < batch->nkeys; i++)
		pfree(unconstify(char *, batch->keys[i].bytes));
	batch_free(batch);
}

void
batch_finish(Batch *batch, PartOutcome outcome)
{
	if (batch->kind == BATCH_FOUND)
	{
		finish_found(batch, outcome);
		return;
	}
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		if (batch->unawaited)
			delivery_part_awaited(batch->keys[i].delivery);
		batch_key_done(batch->target, batch->rule, &batch->keys[i], outcome);
	}
	batch_free(batch);
}

/*
 * --------------------------------------------------------------------------
 * Confirmed by replicas
 * --------------------------------------------------------------------------
 */

void
batch_decide_to_confirm(RedisNode *node, Batch *batch)
{
	/* A pass asks for all of its keys at its end (pattern_scan.c). */
	batch->to_confirm = batch->kind != BATCH_FOUND && replica_ack_are_wanted() &&
		!replica_ack_are_short(node);
	node->batches->wait_is_due |= batch->to_confirm;
}

void
batch_carried_out(RedisNode *node, Batch *batch)
{
	if (batch->to_confirm)
	{
		batch->next = node->batches->unconfirmed;
		node->batches->unconfirmed = batch;
	}
	else if (batch->kind != BATCH_FOUND && replica_ack_are_short(node))
		batch_finish(batch, PART_UNCONFIRMED);
	else
		batch_finish(batch, PART_DELIVERED);
}

static void
finish_unconfirmed(RedisNode *node, PartOutcome outcome)
{
	Batch	   *batch = node->batches->unconfirmed;

	node->batches->unconfirmed = NULL;
	while (batch)
	{
		Batch	   *next = batch->next;

		batch_finish(batch, outcome);
		batch = next;
	}
}

/* Every batch sent before this WAIT has been answered, and none that was sent after it. */
static void
wait_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply == NULL)
		finish_unconfirmed(node, PART_NO_REPLY);
	else
		finish_unconfirmed(node, replica_ack_note(node, reply) ? PART_DELIVERED : PART_UNCONFIRMED);
}

void
batch_ask_replicas(void)
{
	for (int n = 0; n < node_count(); n++)
	{
		RedisNode  *node = node_at(n);
		NodeBatches *queue = node->batches;

		if (queue == NULL || !queue->wait_is_due)
			continue;
		queue->wait_is_due = false;
		if (node->link == NULL || !replica_ack_ask(node, wait_answered))
			finish_unconfirmed(node, PART_NO_REPLY);	/* the link has failed */
	}
}
