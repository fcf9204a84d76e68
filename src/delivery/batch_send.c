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
 * Keys that a pass over Redis has found (pattern_unlink.c) always go as an UNLINK, and follow no
 * redirection: the pass is made once more.
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
#include "delivery/stream.h"
#include "shmem/counters.h"
#include "shmem/shmem.h"
#include "redis/redis_error.h"

/* How often a batch is sent again because of its answer. */
#define MAX_HOPS			5

static int	under_way[BATCH_KINDS]; /* at all nodes */

int
batch_send_count_under_way(BatchKind kind)
{
	Assert(kind >= 0 && kind < BATCH_KINDS);
	return under_way[kind];
}

/* Send each key of a refused batch by itself. */
static void
split(RedisNode *node, Batch *batch)
{
	Assert(batch->nkeys > 1);
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		Batch	   *single = batch_new(batch->target, batch->kind, batch->rule,
									   batch->hash_slot, false);

		single->has_waiter = batch->has_waiter;
		single->refusable = batch->refusable;
		single->unawaited = batch->unawaited;
		single->records_gone = batch->records_gone;
		single->asking = batch->asking;
		single->hops = batch->hops;
		batch_append(single, &batch->keys[i]);
		batch_send(node, single);
	}
	batch_free(batch);
}

/*
 * --------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------
 */

/* Of a pass the views show what it has deleted: it may find a key twice, or one that expires. */
static void
count(const Batch *batch, int64 existed)
{
	int64		nkeys = batch->kind == BATCH_FOUND ? existed : batch->nkeys;

	if (batch->kind != BATCH_FOUND)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.batches, 1);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys, nkeys);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys_existed, existed);
	counters_count_rule(batch->rule, nkeys, existed);
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
	Assert(batch->hops <= MAX_HOPS && batch->kind != BATCH_FOUND);
	batch->records_gone = false;
	batch->asking = asking;
	if (node == NULL || !node->open || ++batch->hops > MAX_HOPS)
		batch_finish(batch, node != NULL && node->is_down ? PART_NODE_DOWN : PART_RETRY_SOON);
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

	Assert(node->in_cluster && batch->kind != BATCH_FOUND);
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

/* UNLINK the records of all keys.  False where that can't be sent, or there can't be any. */
static bool
unlink_records(RedisNode *node, const Batch *batch, RedisAnswer answer, void *arg)
{
	Assert(batch->kind != BATCH_FOUND && batch->nkeys <= FENCE_COMMAND_KEYS);
	fence_command_begin(COMMAND_UNLINK_RECORDS);
	for (uint32 i = 0; i < batch->nkeys; i++)
		fence_command_add(batch->keys[i].bytes, batch->keys[i].len, "", 0);
	return fence_command_send(node, answer, arg);
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
	if (batch->kind == BATCH_FOUND)
	{
		if (!cluster_map_is_moving(reply))
			return false;
		batch_finish(batch, PART_RETRY_SOON);
		return true;
	}
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

	Assert(batch->nkeys == 1);
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
	if (batch->kind != BATCH_FOUND && batch->hops < MAX_HOPS && fence_note_loss(node, reply))
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
		if (batch->kind != BATCH_FOUND)
			note_refused(batch);
		batch_finish(batch, PART_REFUSED);
	}
}

static void
batch_answered(void *arg, const RedisReply *reply)
{
	Batch	   *batch = arg;
	RedisNode  *node = node_answering();

	Assert(under_way[batch->kind] > 0 && node->batches->under_way[batch->kind] > 0);
	Assert(batch->has_waiter || node->batches->no_waiter > 0);
	under_way[batch->kind]--;
	node->batches->under_way[batch->kind]--;
	if (!batch->has_waiter)
		node->batches->no_waiter--;
	if (reply == NULL)
		batch_finish(batch, PART_NO_REPLY);
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		FAULT_POINT("answered");
		node_note_success(node);
		count(batch, redis_reply_integer(reply));
		if (batch->kind != BATCH_FOUND)
			note_accepted(batch);
		batch_confirm_carried_out(node, batch);
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

/* Put the command of a batch together.  A pass has voided all tokens before it finds a key. */
static void
make_command(const RedisNode *node, const Batch *batch)
{
	bool		is_found = batch->kind == BATCH_FOUND;

	fence_command_begin(!is_found && fence_is_used(node) ? COMMAND_INVALIDATE : COMMAND_UNLINK);
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		const KeyRef *key = &batch->keys[i];

		fence_command_add(key->bytes, key->len, "", is_found ? 0 : delivery_xid(key->delivery));
	}
}

void
batch_send(RedisNode *node, Batch *batch)
{
	NodeBatches *queue = batches_of(node);

	Assert(batch->nkeys > 0 && batch->nkeys <= batch->room && !batch->announced);
	Assert(batch->target == node->target);
	node_touch(node);
	if (batch->kind == BATCH_ANNOUNCED)
	{
		stream_announce(batch);
		return;
	}
	if (batch->kind != BATCH_FOUND && fence_is_shut_out(node))
		(void) unlink_records(node, batch, foregoing_answered, NULL);
	batch_confirm_decide(node, batch);
	make_command(node, batch);
	if ((batch->asking && !batch_send_asking(node)) ||
		!fence_command_send(node, batch_answered, batch))
	{
		batch_finish(batch, PART_NO_REPLY);
		return;
	}
	under_way[batch->kind]++;
	queue->under_way[batch->kind]++;
	if (!batch->has_waiter)
		queue->no_waiter++;
}
