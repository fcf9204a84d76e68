/*
 * replica_ack.c
 *	  Having replicas acknowledge what a node was sent (uncache.wait_replicas).
 *
 * Redis copies to its replicas after it has answered, so the failover of a master
 * can lose a delete that was answered.  WAIT, sent behind the batches of a turn, is answered
 * when so many replicas have taken in all of the link's commands.
 *
 * While it waits Redis carries out nothing else on the link.  So a node that is short
 * of replicas is not asked behind each batch, but once a second; deletes go on, and
 * their rows wait in the outbox.  When enough replicas have answered, the rows are sent
 * again, which is harmless, and acknowledged then.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/delivery_int.h"
#include "delivery/replica_ack.h"
#include "delivery/resend.h"
#include "settings/settings.h"
#include "redis/redis_error.h"

/* Between probes of a node that is short of replicas: each may hold up its link. */
#define PROBE_MS		1000

/* Of a node, in RedisNode.replicas. */
typedef struct NodeReplicas
{
	bool		is_short;
	bool		probing;		/* a probe's answer is due */
	TimestampTz probe_at;
} NodeReplicas;

bool
replica_ack_are_wanted(void)
{
	return setting_wait_replicas > 0;
}

bool
replica_ack_are_short(const RedisNode *node)
{
	return node->replicas != NULL && node->replicas->is_short && replica_ack_are_wanted();
}

bool
replica_ack_are_short_anywhere(void)
{
	return node_any(replica_ack_are_short);
}

bool
replica_ack_ask(RedisNode *node, RedisAnswer answer)
{
	char		number[12];
	char		timeout[12];
	const char *argv[] = {"WAIT", number, timeout};

	Assert(node->link != NULL);
	/* The link would be given up if it were silent for command_timeout. */
	snprintf(number, sizeof(number), "%d", setting_wait_replicas);
	snprintf(timeout, sizeof(timeout), "%d",
			 Max(1, Min(setting_wait_replicas_timeout, setting_command_timeout / 4 * 3)));
	return redis_send_texts(node->link, lengthof(argv), argv, answer, NULL);
}

static void
note_short(RedisNode *node, const RedisReply *reply)
{
	Assert(node->replicas != NULL);
	if (node->replicas->is_short)
		return;
	node->replicas->is_short = true;
	node->replicas->probe_at = TimestampTzPlusMilliseconds(clock_now(), PROBE_MS);
	if (redis_reply_type(reply) == REDIS_ERROR)
		node_note_error(node, "Redis cannot be asked whether replicas have the deletes: %s",
						redis_error_text(reply));
	else
		node_note_error(node, "only " INT64_FORMAT " of %d replicas have acknowledged deletes "
						"in time; they are kept and sent again",
						redis_reply_integer(reply), setting_wait_replicas);
}

bool
replica_ack_note(RedisNode *node, const RedisReply *reply)
{
	bool		enough;

	if (reply == NULL)
		return false;			/* the link has failed */
	if (node->replicas == NULL)
		node->replicas = MemoryContextAllocZero(node->context, sizeof(NodeReplicas));

	enough = redis_reply_type(reply) == REDIS_INTEGER &&
		redis_reply_integer(reply) >= setting_wait_replicas;
	if (!enough)
		note_short(node, reply);
	else if (node->replicas->is_short)
	{
		node->replicas->is_short = false;
		ereport(LOG,
				(errmsg("enough replicas of Redis at %s acknowledge deletes again", node->name)));
		resend_release_soon();
	}
	return enough;
}

static void
probe_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	Assert(node->replicas->probing);
	node->replicas->probing = false;
	node->replicas->probe_at = TimestampTzPlusMilliseconds(clock_now(), PROBE_MS);
	replica_ack_note(node, reply);
}

TimestampTz
replica_ack_run(TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	if (!node_turn_is_full())
		return DT_NOEND;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);
		NodeReplicas *replicas = node->replicas;

		if (replicas == NULL || !replicas->is_short || replicas->probing || !node->open)
			continue;
		if (now >= replicas->probe_at)
			replicas->probing = replica_ack_ask(node, probe_answered);
		else
			next = Min(next, replicas->probe_at);
	}
	return next;
}
