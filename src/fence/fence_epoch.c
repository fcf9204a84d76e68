/*
 * fence_epoch.c
 *	  Setting a node's epoch, which the tokens of its readers carry.
 *
 * A new epoch voids all tokens of the one before.  So a node gets one before its keys
 * are scanned for patterns, when fence_ttl changes, and after it was sent all that it
 * may have forgotten.  A node without an epoch refuses every fill.
 *
 * Failure: where a node does not confirm its epoch it keeps or gets FENCE_NO_EPOCH, and
 * its next status starts over.
 */
#include "postgres.h"

#include "base/clock.h"
#include "fence/fence_int.h"
#include "settings/settings.h"

static void
epoch_answered(void *arg, const RedisReply *reply)
{
	FenceDone	done = (FenceDone) arg;
	RedisNode  *node = node_answering();
	bool		ok = reply != NULL && redis_reply_type(reply) != REDIS_ERROR;

	Assert(node != NULL);
	if (ok && fence_state_of(node) > FENCE_NO_EPOCH && setting_fence_ttl > 0)
	{
		/* Nil where it does not know this server, or as superseded: the next status tells. */
		bool		is_set = redis_reply_type(reply) == REDIS_STRING;

		fence_set_state(node, is_set ? FENCE_ON : FENCE_NO_EPOCH);
	}
	/* A node that has lost its memory has no tokens either. */
	if (reply != NULL && !ok && fence_note_loss(node, reply))
		ok = true;
	if (done)
		done(ok, reply);
	else if (reply != NULL && !ok)
		node_note_trouble(node, reply);
}

/*
 * The new epoch is a random number, so it never was one before.  The random part is empty
 * (no epoch) with the own fence off, and in FENCE_NO_EPOCH, where the node has to wait for
 * one and there are no tokens to be voided.  A superseded server sets no epoch, since no
 * reader fills from its rows: it sends a status in place of it, for the sake of an answer.
 */
bool
fence_new_epoch(RedisNode *node, FenceDone done)
{
	char		random_text[20] = "";
	uint64		random;

	Assert(node->link != NULL);
	if (fence_state_of(node) == FENCE_SUPERSEDED)
		return fence_library_ask(node, epoch_answered, (void *) done);
	if (setting_fence_ttl > 0 && fence_state_of(node) != FENCE_NO_EPOCH)
	{
		if (!pg_strong_random(&random, sizeof(random)))
			return false;
		snprintf(random_text, sizeof(random_text), "%016" PRIx64, random);
	}
	return fence_send_epoch(node, random_text, epoch_answered, (void *) done);
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

/* The nodes have been sent all that the outbox holds, and so all that one had forgotten. */
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

/*
 * On: load the functions and set an epoch.  Off: void the tokens, so that the node lets no
 * fill through; keys are still delivered by the functions.  Another length: the new epoch
 * carries it to the node.
 */
static void
change(RedisNode *node)
{
	FenceState	state = fence_state_of(node);

	Assert(node->link != NULL);
	if (!fence_is_used(node) || state == FENCE_SUPERSEDED ||
		(setting_fence_ttl > 0 && state == FENCE_NO_EPOCH))
	{
		fence_of(node)->may_have_forgotten = false;
		backoff_reset(&node->fence->call);
		fence_library_begin(node);
	}
	else
	{
		fence_set_state(node, setting_fence_ttl > 0 ? FENCE_SETTING : FENCE_NO_EPOCH);
		fence_new_epoch(node, NULL);
	}
}

void
fence_change_all(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->link != NULL)
			change(node_at(i));
	}
}
