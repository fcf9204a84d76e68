/*
 * batch_send.c
 *	  A batch under way: the words it is sent with, its answer, and what follows from that.
 *
 * Where the functions of the fence are in use a batch is sent as a call of uncache_invalidate,
 * else as an UNLINK.  Where they are in use and only this worker may not call them, an UNLINK of
 * the keys' records goes before it.  The batch ends (batch.c) with its answer, unless
 *
 *		Redis refuses it	then each key is sent by itself, to find the one that is refused
 *		a node redirects	it, in a cluster: then it follows, a few times; a key that is being
 *							moved at this moment is tried again (PART_RETRY_SOON)
 *
 * An answer that tells of the server rather than of the keys (that it is loading, say) fails the
 * node, and the keys are lost.  They are lost, too, when the link breaks, which answers all
 * batches with NULL.  A batch that was carried out twice has deleted twice, which is harmless.
 *
 * Batches under way are counted here; batch_gather.c limits them.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "topology/cluster_map.h"
#include "delivery/batch_int.h"
#include "base/fault_point.h"
#include "fence/fence.h"
#include "delivery/refusal.h"
#include "shmem/counters.h"
#include "shmem/shmem.h"
#include "redis/redis_error.h"

/* How often a batch is sent again because of its answer. */
#define MAX_HOPS			5

static MemoryContext names_context; /* of records, until they are sent */
static int	under_way[DELIVERY_PRIORITIES]; /* at all nodes */

void
batch_send_init(void)
{
	names_context = AllocSetContextCreate(TopMemoryContext, "pg_uncache record names",
										  ALLOCSET_SMALL_SIZES);
}

int
batch_send_count_under_way(DeliveryPriority priority)
{
	return under_way[priority];
}

/* Send each key of a refused batch by itself. */
static void
split(RedisNode *node, Batch *batch)
{
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		Batch	   *single = batch_new(batch->target, batch->priority, batch->rule,
									   batch->hash_slot, false);

		single->has_waiter = batch->has_waiter;
		single->refusable = batch->refusable;
		single->unawaited = batch->unawaited;
		single->records_gone = batch->records_gone;
		single->hops = batch->hops;
		single->keys[single->nkeys++] = batch->keys[i];
		batch_send(node, single);
	}
	batch_free(batch);
}

/* The command under construction. */
static struct
{
	int			n;
	const char *argv[5 + 2 * BATCH_KEYS];
	size_t		lens[5 + 2 * BATCH_KEYS];
	char		xids[BATCH_KEYS][24];
	char		nkeys[12];
}			arguments;

static void
add_argument(const char *bytes, size_t len)
{
	arguments.argv[arguments.n] = bytes;
	arguments.lens[arguments.n++] = len;
}

static void
add_text(const char *text)
{
	add_argument(text, strlen(text));
}

/*
 * --------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------
 */

static void
count(Batch *batch, int64 existed)
{
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.batches, 1);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys, batch->nkeys);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys_existed, existed);
	counters_count_rule(batch->rule, batch->nkeys, existed);
}

static void
foregoing_answered(void *arg, const RedisReply *reply)
{
	/* The answer to the batch that follows it tells. */
}

static void batch_refused(RedisNode *node, Batch *batch, const RedisReply *reply);

/* Send a batch once more, perhaps to another node; NULL: no node has the hash slot. */
static void
send_again(RedisNode *node, Batch *batch, bool asking)
{
	const char *argv[] = {"ASKING"};

	batch->records_gone = false;
	if (node == NULL || !node->open || ++batch->hops > MAX_HOPS)
		batch_finish(batch, node != NULL && node->is_down ? PART_NODE_DOWN : PART_RETRY_SOON);
	else if (asking && !redis_send_texts(node->link, 1, argv, foregoing_answered, NULL))
		batch_finish(batch, PART_NO_REPLY);
	else
		batch_send(node, batch);
}

/*
 * --------------------------------------------------------------------------
 * Records that a slot on the move leaves behind
 * --------------------------------------------------------------------------
 *
 * A key that has moved, or never was, is deleted at the new node, while its record may still be
 * at the old one.  Should the hash slot stay there after all, or return, that record would not
 * know of this invalidation.  So it is deleted first.
 */

static void
records_answered(void *arg, const RedisReply *reply)
{
	Batch	   *batch = arg;
	RedisNode  *node = node_answering();

	/* Answered with ASK the record is at the new node or nowhere; else it is deleted now. */
	if (reply == NULL)
		batch_finish(batch, PART_NO_REPLY);
	else if (redis_reply_type(reply) == REDIS_INTEGER || redis_reply_is_error(reply, "ASK") ||
			 redis_reply_is_error(reply, "MOVED"))
	{
		batch->records_gone = true;
		batch_send(node, batch);
	}
	else
		batch_refused(node, batch, reply);
}

/* The name of a key's record, as in lua/uncache.lua; NULL for one that can't have any. */
static char *
record_name(const KeyRef *key, size_t *len)
{
	bool		tagged = memchr(key->bytes, '}', key->len) != NULL;
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfoString(&name, tagged ? "uncache::" : "uncache:{");
	appendBinaryStringInfo(&name, key->bytes, key->len);
	if (!tagged)
		appendStringInfoChar(&name, '}');
	*len = name.len;
	return cluster_map_slot(name.data, name.len) == cluster_map_slot(key->bytes, key->len) ?
		name.data : NULL;
}

/* UNLINK the records of all keys.  False where that can't be sent, or there can't be any. */
static bool
unlink_records(RedisNode *node, const Batch *batch, RedisAnswer answer, void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(names_context);
	bool		sent;

	arguments.n = 0;
	add_text("UNLINK");
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		size_t		len;
		char	   *name = record_name(&batch->keys[i], &len);

		if (name != NULL)
			add_argument(name, len);
	}
	sent = arguments.n > 1 &&
		redis_send(node->link, arguments.n, arguments.argv, arguments.lens, answer, arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(names_context);
	return sent;
}

/*
 * Answers that a cluster gives because its hash slots move.  Returns whether this was one; then
 * the batch was sent on, or has ended.
 */
static bool
follow_cluster(RedisNode *node, Batch *batch, const RedisReply *reply)
{
	bool		asking;
	RedisNode  *other;

	if (!node->in_cluster)
		return false;
	if (redis_reply_is_error(reply, "TRYAGAIN"))
	{
		if (batch->nkeys > 1)
			split(node, batch);
		else
			batch_finish(batch, PART_RETRY_SOON);
		return true;
	}

	/*
	 * Its record, or a later key, is not here any more.  The keys that were here are deleted, so
	 * the next answer will be a redirection.
	 */
	if (strstr(redis_reply_text(reply, NULL), "non local key") != NULL)
	{
		send_again(node, batch, false);
		return true;
	}
	if (!redis_reply_is_error(reply, "MOVED") && !redis_reply_is_error(reply, "ASK"))
		return false;
	if (redis_reply_is_error(reply, "ASK") && fence_is_used(node) && !batch->records_gone &&
		unlink_records(node, batch, records_answered, batch))
		return true;
	other = target_redirect(node->target, reply, &asking);
	send_again(other, batch, other != NULL && asking);
	return true;
}

/* It has a single key. */
static void
note_refused(const Batch *batch)
{
	const KeyRef *key = &batch->keys[0];
	RefusedKey	refused = {
		.xid = delivery_xid(key->delivery), .rule = batch->rule,
		.bytes = key->bytes, .len = key->len
	};

	refusal_note(batch->target, &refused);
}

static void
note_accepted(const Batch *batch)
{
	for (uint32 i = 0; i < batch->nkeys && refusal_is_any(); i++)
		refusal_note_accepted(batch->target, batch->rule,
							  batch->keys[i].bytes, batch->keys[i].len);
}

static void
batch_refused(RedisNode *node, Batch *batch, const RedisReply *reply)
{
	const char *why;

	if (follow_cluster(node, batch, reply))
		return;
	if (batch->hops < MAX_HOPS && fence_note_loss(node, reply))
	{
		batch->hops++;
		batch_send(node, batch);
	}
	else if (redis_error_is_fatal(reply, &why))
	{
		node_note_trouble(node, reply);
		batch_finish(batch, PART_NO_REPLY);
	}
	else if (batch->nkeys > 1)
		split(node, batch);
	else
	{
		shmem_note_error(MyDatabaseState, redis_error_note_refusal(reply));
		note_refused(batch);
		batch_finish(batch, PART_REFUSED);
	}
}

static void
batch_answered(void *arg, const RedisReply *reply)
{
	Batch	   *batch = arg;
	RedisNode  *node = node_answering();

	Assert(under_way[batch->priority] > 0 && node->batches->under_way[batch->priority] > 0);
	under_way[batch->priority]--;
	node->batches->under_way[batch->priority]--;
	if (!batch->has_waiter)
		node->batches->no_waiter--;
	if (reply == NULL)
		batch_finish(batch, PART_NO_REPLY);
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		FAULT_POINT("answered");
		node_note_success(node);
		count(batch, redis_reply_integer(reply));
		note_accepted(batch);
		batch_carried_out(node, batch);
	}
	else if (redis_reply_type(reply) != REDIS_ERROR)
	{
		node_note_nonsense(node);
		batch_finish(batch, PART_NO_REPLY);
	}
	else
		batch_refused(node, batch, reply);
}

/*
 * --------------------------------------------------------------------------
 * Sending
 * --------------------------------------------------------------------------
 */

/* UNLINK key..., or FCALL uncache_invalidate n key... ttl incarnation xid... */
static void
make_arguments(const RedisNode *node, Batch *batch)
{
	bool		fenced = fence_is_used(node);

	arguments.n = 0;
	add_text(fenced ? "FCALL" : "UNLINK");
	if (fenced)
	{
		snprintf(arguments.nkeys, sizeof(arguments.nkeys), "%u", batch->nkeys);
		add_text("uncache_invalidate");
		add_text(arguments.nkeys);
	}
	for (uint32 i = 0; i < batch->nkeys; i++)
		add_argument(batch->keys[i].bytes, batch->keys[i].len);
	if (!fenced)
		return;

	add_text(fence_ttl_text());
	add_text(UncacheShmem->incarnation);
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		snprintf(arguments.xids[i], sizeof(arguments.xids[i]), UINT64_FORMAT,
				 delivery_xid(batch->keys[i].delivery));
		add_text(arguments.xids[i]);
	}
}

void
batch_send(RedisNode *node, Batch *batch)
{
	NodeBatches *queue = batches_of(node);

	if (fence_is_shut_out(node))
		(void) unlink_records(node, batch, foregoing_answered, NULL);
	make_arguments(node, batch);
	batch_decide_to_confirm(node, batch);
	if (redis_send(node->link, arguments.n, arguments.argv, arguments.lens,
				   batch_answered, batch))
	{
		under_way[batch->priority]++;
		queue->under_way[batch->priority]++;
		if (!batch->has_waiter)
			queue->no_waiter++;
	}
	else
		batch_finish(batch, PART_NO_REPLY);
}
