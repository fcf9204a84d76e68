/*
 * redis.c
 *	  A connection to one Redis server, for a process that must never block.
 *
 * Model: a link is a hiredis context in non-blocking mode and a queue of the
 * commands whose answers are due (redis_link.c).  The context has no socket until
 * the host's name is resolved (redis_resolve.c).  The handshake's commands
 * (redis_handshake.c) are queued as the link is opened and travel as soon
 * as the socket is connected; the link is ready when the last of them is
 * answered.  redis_io.c reads, writes and watches the time.
 *
 * Failure: whatever goes wrong makes the link REDIS_FAILED with a reason, at
 * once and for good: the socket, a time-out, memory, an answer to no command or
 * one that no Redis gives.  The commands in the queue are then answered with NULL,
 * at the end of the turn or when the link is closed.  The caller decides whether it
 * opens another link.  Nothing here raises an error, and only malloc is used, since
 * an ERROR must not jump over C frames of hiredis.  (hiredis 0.14 itself aborts when
 * memory runs out; 1.0 and later return an error.)
 *
 * SIGPIPE must be ignored, as it is in every PostgreSQL process: hiredis writes
 * without MSG_NOSIGNAL.
 */
#include "postgres.h"

#include <limits.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "redis/redis_link_int.h"

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */
static void
describe_host(RedisLink *link, const RedisHost *host)
{
	if (host->port == 0)
		snprintf(link->where, sizeof(link->where), "%s", host->name);
	else if (strchr(host->name, ':') != NULL)
		snprintf(link->where, sizeof(link->where), "[%s]:%d", host->name, host->port);
	else
		snprintf(link->where, sizeof(link->where), "%s:%d", host->name, host->port);
}

/* Make the context, still without a socket, and begin to resolve the host's name. */
static bool
open_context(RedisLink *link, const RedisHost *host)
{
	if (!AcquireExternalFD())
	{
		redis_link_fail(link, "could not connect to Redis at %s: "
						"max_files_per_process allows no more sockets", link->where);
		return false;
	}
	link->context = redisConnectFd(PGINVALID_SOCKET);
	if (link->context != NULL)
		link->resolve = redis_resolve_begin(host);
	else
		ReleaseExternalFD();
	if (link->resolve == NULL)
	{
		redis_link_fail(link, "out of memory while connecting to Redis at %s", link->where);
		return false;
	}
	link->context->flags &= ~REDIS_BLOCK;
	redis_reply_set_limits(link);
	return true;
}

bool
redis_has_tls(void)
{
#ifdef HAVE_HIREDIS_SSL
	return true;
#else
	return false;
#endif
}

bool
redis_has_resolver(void)
{
#ifdef HAVE_CARES
	return true;
#else
	return false;
#endif
}

/* Prepare TLS where the target asks for it. */
static bool
open_tls(RedisLink *link, const RedisTarget *target, int host, const RedisOptions *options)
{
	char		reason[256];

	if (!target->tls)
		return true;
	link->tls = redis_tls_open(options, target->hosts[host].name, reason, sizeof(reason));
	if (link->tls == NULL)
		redis_link_fail(link, "TLS with Redis at %s is not possible: %s", link->where, reason);
	return link->tls != NULL;
}

RedisLink *
redis_open(const RedisTarget *target, int host, const RedisOptions *options)
{
	RedisLink  *link = calloc(1, sizeof(RedisLink));

	Assert(host >= 0 && host < target->nhosts);
	if (link == NULL)
		return NULL;
	link->phase = LINK_RESOLVING;
	link->connect_timeout = options->connect_timeout;
	link->command_timeout = options->command_timeout;
	describe_host(link, &target->hosts[host]);

	link->last_moved = link->last_look = clock_now();

	if (open_tls(link, target, host, options) && open_context(link, &target->hosts[host]))
	{
		redis_link_look_for_address(link);
		if (link->phase != LINK_FAILED)
			redis_handshake_send(link, target, options);
	}
	Assert(link->phase == LINK_FAILED || (redis_link_is_sound(link) && link->count > 0));
	return link;
}

void
redis_close(RedisLink *link)
{
	Assert(!link->in_turn);
	redis_link_fail(link, "connection to Redis at %s was closed", link->where);
	redis_link_abandon_answers(link);
	Assert(link->count == 0);
	redis_link_forget_resolve(link);
	redis_link_forget_unwritten(link);
	if (link->context != NULL)
	{
		redisFree(link->context);
		ReleaseExternalFD();
	}
	if (link->tls != NULL)
		redis_tls_close(link->tls);
	free(link->due);
	free(link);
}

/* ------------------------------------------------------------------------
 * Sending
 * ------------------------------------------------------------------------
 */

bool
redis_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
		   RedisAnswer answer, void *arg)
{
	return link->phase == LINK_READY &&
		redis_link_send(link, argc, argv, argvlen, answer, arg);
}

void
redis_set_owner(RedisLink *link, void *owner)
{
	link->owner = owner;
}

bool
redis_send_texts(RedisLink *link, int argc, const char **argv, RedisAnswer answer, void *arg)
{
	size_t		lens[REDIS_MAX_TEXTS];

	Assert(argc > 0 && argc <= REDIS_MAX_TEXTS);
	for (int i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	return redis_send(link, argc, argv, lens, answer, arg);
}

/* ------------------------------------------------------------------------
 * Asking
 * ------------------------------------------------------------------------
 */
pgsocket
redis_socket(const RedisLink *link)
{
	return link->context != NULL ? link->context->fd : PGINVALID_SOCKET;
}

int
redis_resolver_sockets(const RedisLink *link, RedisSocket *sockets)
{
	return link->resolve != NULL ? redis_resolve_sockets(link->resolve, sockets) : 0;
}

uint64
redis_generation(void)
{
	return redis_resolve_generation();
}

RedisLinkState
redis_state(const RedisLink *link)
{
	switch (link->phase)
	{
		case LINK_READY:
			return REDIS_READY;
		case LINK_FAILED:
			return REDIS_FAILED;
		case LINK_RESOLVING:
		case LINK_CONNECTING:
		case LINK_SECURING:
		case LINK_GREETING:
			break;
	}
	return REDIS_CONNECTING;
}

const char *
redis_error(const RedisLink *link)
{
	Assert(link->phase != LINK_FAILED || link->error[0] != '\0');
	return link->error;
}

size_t
redis_unanswered(const RedisLink *link)
{
	return link->phase < LINK_READY ? 0 : link->count;
}

int
redis_silent_ms(const RedisLink *link)
{
	if (redis_unanswered(link) == 0 || link->clock_waits)
		return 0;
	return (int) Min((clock_now() - link->last_moved) / 1000, INT_MAX);
}

const char *
redis_run_id(const RedisLink *link)
{
	return link->server.run_id;
}

const char *
redis_history(const RedisLink *link)
{
	return link->server.history;
}

const char *
redis_role(const RedisLink *link)
{
	return link->server.role;
}

const char *
redis_withheld(const RedisLink *link)
{
	return link->server.withheld;
}

int
redis_version(const RedisLink *link)
{
	return link->server.version;
}
