/*
 * redis_error.c
 *	  Telling a Redis that is of no use from one that refuses a key.
 *
 * Some error replies say that Redis as a whole is of no use for now (-LOADING,
 * -READONLY, ...): the worker gives the link up, and everything is sent again when
 * there is another one.  Any other error is meant for the command that it answers:
 * a refusal, which is tried again later and holds up nothing.
 *
 * A redirection of Redis Cluster is an answer of another kind where the address is
 * one of a cluster; elsewhere it means that the address should be.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "shmem/shmem.h"
#include "redis/redis_error.h"

/* A refusal is logged at most so often. */
#define LOG_MS		(60 * 1000)

static char last_refusal[256];

bool
redis_error_is_fatal(const RedisReply *reply, const char **why)
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
		{"MOVED", "Redis is a node of a Redis Cluster, which needs an address of redis+cluster://"},
		{"ASK", "Redis is a node of a Redis Cluster, which needs an address of redis+cluster://"},
		{"TRYAGAIN", "Redis is a node of a Redis Cluster, which needs an address of redis+cluster://"},
		{"CROSSSLOT", "Redis is a node of a Redis Cluster, which needs an address of redis+cluster://"},
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

const char *
redis_error_text(const RedisReply *reply)
{
	static char text[256];
	char	   *arguments;

	strlcpy(text, redis_reply_text(reply, NULL), sizeof(text));
	arguments = strstr(text, ", with args");
	if (arguments != NULL)
		*arguments = '\0';
	return text;
}

const char *
redis_error_last_refusal(void)
{
	return last_refusal;
}

void
redis_error_note_refusal(const RedisReply *reply)
{
	char		message[256];

	static TimestampTz logged_at = 0;
	TimestampTz now = clock_now();

	strlcpy(last_refusal, redis_error_text(reply), sizeof(last_refusal));
	snprintf(message, sizeof(message), "Redis has refused an invalidation and is asked again: %.180s",
			 redis_error_text(reply));
	shmem_note_error(shmem_my_database(), message);
	if (logged_at != 0 && !TimestampDifferenceExceeds(logged_at, now, LOG_MS))
		return;
	logged_at = now;
	ereport(LOG,
			(errmsg("%s", message),
			 errdetail("The view uncache.backlog shows how often what was refused has been tried. This message comes at most once a minute.")));
}
