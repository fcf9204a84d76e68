/*
 * pattern_unlink.c
 *	  The keys that a pass over Redis has found, on their way: many in an UNLINK, of one rule.
 *
 * Keys are gathered by rule, so that the views can tell how many a rule had, and sent at the
 * end of each slice of the pass.  A batch keeps its keys until it is answered: when it is
 * refused each of them is sent by itself, to find the one that is refused.
 *
 * When a node's link breaks its batches are lost, and so is the pass.  A key that a node of a
 * cluster redirects is not followed: pattern_unlink_missed() says so.  Batches are in the memory of
 * the pass; keys that were deleted before a crash stay deleted, which is harmless.
 */
#include "postgres.h"

#include "delivery/pattern_unlink.h"
#include "shmem/counters.h"
#include "shmem/shmem.h"
#include "redis/redis_error.h"

/* Keys in one UNLINK, as in batch_int.h; in a cluster one, since they must be of one slot. */
#define UNLINK_KEYS		128

/* A batch is sent when it has as many bytes, even if there is room for more keys. */
#define UNLINK_BYTES	(64 * 1024)

/* Rules whose keys are gathered at the same time. */
#define OPEN_BATCHES	8

/* Batches under way at a node: as many as of other bulk deliveries (batch.c). */
#define BATCHES_MOST	8
#define SLOT_FACTOR		16

typedef struct Batch
{
	Oid			rule;
	int			nkeys;
	StringInfoData keys;		/* one after the other */
	size_t		lens[UNLINK_KEYS];
} Batch;

static const PatternUnlinkCallbacks *callbacks;

/* Of the running pass. */
static MemoryContext context;
static bool asking;
static int	under_way;
static bool lost;
static bool missed;

/* Of the node that keys are given for, between pattern_unlink_add() and _send(). */
static Batch *gathering[OPEN_BATCHES];

/* The batches of a node, in RedisNode.unlinks. */
typedef struct NodeUnlinks
{
	uint64		pass;			/* of which; else the rest means nothing */
	int			under_way;
} NodeUnlinks;

static uint64 pass_number = 0;

void
pattern_unlink_init(const PatternUnlinkCallbacks *my_callbacks)
{
	callbacks = my_callbacks;
}

void
pattern_unlink_begin(bool must_ask)
{
	context = CurrentMemoryContext;
	asking = must_ask;
	under_way = 0;
	lost = false;
	missed = false;
	pass_number++;
	memset(gathering, 0, sizeof(gathering));
}

void
pattern_unlink_end(void)
{
	under_way = 0;
	pass_number++;
}

int
pattern_unlink_under_way(void)
{
	return under_way;
}

bool
pattern_unlink_lost(void)
{
	return lost;
}

bool
pattern_unlink_missed(void)
{
	return missed;
}

static NodeUnlinks *
unlinks_of(RedisNode *node)
{
	if (node->unlinks == NULL)
		node->unlinks = MemoryContextAllocZero(node->context, sizeof(NodeUnlinks));
	if (node->unlinks->pass != pass_number)
	{
		node->unlinks->pass = pass_number;
		node->unlinks->under_way = 0;
	}
	return node->unlinks;
}

bool
pattern_unlink_has_room(const RedisNode *node)
{
	return node->unlinks == NULL || node->unlinks->pass != pass_number ||
		node->unlinks->under_way < BATCHES_MOST * (node->in_cluster ? SLOT_FACTOR : 1);
}

/* The key that was to be deleted is about to be at another node. */
bool
pattern_unlink_is_moving(const RedisReply *reply)
{
	return redis_reply_is_error(reply, "MOVED") || redis_reply_is_error(reply, "ASK") ||
		redis_reply_is_error(reply, "TRYAGAIN");
}

/*
 * --------------------------------------------------------------------------
 * Batches under way
 * --------------------------------------------------------------------------
 */

static void send_batch(RedisNode *node, Batch *batch);

static Batch *
make_batch(Oid rule)
{
	Batch	   *batch = MemoryContextAlloc(context, sizeof(Batch));
	MemoryContext old = MemoryContextSwitchTo(context);

	batch->rule = rule;
	batch->nkeys = 0;
	initStringInfo(&batch->keys);
	MemoryContextSwitchTo(old);
	return batch;
}

static void
add_to_batch(Batch *batch, const char *key, size_t len)
{
	batch->lens[batch->nkeys++] = len;
	appendBinaryStringInfo(&batch->keys, key, len);
}

static void
free_batch(Batch *batch)
{
	pfree(batch->keys.data);
	pfree(batch);
}

static void
split_batch(RedisNode *node, Batch *batch)
{
	const char *key = batch->keys.data;

	for (int i = 0; i < batch->nkeys; i++)
	{
		Batch	   *single = make_batch(batch->rule);

		add_to_batch(single, key, batch->lens[i]);
		key += batch->lens[i];
		send_batch(node, single);
	}
}

static void
batch_refused(RedisNode *node, Batch *batch, const RedisReply *reply)
{
	const char *why;

	if (node->in_cluster && pattern_unlink_is_moving(reply))
		missed = true;
	else if (redis_reply_type(reply) != REDIS_ERROR || redis_error_is_fatal(reply, &why))
	{
		node_note_trouble(node, reply);
		lost = true;
	}
	else if (batch->nkeys > 1)
		split_batch(node, batch);
	else
	{
		shmem_note_error(MyDatabaseState, redis_error_note_refusal(reply));
		callbacks->refused(node, batch->keys.data, batch->lens[0]);
	}
}

static void
batch_answered(void *arg, const RedisReply *reply)
{
	Batch	   *batch = arg;
	RedisNode  *node = node_answering();

	under_way--;
	unlinks_of(node)->under_way--;
	if (reply == NULL)
		lost = true;
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		int64		existed = redis_reply_integer(reply);

		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys_existed, existed);
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys, existed);
		counters_count_rule(batch->rule, existed, existed);
	}
	else
		batch_refused(node, batch, reply);
	free_batch(batch);
	callbacks->answered();
}

static void
asking_answered(void *arg, const RedisReply *reply)
{
	/* The answer to the UNLINK that follows tells. */
}

static void
send_batch(RedisNode *node, Batch *batch)
{
	const char *argv[1 + UNLINK_KEYS] = {"UNLINK"};
	size_t		lens[1 + UNLINK_KEYS] = {strlen("UNLINK")};
	const char *word[] = {"ASKING"};
	const char *key = batch->keys.data;

	for (int i = 0; i < batch->nkeys; i++)
	{
		argv[1 + i] = key;
		lens[1 + i] = batch->lens[i];
		key += batch->lens[i];
	}
	if (node->in_cluster && asking && node->link != NULL)
		redis_send_texts(node->link, 1, word, asking_answered, NULL);
	if (node->link != NULL &&
		redis_send(node->link, 1 + batch->nkeys, argv, lens, batch_answered, batch))
	{
		under_way++;
		unlinks_of(node)->under_way++;
	}
	else
	{
		lost = true;
		free_batch(batch);
	}
}

/*
 * --------------------------------------------------------------------------
 * Gathering
 * --------------------------------------------------------------------------
 */

/* The batch that gathers keys of this rule; sends one where all are in use. */
static Batch **
open_batch_of(RedisNode *node, Oid rule)
{
	Batch	  **unused = NULL;

	for (int i = 0; i < OPEN_BATCHES; i++)
	{
		if (gathering[i] == NULL)
			unused = &gathering[i];
		else if (gathering[i]->rule == rule)
			return &gathering[i];
	}
	if (unused == NULL)
	{
		unused = &gathering[rule % OPEN_BATCHES];
		send_batch(node, *unused);
	}
	*unused = make_batch(rule);
	return unused;
}

void
pattern_unlink_add(RedisNode *node, Oid rule, const char *key, size_t len)
{
	Batch	  **batch = open_batch_of(node, rule);

	add_to_batch(*batch, key, len);
	if ((*batch)->nkeys == (node->in_cluster ? 1 : UNLINK_KEYS) ||
		(*batch)->keys.len >= UNLINK_BYTES)
	{
		send_batch(node, *batch);
		*batch = NULL;
	}
}

void
pattern_unlink_send(RedisNode *node)
{
	for (int i = 0; i < OPEN_BATCHES; i++)
	{
		if (gathering[i] != NULL)
			send_batch(node, gathering[i]);
		gathering[i] = NULL;
	}
}
