/*
 * redis_link.c
 *	  The inside of a link, below its handshake and its reading and writing.
 *
 * Here are the changes of a link's phase (the drawing is in redis_link_int.h) but for
 * those that a turn notices, and the queue of commands whose answers are due.  Answers
 * come in the order of the commands, so the first in the queue is always the next to be
 * called.
 *
 * Failure: redis_link_fail() ends a link for good.  Nothing here raises an error.
 */
#include "postgres.h"

#include "storage/fd.h"

#include "base/clock.h"
#include "redis/redis_link_int.h"

/* A server that does not read must not make the queue grow for ever; hiredis counts in int. */
#define MAX_UNSENT_BYTES	(512 * 1024 * 1024)

/* Links that are ready, and were sent commands on since redis_flush_all() wrote to them. */
static dlist_head unwritten = DLIST_STATIC_INIT(unwritten);

bool
redis_link_is_sound(const RedisLink *link)
{
	bool		has_socket = link->context != NULL && link->context->fd != PGINVALID_SOCKET;

	if (link->count > link->room || link->taken > link->appended)
		return false;
	switch (link->phase)
	{
		case LINK_RESOLVING:
			return link->resolve != NULL && !has_socket;
		case LINK_CONNECTING:
		case LINK_GREETING:
		case LINK_READY:
			return link->resolve == NULL && has_socket;
		case LINK_SECURING:
			return link->resolve == NULL && has_socket && link->tls != NULL;
		case LINK_FAILED:
			return link->error[0] != '\0';
	}
	return false;
}

void
redis_link_fail(RedisLink *link, const char *format,...)
{
	va_list		args;

	if (link->phase == LINK_FAILED)
		return;					/* the first reason is the one that counts */
	link->phase = LINK_FAILED;
	va_start(args, format);
	vsnprintf(link->error, sizeof(link->error), format, args);
	va_end(args);
}

void
redis_link_ready(RedisLink *link)
{
	Assert(link->phase == LINK_GREETING && link->count == 0);
	link->phase = LINK_READY;
}

/* ------------------------------------------------------------------------
 * From the name to a socket
 * ------------------------------------------------------------------------
 */
void
redis_link_forget_resolve(RedisLink *link)
{
	if (link->resolve != NULL)
		redis_resolve_free(link->resolve);
	link->resolve = NULL;
}

/* Begin to connect to one of the addresses. */
static void
connect_link(RedisLink *link)
{
	int			count;
	const RedisAddress *addresses = redis_resolve_addresses(link->resolve, &count);

	link->context->fd = redis_socket_connect(addresses, count);
	if (link->context->fd == PGINVALID_SOCKET)
		redis_link_fail(link, "could not connect to Redis at %s: %s",
						link->where, strerror(errno));
	else
		link->phase = LINK_CONNECTING;
}

void
redis_link_look_for_address(RedisLink *link)
{
	Assert(link->phase == LINK_RESOLVING);
	switch (redis_resolve_turn(link->resolve))
	{
		case RESOLVE_PENDING:
			return;
		case RESOLVE_FAILED:
			redis_link_fail(link, "could not connect to Redis at %s: %s",
							link->where, redis_resolve_error(link->resolve));
			break;
		case RESOLVE_DONE:
			connect_link(link);
			break;
	}
	redis_link_forget_resolve(link);
	/* The time that the name server took does not count as Redis's. */
	link->last_moved = link->last_look = clock_now();
}

/* ------------------------------------------------------------------------
 * Links to be written to
 * ------------------------------------------------------------------------
 */
static void
note_unwritten(RedisLink *link)
{
	if (link->is_unwritten)
		return;
	link->is_unwritten = true;
	dlist_push_tail(&unwritten, &link->unwritten_node);
}

void
redis_link_forget_unwritten(RedisLink *link)
{
	if (!link->is_unwritten)
		return;
	link->is_unwritten = false;
	dlist_delete(&link->unwritten_node);
}

RedisLink *
redis_link_take_unwritten(void)
{
	RedisLink  *link;

	if (dlist_is_empty(&unwritten))
		return NULL;
	link = dlist_head_element(RedisLink, unwritten_node, &unwritten);
	redis_link_forget_unwritten(link);
	return link;
}

/* ------------------------------------------------------------------------
 * The queue of answers due
 * ------------------------------------------------------------------------
 */

/* Make sure that one more answer can be queued. */
static bool
reserve_due(RedisLink *link)
{
	size_t		room = link->room ? link->room * 2 : 64;
	DueAnswer  *due;

	if (link->count < link->room)
		return true;
	due = malloc(room * sizeof(DueAnswer));
	if (due == NULL)
		return false;
	for (size_t i = 0; i < link->count; i++)
		due[i] = link->due[(link->first + i) & (link->room - 1)];
	free(link->due);
	link->due = due;
	link->first = 0;
	link->room = room;
	Assert((room & (room - 1)) == 0);
	return true;
}

bool
redis_link_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
				RedisAnswer answer, void *arg)
{
	size_t		unsent;
	DueAnswer  *due;

	if (link->phase == LINK_FAILED)
		return false;

	unsent = sdslen(link->context->obuf);
	if (unsent > MAX_UNSENT_BYTES || !reserve_due(link) ||
		redisAppendCommandArgv(link->context, argc, argv, argvlen) != REDIS_OK)
	{
		redis_link_fail(link, "out of memory for commands to Redis at %s", link->where);
		return false;
	}
	link->appended += sdslen(link->context->obuf) - unsent;

	if (link->count == 0 && link->phase >= LINK_GREETING)
	{
		link->last_moved = link->last_look = clock_now();
		link->clock_waits = link->phase == LINK_READY;
	}
	Assert(link->count < link->room);
	due = &link->due[(link->first + link->count++) & (link->room - 1)];
	due->answer = answer;
	due->arg = arg;
	due->end = link->appended;
	Assert(link->taken < due->end);
	if (link->phase == LINK_READY)
		note_unwritten(link);
	return true;
}

DueAnswer
redis_link_next_due(RedisLink *link)
{
	DueAnswer	due = link->due[link->first];

	Assert(link->count > 0);
	link->first = (link->first + 1) & (link->room - 1);
	link->count--;
	return due;
}

/* No answer will come any more: say so to each that waits for one. */
void
redis_link_abandon_answers(RedisLink *link)
{
	Assert(link->phase == LINK_FAILED);
	while (link->count > 0)
	{
		DueAnswer	due = redis_link_next_due(link);

		due.answer(due.arg, NULL);
	}
}

/* ------------------------------------------------------------------------
 * For the handshake
 * ------------------------------------------------------------------------
 */
RedisServer *
redis_link_server(RedisLink *link)
{
	return &link->server;
}

const char *
redis_link_where(const RedisLink *link)
{
	return link->where;
}
