/*
 * batch.c
 *	  A batch of keys: made, and ended.
 *
 * A batch ends as a whole: each of its keys ends a part of a delivery, all with the same outcome;
 * of the keys that a pass over Redis has found the pass is told instead (pattern_unlink.c).
 * Its memory is kept for the next batch, since a worker under load needs as many again at once.
 *
 * Of a key that ends neither delivered nor refused it is noted that its node needs it again
 * (resend.h), since its row will be sent again.  After a crash nothing of this is known, and all
 * rows are sent again, to all nodes.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/batch_int.h"
#include "delivery/resend.h"

static MemoryContext context;
static Batch *free_batches[2];	/* with room for few keys, and for many */
static BatchFoundEnded found_ended;

void
batch_init(void)
{
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache batches",
									ALLOCSET_DEFAULT_SIZES);
}

Batch *
batch_new(const Target *target, BatchKind kind, Oid rule, uint16 hash_slot, bool many)
{
	Batch	   *batch = free_batches[many];

	Assert(kind >= 0 && kind < BATCH_KINDS);
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
	batch->announced = false;
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

/* Whether the bytes of its keys are its own, rather than a delivery's. */
static bool
owns_keys(const Batch *batch)
{
	return batch->kind == BATCH_FOUND || batch->kind == BATCH_PATTERNS;
}

void
batch_drop(Batch *batch)
{
	for (uint32 i = 0; owns_keys(batch) && i < batch->nkeys; i++)
		pfree(unconstify(char *, batch->keys[i].bytes));
	batch_free(batch);
}

void
batch_key_done(const Target *target, Oid rule, const KeyRef *key, PartOutcome outcome)
{
	Invalidation item = {
		.kind = INVALIDATION_KEY, .rule = rule, .bytes = key->bytes, .len = key->len
	};

	Assert(key->delivery != NULL);
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
asking_answered(void *arg, const RedisReply *reply)
{
	/* The answer to the command that follows it tells. */
}

bool
batch_send_asking(RedisNode *node)
{
	const char *argv[] = {"ASKING"};

	Assert(node->in_cluster);
	return node->link != NULL && redis_send_texts(node->link, 1, argv, asking_answered, NULL);
}

int
batch_run_at(const Batch *batch, uint32 i)
{
	uint32		end = i + 1;

	Assert(i < batch->nkeys);
	while (end < batch->nkeys && batch->keys[end].delivery == batch->keys[i].delivery)
		end++;
	return end - i;
}

/* The deletes of an announced batch are done: stream.c has noted what is to be sent again. */
static void
finish_announced(const Batch *batch, PartOutcome outcome)
{
	int			run;

	Assert(outcome != PART_REFUSED && !batch->unawaited);
	for (uint32 i = 0; i < batch->nkeys; i += run)
	{
		run = batch_run_at(batch, i);
		delivery_entry_done(batch->keys[i].delivery, run, outcome);
	}
}

static void
finish_keys(const Batch *batch, PartOutcome outcome)
{
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		if (batch->unawaited)
			delivery_part_awaited(batch->keys[i].delivery);
		batch_key_done(batch->target, batch->rule, &batch->keys[i], outcome);
	}
}

void
batch_finish(Batch *batch, PartOutcome outcome)
{
	if (batch->kind == BATCH_FOUND)
		found_ended(batch, outcome);
	else if (batch->announced)
		finish_announced(batch, outcome);
	else
		finish_keys(batch, outcome);
	batch_drop(batch);
}
