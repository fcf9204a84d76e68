/*
 * redis_io.c
 *	  One turn of a link: write, read, answer, and watch the time.
 *
 * Failure: see redis.c.  Here errors of hiredis and of the system are put into words.
 *
 * Time-out: the time counts from the last byte that arrived, or that the
 * server's kernel took of the command whose answer is due next.  Bytes of later
 * commands do not count: a stopped server's kernel takes small commands for a
 * long time.  See look_for_progress().  While no answer is due the time stands still; it
 * begins with the first write of the next command, not when that command is queued, since
 * the worker may have other work to do in between.
 */
#include "postgres.h"

#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "redis/redis_link_int.h"

/* A turn reads so many times at most, so that a fast server does not hold up the others. */
#define READS_PER_TURN		64

/* Through TLS one write takes a record of 16 kB; a turn writes so many at most. */
#define WRITES_PER_TURN		64

/*
 * Each search domain costs a query of its own, and a name server may have to ask others:
 * as long as glibc waits for one server in its two tries.
 */
#define RESOLVE_MS			(10 * 1000)

/* How often to look for progress in one command_timeout, while a command is on its way. */
#define LOOKS_PER_TIMEOUT	4

/*
 * Whether the other end has closed the connection.  Which error says so depends on what was
 * under way when it did; to the log these are one reason.
 */
static bool
was_closed(const redisContext *context)
{
	return context->err == REDIS_ERR_EOF ||
		(context->err == REDIS_ERR_IO && (strcmp(context->errstr, strerror(ECONNRESET)) == 0 ||
										  strcmp(context->errstr, strerror(EPIPE)) == 0));
}

/* hiredis has reported an error; fail the link with the reason. */
static void
fail_from_context(RedisLink *link)
{
	const redisContext *context = link->context;

	Assert(context->err != 0 || link->reply_refused);
	if (link->reply_refused)
		redis_link_fail(link, "Redis at %s sent an answer that is too large", link->where);
	else if (link->tls != NULL && redis_tls_error()[0] != '\0')
		redis_link_fail(link, "TLS with Redis at %s failed: %s", link->where, redis_tls_error());
	else if (was_closed(context))
		redis_link_fail(link, "Redis at %s closed the connection", link->where);
	else if (context->err == REDIS_ERR_IO)
		redis_link_fail(link, "connection to Redis at %s was lost: %s",
						link->where, context->errstr);
	else if (context->err == REDIS_ERR_OOM)
		redis_link_fail(link, "out of memory while talking to Redis at %s", link->where);
	else
		redis_link_fail(link, "what answers at %s is not a Redis server: %s",
						link->where, context->errstr);
}

/* ------------------------------------------------------------------------
 * Writing and reading
 * ------------------------------------------------------------------------
 */
/* Write what the socket takes at once; redis_turn() fails the link if that fails. */
static void
write_commands(RedisLink *link)
{
	size_t		unsent = sdslen(link->context->obuf);

	Assert(link->phase == LINK_GREETING || link->phase == LINK_READY);
	if (link->clock_waits)
	{
		link->last_moved = link->last_look = clock_now();
		link->clock_waits = false;
	}
	redis_tls_clear_error();
	for (int i = 0; i < WRITES_PER_TURN && unsent > 0 && !link->write_failed; i++)
	{
		size_t		before = unsent;

		link->write_failed = redisBufferWrite(link->context, NULL) != REDIS_OK;
		unsent = sdslen(link->context->obuf);
		if (link->tls == NULL || unsent == before)
			break;
	}
	link->write_wants_read = unsent > 0 && link->tls != NULL &&
		redis_tls_wanted_events(link->tls) == WL_SOCKET_READABLE;
}

void
redis_flush(RedisLink *link)
{
	if (link->phase == LINK_GREETING || link->phase == LINK_READY)
		write_commands(link);
}

void
redis_flush_all(void (*written) (void *owner))
{
	RedisLink  *link;

	while ((link = redis_link_take_unwritten()) != NULL)
	{
		redis_flush(link);
		if (link->owner != NULL)
			written(link->owner);
	}
}

/* Call the callbacks whose answers have arrived whole. */
static void
take_answers(RedisLink *link)
{
	redisReader *reader = link->context->reader;

	while (link->phase != LINK_FAILED)
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
			redis_link_fail(link, "Redis at %s sent an answer that was not asked for", link->where);
		else
		{
			due = redis_link_next_due(link);
			due.answer(due.arg, reply);
		}
		freeReplyObject(reply);
	}

	if (link->phase != LINK_FAILED && !redis_reply_is_within_limits(link))
	{
		link->reply_refused = true;
		fail_from_context(link);
	}
}

/* Read what has arrived, and call the callbacks with it. */
static void
read_answers(RedisLink *link, TimestampTz now)
{
	redisReader *reader = link->context->reader;

	for (int i = 0; i < READS_PER_TURN && link->phase != LINK_FAILED; i++)
	{
		size_t		before = reader->len;
		size_t		got;

		redis_tls_clear_error();
		if (redisBufferRead(link->context) != REDIS_OK)
		{
			fail_from_context(link);
			return;
		}
		got = reader->len - before;
		if (got == 0)
			return;
		if (link->phase == LINK_READY)
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

/* ------------------------------------------------------------------------
 * Time
 * ------------------------------------------------------------------------
 */
/* Is the command whose answer is due next still on its way, as far as we know? */
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
	uint64		untaken = redis_socket_untaken(link->context->fd);
	uint64		taken = written > untaken ? written - untaken : 0;

	Assert(link->phase == LINK_READY && written <= link->appended);
	if (taken > link->taken)
	{
		if (next_is_on_its_way(link))
			link->last_moved = Max(link->last_moved, link->last_look);
		link->taken = taken;
	}
	link->last_look = now;
}

TimestampTz
redis_deadline(const RedisLink *link)
{
	TimestampTz deadline;

	if (link->phase == LINK_RESOLVING)
		return Min(TimestampTzPlusMilliseconds(link->last_moved, RESOLVE_MS),
				   redis_resolve_deadline(link->resolve));
	if (link->phase < LINK_READY)
		return TimestampTzPlusMilliseconds(link->last_moved, link->connect_timeout);
	if (link->phase == LINK_FAILED || link->count == 0 || link->clock_waits)
		return DT_NOEND;

	deadline = TimestampTzPlusMilliseconds(link->last_moved, link->command_timeout);
	if (next_is_on_its_way(link))
		deadline = Min(deadline,
					   TimestampTzPlusMilliseconds(link->last_look,
												   link->command_timeout / LOOKS_PER_TIMEOUT));
	return deadline;
}

static void
check_time(RedisLink *link, TimestampTz now)
{
	if (link->phase == LINK_FAILED || now < redis_deadline(link))
		return;

	switch (link->phase)
	{
		case LINK_RESOLVING:
			if (now >= TimestampTzPlusMilliseconds(link->last_moved, RESOLVE_MS))
				redis_link_fail(link, "could not connect to Redis at %s: "
								"the host name could not be resolved within %d ms",
								link->where, RESOLVE_MS);
			break;
		case LINK_CONNECTING:
			redis_socket_try_another();
			redis_link_fail(link, "could not connect to Redis at %s: no answer within %d ms",
							link->where, link->connect_timeout);
			break;
		case LINK_SECURING:
			redis_link_fail(link, "Redis at %s did not take up TLS within %d ms; "
							"its port may be one without", link->where, link->connect_timeout);
			break;
		case LINK_GREETING:
			redis_link_fail(link, "Redis at %s gave no answer within %d ms",
							link->where, link->connect_timeout);
			break;
		case LINK_READY:
			look_for_progress(link, now);
			if (now >= TimestampTzPlusMilliseconds(link->last_moved, link->command_timeout))
				redis_link_fail(link, "Redis at %s gave no answer within %d ms",
								link->where, link->command_timeout);
			break;
		case LINK_FAILED:
			break;
	}
}

/* ------------------------------------------------------------------------
 * Turning
 * ------------------------------------------------------------------------
 */
/*
 * Each phase has connect_timeout for itself, from here on: the time in which this process was busy
 * with other links, and did not see that the phase before was over, is not the server's.
 */
static void
enter(RedisLink *link, LinkPhase phase)
{
	Assert(link->phase < phase);
	link->phase = phase;
	link->last_moved = link->last_look = clock_now();
}

/* See whether the socket is connected meanwhile. */
static void
look_for_connection(RedisLink *link)
{
	int			status = redis_socket_status(link->context->fd);

	if (status < 0)
	{
		redis_socket_try_another();
		redis_link_fail(link, "could not connect to Redis at %s: %s", link->where, strerror(errno));
	}
	else if (status > 0)
		enter(link, link->tls != NULL ? LINK_SECURING : LINK_GREETING);
}

/* Go on with TLS's own handshake. */
static void
secure(RedisLink *link)
{
	char		reason[256];
	int			status = redis_tls_shake_hands(link->tls, link->context, reason, sizeof(reason));

	if (status < 0)
		redis_link_fail(link, "TLS with Redis at %s failed: %s", link->where, reason);
	else if (status > 0)
		enter(link, LINK_GREETING);
}

/* Go from phase to phase as far as that is possible at once. */
static void
advance(RedisLink *link)
{
	if (link->phase == LINK_RESOLVING)
		redis_link_look_for_address(link);
	if (link->phase == LINK_CONNECTING)
		look_for_connection(link);
	if (link->phase == LINK_SECURING)
		secure(link);
}

RedisLinkState
redis_turn(RedisLink *link, uint32 events)
{
	TimestampTz now = clock_now();

	Assert(!link->in_turn && redis_link_is_sound(link));
	link->in_turn = true;
	advance(link);
	if (link->phase == LINK_GREETING || link->phase == LINK_READY)
	{
		/*
		 * TLS may need to read because the socket can be written to.  At the deadline the answer
		 * may have arrived while this process was busy with something else.
		 */
		if ((events & (link->tls ? WL_SOCKET_MASK : WL_SOCKET_READABLE)) != 0 ||
			now >= redis_deadline(link))
			read_answers(link, now);
		if (link->phase != LINK_FAILED)
			write_commands(link);
		if (link->phase != LINK_FAILED && link->write_failed)
			fail_from_write(link, now);
	}
	check_time(link, now);
	if (link->phase == LINK_FAILED)
		redis_link_abandon_answers(link);
	Assert(redis_link_is_sound(link));
	link->in_turn = false;
	return redis_state(link);
}

uint32
redis_wanted_events(const RedisLink *link)
{
	switch (link->phase)
	{
		case LINK_RESOLVING:
		case LINK_FAILED:
			return 0;
		case LINK_CONNECTING:
			return WL_SOCKET_CONNECTED;
		case LINK_SECURING:
			return redis_tls_wanted_events(link->tls);
		case LINK_GREETING:
		case LINK_READY:
			break;
	}
	return WL_SOCKET_READABLE |
		(sdslen(link->context->obuf) > 0 && !link->write_wants_read ? WL_SOCKET_WRITEABLE : 0) |
		(link->tls ? redis_tls_wanted_events(link->tls) : 0);
}
