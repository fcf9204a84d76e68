/*
 * batch_gather.c
 *	  From keys to batches: for each node and rule, and how many may be under way.
 *
 * Keys are gathered into an open batch for each node and rule, so that the views can tell how
 * many of a rule's keys existed.  So are the keys that a pass over Redis finds
 * (pattern_unlink.c).  A batch is sent when it is full, or when all keys of the turn have been
 * gathered.  In a cluster the keys of a batch must hash to one slot, so batches are more and
 * smaller there.
 *
 * A key whose node has no link is not gathered: its part ends at once, as one to be sent again.
 * All of this is in memory; after a crash the rows are sent again.
 *
 * A node that has fallen silent keeps the batches that it was sent until it answers, or until
 * command_timeout, when it is given up.  Meanwhile they do not count against what may be under
 * way, so the other nodes are sent theirs.
 */
#include "postgres.h"

#include "delivery/batch_int.h"
#include "delivery/resend.h"
#include "delivery/refusal.h"
#include "delivery/replica_ack.h"
#include "delivery/stream.h"

/* A batch with as many bytes of keys is sent, even if there is room for more keys. */
#define BATCH_BYTES			(64 * 1024)

/*
 * Batches under way for each node: enough to fill a link with a round trip of 1 ms.  In a
 * cluster, where most have one key, so many times that.
 */
#define COMMIT_BATCHES		64
#define SCAN_BATCHES		8
#define CLUSTER_FACTOR		16

/*
 * Batches under way in all, with those at silent nodes and those whose entry in the stream is:
 * 50 MB at the most.
 */
#define MOST_BATCHES		(16 * 1024)

/* A node that has batches under way and has not moved a byte for so long is silent. */
#define SILENT_MS			50

/* How many of the batches under way are at silent nodes; batch_look_for_silent() writes it. */
static int	silent[DELIVERY_PRIORITIES];

/*
 * --------------------------------------------------------------------------
 * How many may be under way
 * --------------------------------------------------------------------------
 */

bool
batch_under_way(void)
{
	return batch_send_count_under_way(BATCH_COMMIT) > 0 ||
		batch_send_count_under_way(BATCH_SCAN) > 0;
}

void
batch_look_for_silent(void)
{
	if (!node_turn_is_full())
		return;					/* what the last full turn has found is exact enough */
	silent[PRIORITY_COMMIT] = silent[PRIORITY_SCAN] = 0;
	if (node_count() <= 1 || !batch_under_way())
		return;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);
		NodeBatches *queue = batches_of(node);

		if (node->link == NULL || redis_silent_ms(node->link) < SILENT_MS)
			continue;
		silent[PRIORITY_COMMIT] += queue->under_way[PRIORITY_COMMIT];
		silent[PRIORITY_SCAN] += queue->under_way[PRIORITY_SCAN];
	}
}

bool
batch_has_room(DeliveryPriority priority)
{
	int			limit = priority == PRIORITY_COMMIT ? COMMIT_BATCHES : SCAN_BATCHES;
	int			under_way = batch_send_count_under_way((BatchKind) priority);

	if (node_count() > 0 && node_at(0)->in_cluster)
		limit *= CLUSTER_FACTOR;
	return under_way - silent[priority] < limit * node_count() &&
		under_way + stream_count_under_way() < MOST_BATCHES;
}

bool
batch_is_awaited(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link != NULL &&
			redis_unanswered(node->link) > (size_t) batches_of(node)->no_waiter)
			return true;
	}
	return false;
}

/*
 * --------------------------------------------------------------------------
 * Gathering
 * --------------------------------------------------------------------------
 */

/* The open batch for such keys.  Where all are in use by others one of those is sent. */
static Batch **
open_batch_of(RedisNode *node, BatchKind kind, Oid rule, uint16 hash_slot, bool refusable)
{
	NodeBatches *queue = batches_of(node);
	Batch	  **unused = NULL;

	Assert(queue->nopen >= 0 && queue->nopen <= OPEN_BATCHES);
	node_touch(node);
	for (int i = 0; i < OPEN_BATCHES; i++)
	{
		Batch	   *open = queue->open[i];

		if (open == NULL)
			unused = &queue->open[i];
		else if (open->kind == kind && open->rule == rule && open->hash_slot == hash_slot &&
				 open->refusable == refusable)
			return &queue->open[i];
	}
	if (unused == NULL)
	{
		unused = &queue->open[(rule + hash_slot) % OPEN_BATCHES];
		batch_send(node, *unused);
		queue->nopen--;
	}
	*unused = batch_new(node->target, kind, rule, hash_slot,
						!node->in_cluster || kind == BATCH_ANNOUNCED);
	(*unused)->refusable = refusable;
	queue->nopen++;
	return unused;
}

/* Send it, and gather into another one. */
static void
close_batch(RedisNode *node, Batch **open)
{
	Batch	   *batch = *open;

	Assert(batch != NULL && batch->nkeys > 0 && node->batches->nopen > 0);
	*open = NULL;
	node->batches->nopen--;
	batch_send(node, batch);
}

static bool
is_full(const Batch *batch)
{
	return batch->nkeys == batch->room || batch->bytes >= BATCH_BYTES;
}

static void
gather(RedisNode *node, uint16 hash_slot, DeliveryPriority priority, Oid rule, const KeyRef *key)
{
	bool		refusable = refusal_is_likely(node->target, rule, key->bytes, key->len);
	Batch	  **open = open_batch_of(node, (BatchKind) priority, rule, hash_slot, refusable);
	Batch	   *batch = *open;

	Assert(node->open && key->delivery != NULL);
	/* Decided by the first key, for all that join it. */
	if (batch->nkeys == 0)
		batch->unawaited = node->slow_after_ms != 0 || replica_ack_are_short(node) || refusable;
	if (batch->unawaited)
		delivery_part_unawaited(key->delivery);
	batch_append(batch, key);
	batch->has_waiter |= delivery_is_awaited(key->delivery);
	if (is_full(batch))
		close_batch(node, open);
}

/* A key that was deleted before, and that the stream at this node has to be told of. */
static void
gather_announced(RedisNode *node, Oid rule, const KeyRef *key)
{
	Batch	  **open = open_batch_of(node, BATCH_ANNOUNCED, rule, 0, false);

	batch_append(*open, key);
	if (is_full(*open))
		close_batch(node, open);
}

/* A key that was sent before, and that its own node does not need again. */
static void
pass_over(const Target *target, Oid rule, const KeyRef *key)
{
	RedisNode  *node = stream_node_in_need(target);

	Assert(key->delivery != NULL);
	if (node != NULL)
		gather_announced(node, rule, key);
	else
		batch_key_done(target, rule, key, PART_DELIVERED);
}

/*
 * In a cluster a command has one such key: while its hash slot moves, Redis would refuse several
 * with TRYAGAIN, and the pass would be made once more.
 */
void
batch_add_found(RedisNode *node, Oid rule, const KeyRef *key, bool asking)
{
	Batch	  **open = open_batch_of(node, BATCH_FOUND, rule, 0, false);
	KeyRef		copy = {.len = key->len};

	Assert(key->delivery == NULL);
	copy.bytes = memcpy(batch_alloc_key(key->len), key->bytes, key->len);
	(*open)->asking = asking && node->in_cluster;
	batch_append(*open, &copy);
	if (is_full(*open) || node->in_cluster)
		close_batch(node, open);
}

void
batch_add_key(Delivery *delivery, DeliveryPriority priority, const Invalidation *item,
			  bool is_resend)
{
	KeyRef		key = {.delivery = delivery, .bytes = item->bytes, .len = item->len};
	Oid			rule = item->rule;

	Assert(invalidation_traits(item->kind)->command == INVALIDATION_UNLINK);
	Assert(delivery->parts_left >= (uint32) target_count());
	for (int i = 0; i < target_count(); i++)
	{
		Target	   *target = target_at(i);
		uint16		hash_slot;
		RedisNode  *node = target_node(target, key.bytes, key.len, &hash_slot);

		if (is_resend && node != NULL && !resend_is_needed(node))
			pass_over(target, rule, &key);
		else if (node != NULL && node->open)
			gather(node, hash_slot, priority, rule, &key);
		else if (node == NULL || node->is_down)
			batch_key_done(target, rule, &key, PART_NODE_DOWN);
		else
			batch_key_done(target, rule, &key, PART_RETRY_SOON);	/* about to be connected */
	}
}

void
batch_gather_send(RedisNode *node)
{
	NodeBatches *queue = node->batches;

	for (int i = 0; queue != NULL && queue->nopen > 0 && i < OPEN_BATCHES; i++)
	{
		if (queue->open[i])
			close_batch(node, &queue->open[i]);
	}
}

static void
send_open(RedisNode *node, void *arg)
{
	batch_gather_send(node);
}

void
batch_gather_send_all(void)
{
	node_for_turn(send_open, NULL);
}
