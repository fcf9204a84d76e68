/*
 * fence.c
 *	  The worker's side of fenced fills: what each node knows of them.
 *
 * What makes a fill safe is decided in Redis, by the functions of
 * lua/uncache.lua; read that file first.  The worker loads them into every node and
 * keeps them informed: it tells which incarnation of which server delivers, sets
 * epochs, and makes beats (fence_beat.c).  Of each node:
 *
 *		UNKNOWN --status--> NONE			no functions, no fence: plain UNLINK
 *			  |			\-> IMPOSSIBLE		asked for, but Redis is older than 7
 *			  |			\-> LOADING --> UNKNOWN
 *			  |			\-> SUPERSEDED		another server fills instead (fence_standing.c)
 *			  |			\-> NO_EPOCH		deliver all again, then set one
 *			  |			\-> ON
 *
 * What a node knows is found out in fence_library.c; here are its state, and epochs.
 *
 * Where the functions are there, keys are delivered by them whatever the own
 * fence_ttl is: another database may use the same Redis with its fence on, and a
 * bare UNLINK would go unnoticed by it.
 *
 * uncache.stat shows the state of the node that is least far, and sums.
 *
 * Whatever fails leaves fills refused, never let through: a node without an epoch
 * stores nothing.
 */
#include "postgres.h"

#include "base/clock.h"
#include "fence/fence_int.h"
#include "settings/settings.h"

/* For records of keys while the own fence is off: the five minutes that are recommended. */
#define DEFAULT_TTL_MS		(300 * 1000)


static char ttl_text[12];

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

/* For uncache.stat, and for who wants to commit with consistency = strict. */
void
fence_publish(void)
{
	FenceState	least = FENCE_ON;
	bool		any = false;
	bool		any_on = false;
	uint64		stored = 0;
	uint64		refused = 0;
	uint64		beats = 0;

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
	fence_of(node)->state = state;
	node->open = node->link != NULL && state >= FENCE_NONE;
	fence_publish();
}

void
fence_init(void)
{
	fence_publish();
	fence_library_init();
	fence_standing_init();
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
waits_for_catching_up(const RedisNode *node)
{
	return node->link != NULL && fence_state_of(node) == FENCE_NO_EPOCH && setting_fence_ttl > 0 &&
		clock_now() >= node->fence->epoch_at;
}

bool
fence_waits_for_catching_up(void)
{
	return node_any(waits_for_catching_up);
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

/* Send a command of texts. */
bool
fence_send(RedisNode *node, int argc, const char **argv, RedisAnswer answer, void *arg)
{
	return redis_send_texts(node->link, argc, argv, answer, arg);
}

/*
 * --------------------------------------------------------------------------
 * Epochs
 * --------------------------------------------------------------------------
 */

static void
epoch_answered(void *arg, const RedisReply *reply)
{
	FenceDone	done = (FenceDone) arg;
	RedisNode  *node = node_answering();
	bool		ok = reply != NULL && redis_reply_type(reply) != REDIS_ERROR;

	if (ok && fence_state_of(node) > FENCE_NO_EPOCH && setting_fence_ttl > 0)
	{
		/* None where it knows us not, or as superseded: the next status tells. */
		bool		is_set = redis_reply_type(reply) == REDIS_STRING;

		fence_set_state(node, is_set ? FENCE_ON : FENCE_NO_EPOCH);
	}
	/* What has no memory any more has no tokens either. */
	if (reply != NULL && !ok && fence_note_loss(node, reply))
		ok = true;
	if (done)
		done(ok, reply);
	else if (reply != NULL && !ok)
		node_note_trouble(node, reply);
}

/*
 * An epoch that never was.  None with the own fence off, nor as long as the node has
 * none because it has to wait for it: there are no tokens to be voided then.  Who is
 * superseded sets none either, since nobody fills from its rows: any answer will do.
 */
bool
fence_new_epoch(RedisNode *node, FenceDone done)
{
	char		random_text[20] = "";
	uint64		random;
	const char *argv[] = {
		"FCALL", "uncache_epoch", "0", random_text, fence_ttl_text(), UncacheShmem->incarnation
	};

	if (fence_state_of(node) == FENCE_SUPERSEDED)
		return fence_library_ask(node, epoch_answered, (void *) done);
	if (setting_fence_ttl > 0 && fence_state_of(node) != FENCE_NO_EPOCH)
	{
		if (!pg_strong_random(&random, sizeof(random)))
			return false;
		snprintf(random_text, sizeof(random_text), "%016" PRIx64, random);
	}
	return fence_send(node, lengthof(argv), argv, epoch_answered, (void *) done);
}

/*
 * All that the outbox holds has been delivered to the nodes by now, so that whatever
 * one had forgotten is made good.
 */
void
fence_caught_up(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (!waits_for_catching_up(node))
			continue;
		node->fence->may_have_forgotten = false;
		fence_set_state(node, FENCE_SETTING);
		if (!fence_new_epoch(node, NULL))
			fence_set_state(node, FENCE_NO_EPOCH);
	}
}

void
fence_forget(RedisNode *node)
{
	Fence	   *fence = fence_of(node);

	fence->wants_beat = false;
	fence_set_state(node, FENCE_UNKNOWN);
}
