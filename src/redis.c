/*
 * redis.c
 *	  A connection to one Redis server, for a process that must never block.
 *
 * Model: a link is a hiredis context in non-blocking mode and a queue of the
 * commands whose answers are due.  Answers come in the order of the commands,
 * so the first in the queue is always the next to be called.  The handshake's
 * commands (redishello.c) are queued as the link is opened and travel as soon
 * as the socket is connected; the link is ready when the last of them is
 * answered.
 *
 * Failure: whatever goes wrong makes the link REDIS_FAILED with a reason, at
 * once and for good: the socket, a time-out, memory, an answer that nobody
 * asked for or that no Redis gives.  What is in the queue then gets NULL, at
 * the end of the turn or when the link is closed.  To try again is the caller's
 * business.  Nothing here raises an error, and only malloc is used, for the C
 * frames of hiredis are in between.  (hiredis 0.14 itself aborts when memory
 * runs out; 1.0 and later return an error.)
 *
 * Time-out: the time counts from the last byte that arrived, or that the
 * server's kernel took of the command whose answer is due next.  Bytes of later
 * commands do not count: a stopped server's kernel takes small commands for a
 * long time.  See look_for_progress().
 *
 * Limits, against a broken or hostile server: an answer has at most
 * MAX_REPLY_BYTES, MAX_REPLY_ELEMENTS and MAX_REPLY_DEPTH.
 *
 * SIGPIPE must be ignored, as it is in every PostgreSQL process: hiredis writes
 * without MSG_NOSIGNAL.
 */
#include "postgres.h"

#include <limits.h>
#include <unistd.h>
#include <hiredis/hiredis.h>

#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "redislink.h"
#include "redisnet.h"
#include "redistls.h"

/* SCAN's and INFO's answers stay far below; nothing else has more than a few bytes. */
#define MAX_REPLY_BYTES		(16 * 1024 * 1024)
#define MAX_REPLY_ELEMENTS	(256 * 1024)
#define MAX_REPLY_DEPTH		7	/* also the limit built into hiredis 0.14 */

/* "$", a length, its end: no first line of a long answer is longer. */
#define MAX_HEADER_BYTES	32

/* Commands that nobody reads are not piled up for ever; hiredis counts in int. */
#define MAX_UNSENT_BYTES	(512 * 1024 * 1024)

/* hiredis reads at most this much at a time; a turn reads so many times at most. */
#define READ_BYTES			(16 * 1024)
#define READS_PER_TURN		64

/* Through TLS one write takes a record of 16 kB; a turn writes so many at most. */
#define WRITES_PER_TURN		64

/* Looks for progress in one command_timeout, while a command is on its way. */
#define LOOKS_PER_TIMEOUT	4

#if HIREDIS_MAJOR >= 1
typedef size_t ElementCount;
#else
typedef int ElementCount;
#endif

typedef struct DueAnswer
{
	RedisAnswer answer;
	void	   *arg;
	uint64		end;			/* position in the stream where the command ends */
} DueAnswer;

struct RedisLink
{
	RedisLinkState state;
	bool		connected;		/* the socket is; false: handshake not sent yet */
	bool		write_failed;	/* to be reported when the answers are read */
	bool		in_turn;		/* callbacks run only then */
	redisContext *context;		/* NULL: there was never a socket */
	RedisTls   *tls;			/* NULL: none */
	bool		secured;		/* TLS is up, or there is none */
	bool		write_wants_read;	/* TLS must read before it can write on */
	int			connect_timeout;
	int			command_timeout;

	/* The queue of answers due: a ring of "room" entries, a power of two. */
	DueAnswer  *due;
	size_t		first;
	size_t		count;
	size_t		room;

	/* Positions in the stream of all bytes ever sent on the link. */
	uint64		appended;		/* given to hiredis */
	uint64		taken;			/* taken by the server's kernel, at last_look */
	TimestampTz last_look;
	TimestampTz last_moved;		/* while connecting: when that began */

	/* The answer that is being read. */
	redisReplyObjectFunctions functions;
	void	   *(*create_array) (const redisReadTask *, ElementCount);
	size_t		reply_bytes;
	size_t		reply_elements;
	bool		reply_refused;	/* it broke a limit */

	RedisServer server;
	char		where[300];
	char		error[600];
};

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */
#define REPLY(reply)	((const redisReply *) (reply))

RedisReplyType
redis_reply_type(const RedisReply *reply)
{
	switch (REPLY(reply)->type)
	{
		case REDIS_REPLY_STATUS:
			return REDIS_STATUS;
		case REDIS_REPLY_ERROR:
			return REDIS_ERROR;
		case REDIS_REPLY_INTEGER:
			return REDIS_INTEGER;
		case REDIS_REPLY_NIL:
			return REDIS_NIL;
		case REDIS_REPLY_STRING:
			return REDIS_STRING;
		case REDIS_REPLY_ARRAY:
			return REDIS_ARRAY;
		default:
			return REDIS_OTHER;
	}
}

int64
redis_reply_integer(const RedisReply *reply)
{
	return redis_reply_type(reply) == REDIS_INTEGER ? REPLY(reply)->integer : 0;
}

const char *
redis_reply_text(const RedisReply *reply, size_t *len)
{
	RedisReplyType type = redis_reply_type(reply);

	if (type == REDIS_STATUS || type == REDIS_ERROR || type == REDIS_STRING)
	{
		if (len)
			*len = REPLY(reply)->len;
		return REPLY(reply)->str;
	}
	if (len)
		*len = 0;
	return "";
}

size_t
redis_reply_count(const RedisReply *reply)
{
	return redis_reply_type(reply) == REDIS_ARRAY ? REPLY(reply)->elements : 0;
}

const RedisReply *
redis_reply_element(const RedisReply *reply, size_t i)
{
	Assert(i < redis_reply_count(reply));
	return (const RedisReply *) REPLY(reply)->element[i];
}

bool
redis_reply_is_error(const RedisReply *reply, const char *code)
{
	size_t		len = strlen(code);

	return redis_reply_type(reply) == REDIS_ERROR &&
		strncmp(REPLY(reply)->str, code, len) == 0 &&
		(REPLY(reply)->str[len] == ' ' || REPLY(reply)->str[len] == '\0');
}

/* Stands in for hiredis's own function, which would believe any number. */
static void *
create_limited_array(const redisReadTask *task, ElementCount elements)
{
	RedisLink  *link = task->privdata;
	int			depth = 1;

	for (const redisReadTask *t = task->parent; t != NULL; t = t->parent)
		depth++;

	if (depth > MAX_REPLY_DEPTH ||
		(size_t) elements > MAX_REPLY_ELEMENTS - link->reply_elements)
	{
		link->reply_refused = true;
		return NULL;
	}
	link->reply_elements += elements;
	return link->create_array(task, elements);
}

static void
limit_replies(RedisLink *link)
{
	redisReader *reader = link->context->reader;

	link->functions = *reader->fn;
	link->create_array = link->functions.createArray;
	link->functions.createArray = create_limited_array;
	reader->fn = &link->functions;
	reader->privdata = link;
}

/* Is what has arrived of the next answer within the limits? */
static bool
reply_is_within_limits(const RedisLink *link)
{
	const redisReader *reader = link->context->reader;
	size_t		unparsed = reader->len - reader->pos;

	if (link->reply_refused || link->reply_bytes > MAX_REPLY_BYTES)
		return false;

	/*
	 * Only a string, whose length stands in front, may be long: without that,
	 * hiredis would search the whole text for its end at every read.
	 */
	if (unparsed > READ_BYTES)
	{
		const char *text = reader->buf + reader->pos;

		for (int i = 0; i + 1 < MAX_HEADER_BYTES; i++)
		{
			if (text[i] == '\r' && text[i + 1] == '\n')
				return true;
		}
		return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Failing
 * ------------------------------------------------------------------------
 */
void
redislink_fail(RedisLink *link, const char *format,...)
{
	va_list		args;

	if (link->state == REDIS_FAILED)
		return;					/* the first reason is the one that counts */
	link->state = REDIS_FAILED;
	va_start(args, format);
	vsnprintf(link->error, sizeof(link->error), format, args);
	va_end(args);
}

/* hiredis has given up; say why. */
static void
fail_from_context(RedisLink *link)
{
	const redisContext *context = link->context;

	if (link->reply_refused)
		redislink_fail(link, "Redis at %s sent an answer that is too large", link->where);
	else if (link->tls != NULL && redistls_error()[0] != '\0')
		redislink_fail(link, "TLS with Redis at %s failed: %s", link->where, redistls_error());
	else if (context->err == REDIS_ERR_EOF)
		redislink_fail(link, "Redis at %s closed the connection", link->where);
	else if (context->err == REDIS_ERR_IO)
		redislink_fail(link, "connection to Redis at %s was lost: %s",
					   link->where, context->errstr);
	else if (context->err == REDIS_ERR_OOM)
		redislink_fail(link, "out of memory while talking to Redis at %s", link->where);
	else
		redislink_fail(link, "what answers at %s is not a Redis server: %s",
					   link->where, context->errstr);
}

static DueAnswer
next_due(RedisLink *link)
{
	DueAnswer	due = link->due[link->first];

	Assert(link->count > 0);
	link->first = (link->first + 1) & (link->room - 1);
	link->count--;
	return due;
}

/* Nobody will be answered any more: tell them. */
static void
abandon_answers(RedisLink *link)
{
	Assert(link->state == REDIS_FAILED);
	while (link->count > 0)
	{
		DueAnswer	due = next_due(link);

		due.answer(due.arg, NULL);
	}
}

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

/* Give the link a socket on its way to the host, and a context around it. */
static bool
open_socket(RedisLink *link, const RedisHost *host)
{
	char		reason[256];
	pgsocket	sock;

	if (!AcquireExternalFD())
	{
		redislink_fail(link, "could not connect to Redis at %s: %s", link->where, strerror(errno));
		return false;
	}

	sock = redisnet_connect(host, reason, sizeof(reason));
	if (sock == PGINVALID_SOCKET)
	{
		ReleaseExternalFD();
		redislink_fail(link, "could not connect to Redis at %s: %s", link->where, reason);
		return false;
	}

	link->context = redisConnectFd(sock);
	if (link->context == NULL)
	{
		close(sock);
		ReleaseExternalFD();
		redislink_fail(link, "out of memory while connecting to Redis at %s", link->where);
		return false;
	}
	link->context->flags &= ~REDIS_BLOCK;
	limit_replies(link);
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

/* Make ready for TLS where the target asks for it. */
static bool
open_tls(RedisLink *link, const RedisTarget *target, int host, const RedisOptions *options)
{
	char		reason[256];

	link->secured = !target->tls;
	if (target->tls)
	{
		link->tls = redistls_open(options, target->hosts[host].name, reason, sizeof(reason));
		if (link->tls == NULL)
			redislink_fail(link, "TLS with Redis at %s is not possible: %s", link->where, reason);
	}
	return link->state != REDIS_FAILED;
}

RedisLink *
redis_open(const RedisTarget *target, int host, const RedisOptions *options)
{
	RedisLink  *link = calloc(1, sizeof(RedisLink));

	if (link == NULL)
		return NULL;
	link->state = REDIS_CONNECTING;
	link->connect_timeout = options->connect_timeout;
	link->command_timeout = options->command_timeout;
	describe_host(link, &target->hosts[host]);

	if (open_tls(link, target, host, options) && open_socket(link, &target->hosts[host]))
		redishello_send(link, target, options);

	/* The name is resolved by now: that time is not the server's. */
	link->last_moved = link->last_look = GetCurrentTimestamp();
	return link;
}

void
redis_close(RedisLink *link)
{
	Assert(!link->in_turn);
	redislink_fail(link, "connection to Redis at %s was closed", link->where);
	abandon_answers(link);
	if (link->context != NULL)
	{
		redisFree(link->context);
		ReleaseExternalFD();
	}
	if (link->tls != NULL)
		redistls_close(link->tls);
	free(link->due);
	free(link);
}

/* ------------------------------------------------------------------------
 * Sending
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
	return true;
}

bool
redislink_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
			   RedisAnswer answer, void *arg)
{
	size_t		unsent;
	DueAnswer  *due;

	if (link->state == REDIS_FAILED)
		return false;

	unsent = sdslen(link->context->obuf);
	if (unsent > MAX_UNSENT_BYTES || !reserve_due(link) ||
		redisAppendCommandArgv(link->context, argc, argv, argvlen) != REDIS_OK)
	{
		redislink_fail(link, "out of memory for commands to Redis at %s", link->where);
		return false;
	}
	link->appended += sdslen(link->context->obuf) - unsent;

	if (link->count == 0 && link->connected)
		link->last_moved = link->last_look = GetCurrentTimestamp();
	due = &link->due[(link->first + link->count++) & (link->room - 1)];
	due->answer = answer;
	due->arg = arg;
	due->end = link->appended;
	return true;
}

bool
redis_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
		   RedisAnswer answer, void *arg)
{
	return link->state == REDIS_READY &&
		redislink_send(link, argc, argv, argvlen, answer, arg);
}

/* Write what the socket takes at once; redis_turn() sees to it if that fails. */
static void
write_commands(RedisLink *link)
{
	size_t		unsent = sdslen(link->context->obuf);

	redistls_clear_error();
	for (int i = 0; i < WRITES_PER_TURN && unsent > 0 && !link->write_failed; i++)
	{
		size_t		before = unsent;

		link->write_failed = redisBufferWrite(link->context, NULL) != REDIS_OK;
		unsent = sdslen(link->context->obuf);
		if (link->tls == NULL || unsent == before)
			break;
	}
	link->write_wants_read = unsent > 0 && link->tls != NULL &&
		redistls_wanted_events(link->tls) == WL_SOCKET_READABLE;
}

void
redis_flush(RedisLink *link)
{
	if (link->state != REDIS_FAILED && link->secured && link->connected)
		write_commands(link);
}

/* ------------------------------------------------------------------------
 * Turning
 * ------------------------------------------------------------------------
 */

/* Call the answers that have arrived whole. */
static void
take_answers(RedisLink *link)
{
	redisReader *reader = link->context->reader;

	while (link->state != REDIS_FAILED)
	{
		void	   *reply;
		DueAnswer	due;

		if (redisGetReplyFromReader(link->context, &reply) != REDIS_OK)
		{
			fail_from_context(link);
			return;
		}
		if (reply == NULL)
			break;

		link->reply_bytes = reader->len - reader->pos;
		link->reply_elements = 0;
		if (link->count == 0 || redis_reply_type(reply) == REDIS_OTHER)
			redislink_fail(link, "Redis at %s sent an answer that was not asked for", link->where);
		else
		{
			due = next_due(link);
			due.answer(due.arg, reply);
		}
		freeReplyObject(reply);
	}

	if (link->state != REDIS_FAILED && !reply_is_within_limits(link))
	{
		link->reply_refused = true;
		fail_from_context(link);
	}
}

/* Read what has arrived, and answer with it. */
static void
read_answers(RedisLink *link, TimestampTz now)
{
	redisReader *reader = link->context->reader;

	for (int i = 0; i < READS_PER_TURN && link->state != REDIS_FAILED; i++)
	{
		size_t		before = reader->len;
		size_t		got;

		redistls_clear_error();
		if (redisBufferRead(link->context) != REDIS_OK)
		{
			fail_from_context(link);
			return;
		}
		got = reader->len - before;
		if (got == 0)
			return;
		if (link->state == REDIS_READY)
			link->last_moved = link->last_look = now;
		link->reply_bytes += got;
		take_answers(link);
		if (got < READ_BYTES && link->tls == NULL)
			return;				/* the socket is empty: spare a call */
	}
}

/*
 * A server that closed on us may have said why, and may have answered some
 * commands, before it did: take that first.
 */
static void
fail_from_write(RedisLink *link, TimestampTz now)
{
	redisContext *context = link->context;
	int			write_error = context->err;

	context->err = 0;
	read_answers(link, now);
	context->err = write_error;
	fail_from_context(link);
}

/* Is the command whose answer is due next still on its way, as far as known? */
static bool
next_is_on_its_way(const RedisLink *link)
{
	return link->count > 0 && link->taken < link->due[link->first].end;
}

/*
 * How far have the commands come?  A command that is larger than the line can
 * carry in one command_timeout moves without an answer; that must not count as
 * silence.  What moved since the last look is dated back to that look, for it
 * may have moved right after it.
 */
static void
look_for_progress(RedisLink *link, TimestampTz now)
{
	uint64		written = link->appended - sdslen(link->context->obuf);
	uint64		untaken = redisnet_untaken(redis_socket(link));
	uint64		taken = written > untaken ? written - untaken : 0;

	if (taken > link->taken)
	{
		if (next_is_on_its_way(link))
			link->last_moved = Max(link->last_moved, link->last_look);
		link->taken = taken;
	}
	link->last_look = now;
}

static void
check_time(RedisLink *link, TimestampTz now)
{
	/* A clock set back must not keep a dead link for hours. */
	link->last_moved = Min(link->last_moved, now);
	link->last_look = Min(link->last_look, now);

	if (link->state == REDIS_FAILED || now < redis_deadline(link))
		return;

	if (!link->connected)
	{
		redisnet_try_another();
		redislink_fail(link, "could not connect to Redis at %s: no answer within %d ms",
					   link->where, link->connect_timeout);
		return;
	}
	if (!link->secured)
	{
		redislink_fail(link, "Redis at %s did not take up TLS within %d ms; its port may be one without",
					   link->where, link->connect_timeout);
		return;
	}
	if (link->state == REDIS_CONNECTING)
	{
		redislink_fail(link, "Redis at %s gave no answer within %d ms",
					   link->where, link->connect_timeout);
		return;
	}

	look_for_progress(link, now);
	if (now >= TimestampTzPlusMilliseconds(link->last_moved, link->command_timeout))
		redislink_fail(link, "Redis at %s gave no answer within %d ms",
					   link->where, link->command_timeout);
}

/* Has the socket been connected meanwhile? */
static bool
is_connected(RedisLink *link)
{
	int			status;

	if (link->connected)
		return true;
	status = redisnet_status(redis_socket(link));
	if (status < 0)
	{
		redisnet_try_another();
		redislink_fail(link, "could not connect to Redis at %s: %s", link->where, strerror(errno));
	}
	link->connected = status > 0;
	return link->connected;
}

/* Is TLS up meanwhile, where it is wanted? */
static bool
is_secured(RedisLink *link)
{
	char		reason[256];
	int			status;

	if (link->secured)
		return true;
	status = redistls_shake_hands(link->tls, link->context, reason, sizeof(reason));
	if (status < 0)
		redislink_fail(link, "TLS with Redis at %s failed: %s", link->where, reason);
	link->secured = status > 0;
	return link->secured;
}

RedisLinkState
redis_turn(RedisLink *link, uint32 events)
{
	TimestampTz now = GetCurrentTimestamp();

	Assert(!link->in_turn);
	link->in_turn = true;
	if (link->state != REDIS_FAILED && is_connected(link) && is_secured(link))
	{
		/* TLS may read because the socket can be written to. */
		if (events & (link->tls ? WL_SOCKET_MASK : WL_SOCKET_READABLE))
			read_answers(link, now);
		if (link->state != REDIS_FAILED)
			write_commands(link);
		if (link->state != REDIS_FAILED && link->write_failed)
			fail_from_write(link, now);
	}
	check_time(link, now);
	if (link->state == REDIS_FAILED)
		abandon_answers(link);
	link->in_turn = false;
	return link->state;
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

uint32
redis_wanted_events(const RedisLink *link)
{
	if (link->state == REDIS_FAILED)
		return 0;
	if (!link->connected)
		return WL_SOCKET_CONNECTED;
	if (!link->secured)
		return redistls_wanted_events(link->tls);
	return WL_SOCKET_READABLE |
		(sdslen(link->context->obuf) > 0 && !link->write_wants_read ? WL_SOCKET_WRITEABLE : 0) |
		(link->tls ? redistls_wanted_events(link->tls) : 0);
}

TimestampTz
redis_deadline(const RedisLink *link)
{
	TimestampTz deadline;

	if (link->state == REDIS_CONNECTING)
		return TimestampTzPlusMilliseconds(link->last_moved, link->connect_timeout);
	if (link->state == REDIS_FAILED || link->count == 0)
		return DT_NOEND;

	deadline = TimestampTzPlusMilliseconds(link->last_moved, link->command_timeout);
	if (next_is_on_its_way(link))
		deadline = Min(deadline,
					   TimestampTzPlusMilliseconds(link->last_look,
												   link->command_timeout / LOOKS_PER_TIMEOUT));
	return deadline;
}

RedisLinkState
redis_state(const RedisLink *link)
{
	return link->state;
}

const char *
redis_error(const RedisLink *link)
{
	return link->error;
}

size_t
redis_unanswered(const RedisLink *link)
{
	return link->state == REDIS_CONNECTING ? 0 : link->count;
}

int
redis_silent_ms(const RedisLink *link)
{
	if (redis_unanswered(link) == 0)
		return 0;
	return (int) Min((GetCurrentTimestamp() - link->last_moved) / 1000, INT_MAX);
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

int
redis_version(const RedisLink *link)
{
	return link->server.version;
}

RedisServer *
redislink_server(RedisLink *link)
{
	return &link->server;
}

const char *
redislink_where(const RedisLink *link)
{
	return link->where;
}

void
redislink_ready(RedisLink *link)
{
	Assert(link->state == REDIS_CONNECTING && link->count == 0);
	link->state = REDIS_READY;
}
