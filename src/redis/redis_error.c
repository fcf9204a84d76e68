/*
 * redis_error.c
 *	  Telling a Redis that cannot serve at all from one that refuses a key.
 *
 * Some error replies say that Redis as a whole cannot serve now (-LOADING,
 * -READONLY, ...): the worker gives the link up, and everything is sent again when
 * there is another one.  Any other error is meant for the command that it answers:
 * a refusal, which is tried again later and holds up nothing.
 *
 * A redirection of Redis Cluster is an answer of another kind where the address is
 * one of a cluster; elsewhere it means that the address should be.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/log_text.h"
#include "base/log_throttle.h"
#include "redis/redis_error.h"

#define NEEDS_CLUSTER \
	"Redis is a node of a Redis Cluster, which needs an address of redis+cluster://"

static char last_refusal[256];

static bool
is_err_with(const RedisReply *reply, const char *words)
{
	return redis_reply_is_error(reply, "ERR") &&
		strstr(redis_reply_text(reply, NULL), words) != NULL;
}

bool
redis_error_is_unknown_command(const RedisReply *reply)
{
	return is_err_with(reply, "unknown command");
}

bool
redis_error_is_unknown_function(const RedisReply *reply)
{
	return is_err_with(reply, "unction not found");
}

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
		{"MOVED", NEEDS_CLUSTER},
		{"ASK", NEEDS_CLUSTER},
		{"TRYAGAIN", NEEDS_CLUSTER},
		{"CROSSSLOT", NEEDS_CLUSTER},
		{"UNREGISTERED", "the functions of pg_uncache were loaded anew"},
	};
	const char *text = redis_reply_text(reply, NULL);

	*why = NULL;
	for (int i = 0; i < lengthof(codes); i++)
	{
		if (redis_reply_is_error(reply, codes[i].code))
			*why = codes[i].why;
	}
	if (redis_error_is_unknown_function(reply))
		*why = "the functions of pg_uncache are gone from Redis";
	if (redis_error_is_unknown_command(reply))
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

	log_text_copy(text, sizeof(text), redis_reply_text(reply, NULL));
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

const char *
redis_error_note_refusal(const RedisReply *reply)
{
	static LogThrottle throttle;
	static char message[256];

	strlcpy(last_refusal, redis_error_text(reply), sizeof(last_refusal));
	snprintf(message, sizeof(message),
			 "Redis has refused an invalidation and is asked again: %s",
			 log_text_cut(last_refusal, 180));
	if (log_throttle_passes(&throttle, NULL, clock_now(), LOG_THROTTLE_MS))
		ereport(LOG,
				(errmsg("%s", message),
				 errdetail("The view uncache.backlog shows how often what was refused has been "
						   "tried. This message comes at most once a minute.")));
	return message;
}
