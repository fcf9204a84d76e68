/*
 * fence.c
 *	  The worker's side of fenced fills: the state of each node.
 *
 * What makes a fill safe is decided in Redis, by the functions of uncache.lua; read
 * that file first.  The worker loads them into every node and keeps them informed:
 * it tells which incarnation of which server delivers, sets epochs (fence_epoch.c),
 * and makes beats (fence_beat.c).  Each node has a state:
 *
 *		UNKNOWN --status--> NONE			no functions, fence off: keys go by UNLINK
 *			  |			\-> IMPOSSIBLE		fence on, but the node can't or won't have them
 *			  |			\-> LOADING --> UNKNOWN
 *			  |			\-> SUPERSEDED		another server fills instead (fence_standing.c)
 *			  |			\-> NO_EPOCH		deliver all again, then set one
 *			  |			\-> ON
 *
 * fence_library.c finds out what a node knows, and so moves it from state to state.
 *
 * Where a node has the functions, keys are delivered by them, also with this database's
 * fence off: another database may use the same Redis with its fence on, and its
 * functions would not notice a bare UNLINK.
 *
 * uncache.stat shows the lowest state of all nodes, and sums of their counters.
 *
 * Every failure leaves fills refused, never let through: a node without an epoch
 * stores nothing.
 */
#include "postgres.h"

#include "base/clock.h"
#include "fence/fence_int.h"
#include "settings/settings.h"

/* For records of keys while the own fence is off: the five minutes that are recommended. */
#define DEFAULT_TTL_MS		(300 * 1000)

static char ttl_text[12];

/*
 * Some Fence has changed since fence_publish() looked at all of them.  Written in this file
 * alone.  Each of many nodes answers a ping a second, so looking at all for each answer would
 * cost the square of their number.
 */
static bool publish_is_due = true;

Fence *
fence_of(RedisNode *node)
{
	if (node->fence == NULL)
		node->fence = MemoryContextAllocZero(node->context, sizeof(Fence));
	return node->fence;
}

FenceState
fence_state_of(const RedisNode *node)
{
	return node->fence ? node->fence->state : FENCE_UNKNOWN;
}

void
fence_note_change(void)
{
	publish_is_due = true;
}

/* uncache.stat shows the state and the sums; a strict commit asks whether any node is on. */
void
fence_publish(void)
{
	FenceState	least = FENCE_ON;
	bool		any = false;
	bool		any_on = false;
	uint64		stored = 0;
	uint64		refused = 0;
	uint64		beats = 0;

	Assert(MyDatabaseState != NULL);
	if (!publish_is_due || !node_turn_is_full())
		return;
	publish_is_due = false;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link == NULL || node->fence == NULL)
			continue;
		any = true;
		any_on |= node->fence->state == FENCE_ON;
		least = Min(least, node->fence->state);
		stored += node->fence->stored;
		refused += node->fence->refused;
		beats = Max(beats, node->fence->beats);
	}
	pg_atomic_write_u32(&MyDatabaseState->fence.state, any ? least : FENCE_UNKNOWN);
	pg_atomic_write_u32(&MyDatabaseState->fence.any_on, any_on);
	pg_atomic_write_u64(&MyDatabaseState->fence.stored, stored);
	pg_atomic_write_u64(&MyDatabaseState->fence.refused, refused);
	pg_atomic_write_u64(&MyDatabaseState->fence.beats, beats);
}

void
fence_set_state(RedisNode *node, FenceState state)
{
	bool		open = node->link != NULL && state >= FENCE_NONE;

	fence_note_change();
	if (fence_of(node)->state != state || node->open != open)
		node_turn_fully();
	node->fence->state = state;
	node->open = open;
}

void
fence_forget(RedisNode *node)
{
	fence_of(node)->wants_beat = false;
	fence_set_state(node, FENCE_UNKNOWN);
}

bool
fence_is_used(const RedisNode *node)
{
	return fence_state_of(node) >= FENCE_SUPERSEDED;
}

bool
fence_is_on(const RedisNode *node)
{
	return fence_state_of(node) == FENCE_ON;
}

bool
fence_is_shut_out(const RedisNode *node)
{
	return fence_state_of(node) == FENCE_IMPOSSIBLE && node->fence->shut_out;
}

int
fence_ttl_ms(void)
{
	return setting_fence_ttl > 0 ? setting_fence_ttl : DEFAULT_TTL_MS;
}

const char *
fence_ttl_text(void)
{
	snprintf(ttl_text, sizeof(ttl_text), "%d", fence_ttl_ms());
	return ttl_text;
}

bool
fence_wants_resending(RedisNode *node)
{
	bool		wants = node->fence != NULL && node->fence->wants_resending;

	if (wants)
		node->fence->wants_resending = false;
	return wants;
}

static bool
wants_beat(const RedisNode *node)
{
	return node->open && fence_is_on(node) && node->fence->wants_beat;
}

bool
fence_wants_beat(void)
{
	return node_any(wants_beat);
}

void
fence_beat_begun(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->fence)
			node_at(i)->fence->wants_beat = false;
	}
}

bool
fence_send(RedisNode *node, int argc, const char **argv, RedisAnswer answer, void *arg)
{
	Assert(node->link != NULL);
	return redis_send_texts(node->link, argc, argv, answer, arg);
}

bool
fence_send_epoch(RedisNode *node, const char *random, RedisAnswer answer, void *arg)
{
	const char *argv[] = {
		"FCALL", "uncache_epoch", "0", random, fence_ttl_text(), UncacheShmem->incarnation
	};

	Assert(strspn(random, "0123456789abcdef") == strlen(random));
	return fence_send(node, lengthof(argv), argv, answer, arg);
}
