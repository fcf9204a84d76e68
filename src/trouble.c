/*
 * trouble.c
 *	  Telling a Redis that is of no use from one that refuses a key.
 *
 * Some error replies say that Redis as a whole is of no use for now (-LOADING,
 * -READONLY, ...): the worker gives the link up, and everything is sent again when
 * there is another one.  Any other error is meant for the command that it answers:
 * a refusal, which is tried again later and holds up nothing.
 *
 * Trouble is noted where a reply is read and acted upon in the next turn of the
 * connection, since a link must not be closed by the function that reads its
 * answer.
 */
#include "postgres.h"

#include "shmem.h"
#include "trouble.h"

static char trouble_now[256];

bool
trouble_is(const RedisReply *reply, const char **why)
{
	static const struct
	{
		const char *code;
		const char *why;
	}			codes[] = {
		{"LOADING", "Redis is loading its data set"},
		{"READONLY", "Redis is a replica and takes no writes"},
		{"MASTERDOWN", "Redis is a replica without its master"},
		{"NOAUTH", "Redis requires a password"},
		{"WRONGPASS", "Redis does not accept user or password"},
		{"BUSY", "Redis is busy with a script"},
		{"UNKILLABLE", "Redis is busy with a script"},
		{"OOM", "Redis is out of memory"},
		{"MISCONF", "Redis does not take writes because it cannot save its data set"},
		{"NOREPLICAS", "Redis does not take writes without enough replicas"},
		{"CLUSTERDOWN", "the Redis Cluster is down"},
		{"MOVED", "Redis is a node of a Redis Cluster"},
		{"ASK", "Redis is a node of a Redis Cluster"},
		{"TRYAGAIN", "Redis is a node of a Redis Cluster"},
		{"CROSSSLOT", "Redis is a node of a Redis Cluster"},
		{"UNREGISTERED", "the functions of pg_uncache were loaded anew"},
	};
	const char *text = redis_reply_text(reply, NULL);

	*why = NULL;
	for (int i = 0; i < lengthof(codes); i++)
	{
		if (redis_reply_is_error(reply, codes[i].code))
			*why = codes[i].why;
	}
	if (redis_reply_is_error(reply, "ERR") && strstr(text, "unction not found") != NULL)
		*why = "the functions of pg_uncache are gone from Redis";
	if (redis_reply_is_error(reply, "ERR") && strstr(text, "unknown command") != NULL)
		*why = "Redis does not know a command that is needed";
	/* Not a key, but the command itself is not permitted. */
	if (redis_reply_is_error(reply, "NOPERM") && strstr(text, "command") != NULL)
		*why = "the Redis user may not run a command that is needed";
	return *why != NULL;
}

void
trouble_note(const RedisReply *reply)
{
	const char *why;

	if (trouble_now[0] == '\0' && trouble_is(reply, &why))
		snprintf(trouble_now, sizeof(trouble_now), "%s (%.150s)", why, redis_reply_text(reply, NULL));
}

void
trouble_note_nonsense(void)
{
	if (trouble_now[0] == '\0')
		strlcpy(trouble_now, "Redis gave an answer that makes no sense", sizeof(trouble_now));
}

void
trouble_note_refusal(const RedisReply *reply)
{
	char		message[256];

	snprintf(message, sizeof(message), "Redis has refused an invalidation and is asked again: %.180s",
			 redis_reply_text(reply, NULL));
	shmem_note_error(shmem_my_slot(), message);
}

const char *
trouble_text(void)
{
	return trouble_now[0] ? trouble_now : NULL;
}

void
trouble_clear(void)
{
	trouble_now[0] = '\0';
}
