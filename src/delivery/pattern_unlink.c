/*
 * pattern_unlink.c
 *	  The keys that a pass over Redis has found, on their way: many in an UNLINK, of one rule.
 *
 * They are gathered and sent as the keys of deliveries are (batch_gather.c, batch_send.c), and
 * sent at the end of each slice of the pass.  Here it is counted what became of them.
 *
 * When a node's link breaks its batches are lost, and so is the pass.  A key that a node of a
 * cluster redirects is not followed: pattern_unlink_missed() says so.  All of it is in memory;
 * keys that were deleted before a crash stay deleted, which is harmless.
 */
#include "postgres.h"

#include "delivery/batch_int.h"
#include "delivery/pattern_unlink.h"

/*
 * Batches under way at a node.  The keys for which sessions wait go by the same link, behind
 * them, so there is one; in a cluster, where each has one key, as many as one has keys elsewhere.
 */
#define BATCHES_MOST	1
#define SLOT_FACTOR		BATCH_KEYS

static void (*refused) (RedisNode *node, const char *key, size_t len);

/* Of the running pass. */
static bool asking;
static bool lost;
static bool missed;

static void
batch_ended(const Batch *batch, PartOutcome outcome)
{
	Assert(batch->kind == BATCH_FOUND);
	if (outcome == PART_REFUSED)
	{
		Assert(batch->nkeys == 1);
		refused(node_answering(), batch->keys[0].bytes, batch->keys[0].len);
	}
	else if (outcome == PART_RETRY_SOON)
		missed = true;
	else if (outcome != PART_DELIVERED)
		lost = true;
}

void
pattern_unlink_init(void (*when_refused) (RedisNode *node, const char *key, size_t len))
{
	refused = when_refused;
	batch_set_found_ended(batch_ended);
}

void
pattern_unlink_begin(bool must_ask)
{
	Assert(pattern_unlink_under_way() == 0);
	asking = must_ask;
	lost = false;
	missed = false;
}

int
pattern_unlink_under_way(void)
{
	return batch_send_count_under_way(BATCH_FOUND);
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

bool
pattern_unlink_has_room(const RedisNode *node)
{
	return node->batches == NULL || node->batches->under_way[BATCH_FOUND] <
		BATCHES_MOST * (node->in_cluster ? SLOT_FACTOR : 1);
}

void
pattern_unlink_add(RedisNode *node, Oid rule, const char *key, size_t len)
{
	KeyRef		found = {.bytes = key, .len = (uint32) len};

	Assert(len <= PG_UINT32_MAX);
	batch_add_found(node, rule, &found, asking);
}

void
pattern_unlink_send(RedisNode *node)
{
	batch_gather_send(node);
}
