/*
 * sentinel.c
 *	  Asks Redis Sentinel which server is the master, and whether it still is.
 *
 * Used by target.c alone.  Never waits (but where redis_open() does).
 *
 * Model: a round asks the Sentinels of the target one after the other, beginning
 * with the one that answered last, until one of them names the master.  While
 * there is a connection to that master the round is repeated every WATCH_MS, on a link
 * that stays open, and every MOVE_ON_MS with another Sentinel.  So the worker leaves a
 * master that was replaced while it was cut off from its Sentinels: such a master does
 * not know it, and goes on taking writes.
 *
 * A Sentinel that was cut off itself names the master of before.  Each failover
 * has an epoch, which Sentinels tell, and an answer with an older epoch than one heard
 * before does not count.  Only where most answers are older the epoch is forgotten:
 * then the Sentinels were made anew.
 *
 * Failure: when a Sentinel fails, hangs or does not know the master, the round goes on to
 * the next one.  A round of watching that fails changes nothing; it is repeated
 * ever less often.  redis_handshake.c asks the server itself whether it is a master.
 *
 * SUBSCRIBE +switch-master would tell a little earlier, but of one Sentinel only,
 * and on a link that takes no other commands.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "base/log_text.h"
#include "settings/settings_redis.h"
#include "topology/topology_int.h"

/* Between rounds while there is a master; and how long the same Sentinel is asked. */
#define WATCH_MS		1000
#define WATCH_LAST_MS	(60 * 1000) /* after rounds that failed */
#define MOVE_ON_MS		(10 * 1000)

/* The longest name that DNS allows. */
#define MAX_HOST_BYTES	253

/* What the Sentinel that is asked has answered so far. */
typedef enum SentinelAnswer
{
	ANSWER_NONE,				/* not asked yet */
	ANSWER_DUE,
	ANSWER_GOOD,
	ANSWER_BAD,					/* see error */
} SentinelAnswer;

struct Sentinel
{
	const RedisTarget *target;
	SentinelState state;
	RedisTarget *master;		/* malloc'd with its host's name; the rest is target's */
	int64		epoch;			/* the newest that a Sentinel has told; -1: none */

	/* The Sentinel that is asked. */
	int			host;
	WaitedLink	waited;
	TimestampTz move_on_at;

	/* The round. */
	bool		asking;
	int			hosts_left;
	int			answers_behind; /* that were of an older epoch */
	TimestampTz ask_at;			/* the next, while watching */
	Backoff		backoff;		/* after rounds that failed while there was a master */

	SentinelAnswer answer;
	char		named_host[MAX_HOST_BYTES + 1];
	int			named_port;
	int64		named_epoch;	/* -1: not told */
	char		error[256];
};

static void
close_link(Sentinel *sentinel)
{
	RedisLink  *closing = link_set_remove(&sentinel->waited);

	if (closing != NULL)
		redis_close(closing);
}

Sentinel *
sentinel_make(const RedisTarget *target)
{
	Sentinel   *sentinel = MemoryContextAllocZero(TopMemoryContext, sizeof(Sentinel));

	Assert(target->scheme == REDIS_SENTINEL && target->nhosts > 0 && target->service != NULL);
	sentinel->target = target;
	sentinel->epoch = -1;
	sentinel->state = SENTINEL_IDLE;
	return sentinel;
}

void
sentinel_free(Sentinel *sentinel)
{
	close_link(sentinel);
	free(sentinel->master);
	pfree(sentinel);
}

void
sentinel_forget(Sentinel *sentinel)
{
	sentinel->asking = false;
	sentinel->state = SENTINEL_IDLE;
	/* Otherwise an answer that is still due would count for the next question. */
	if (sentinel->answer == ANSWER_DUE)
		close_link(sentinel);
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */

static void refuse_answer(Sentinel *sentinel, const char *format,...) pg_attribute_printf(2, 3);

static void
refuse_answer(Sentinel *sentinel, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(sentinel->error, sizeof(sentinel->error), format, args);
	va_end(args);
	sentinel->answer = ANSWER_BAD;
}

/* For messages. */
static const char *
asked_host(const Sentinel *sentinel)
{
	static char text[MAX_HOST_BYTES + 8];
	const RedisHost *host = &sentinel->target->hosts[sentinel->host];

	Assert(sentinel->host < sentinel->target->nhosts);
	snprintf(text, sizeof(text), "%s:%d", host->name, host->port);
	return text;
}

/* A decimal number and nothing else; -1 otherwise. */
static int64
number_of(const RedisReply *reply)
{
	size_t		len;
	const char *text = redis_reply_text(reply, &len);
	int64		number = 0;

	if (len == 0 || len > 18)
		return -1;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return -1;
		number = number * 10 + (text[i] - '0');
	}
	return number;
}

/* A name or an address, of either kind. */
static bool
take_host(Sentinel *sentinel, const RedisReply *reply)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%";
	size_t		len;
	const char *text = redis_reply_text(reply, &len);

	if (len == 0 || len > MAX_HOST_BYTES || strspn(text, allowed) != len)
		return false;
	strlcpy(sentinel->named_host, text, sizeof(sentinel->named_host));
	return true;
}

/* SENTINEL MASTER: names and values in turn.  An ACL may forbid it. */
static void
master_answered(void *arg, const RedisReply *reply)
{
	Sentinel   *sentinel = arg;

	sentinel->named_epoch = -1;
	if (reply == NULL)
		return;
	for (size_t i = 0; i + 1 < redis_reply_count(reply); i += 2)
	{
		const char *name = redis_reply_text(redis_reply_element(reply, i), NULL);

		if (strcmp(name, "config-epoch") == 0)
			sentinel->named_epoch = number_of(redis_reply_element(reply, i + 1));
	}
}

/* SENTINEL GET-MASTER-ADDR-BY-NAME: host and port. */
static void
address_answered(void *arg, const RedisReply *reply)
{
	Sentinel   *sentinel = arg;
	int64		port = -1;

	if (reply == NULL)
		return;					/* the link has failed */
	Assert(sentinel->answer == ANSWER_DUE);
	if (redis_reply_type(reply) == REDIS_NIL)
	{
		refuse_answer(sentinel, "Sentinel at %s does not know a master named \"%s\"",
					  asked_host(sentinel), sentinel->target->service);
		return;
	}
	if (redis_reply_count(reply) == 2)
		port = number_of(redis_reply_element(reply, 1));
	if (port < 1 || port > 65535 || !take_host(sentinel, redis_reply_element(reply, 0)))
	{
		refuse_answer(sentinel, "Sentinel at %s does not tell the master's address: %s",
					  asked_host(sentinel), log_text_cut(redis_reply_text(reply, NULL), 100));
		return;
	}
	sentinel->named_port = port;
	if (sentinel->named_epoch >= 0 && sentinel->named_epoch < sentinel->epoch)
	{
		sentinel->answers_behind++;
		refuse_answer(sentinel, "Sentinel at %s has not heard of the last failover yet",
					  asked_host(sentinel));
		return;
	}
	sentinel->answer = ANSWER_GOOD;
}

static void
send_question(Sentinel *sentinel, const char *subcommand, RedisAnswer answered)
{
	const char *argv[] = {"SENTINEL", subcommand, sentinel->target->service};

	redis_send_texts(sentinel->waited.link, lengthof(argv), argv, answered, sentinel);
}

/* ------------------------------------------------------------------------
 * Rounds
 * ------------------------------------------------------------------------
 */

static void
begin_round(Sentinel *sentinel)
{
	Assert(!sentinel->asking);
	sentinel->asking = true;
	sentinel->answer = ANSWER_NONE;
	sentinel->answers_behind = 0;
	sentinel->hosts_left = sentinel->target->nhosts;
}

void
sentinel_ask(Sentinel *sentinel)
{
	Assert(sentinel->state == SENTINEL_IDLE || sentinel->state == SENTINEL_FAILED);
	sentinel->state = SENTINEL_ASKING;
	begin_round(sentinel);
}

static void
fail_round(Sentinel *sentinel)
{
	Assert(sentinel->asking && sentinel->hosts_left <= 0);
	sentinel->asking = false;
	if (sentinel->answers_behind > sentinel->target->nhosts / 2)
		sentinel->epoch = -1;
	if (sentinel->state == SENTINEL_ASKING)
		sentinel->state = SENTINEL_FAILED;
	else
	{
		backoff_fail(&sentinel->backoff, clock_now(), 2 * WATCH_MS, WATCH_LAST_MS);
		sentinel->ask_at = sentinel->backoff.until;
	}
}

/* This Sentinel has failed, or was asked for long enough. */
static void
try_next(Sentinel *sentinel)
{
	close_link(sentinel);
	sentinel->host = (sentinel->host + 1) % sentinel->target->nhosts;
	if (sentinel->asking && --sentinel->hosts_left <= 0)
		fail_round(sentinel);
}

/* If memory runs out the master of before stays, or the round fails, until the next round. */
static void
note_master(Sentinel *sentinel, bool *moved)
{
	RedisTarget *master = sentinel->master;
	RedisTarget *named;

	Assert(sentinel->answer == ANSWER_GOOD);
	if (master != NULL && strcmp(master->hosts[0].name, sentinel->named_host) == 0 &&
		master->hosts[0].port == sentinel->named_port)
		return;
	named = malloc(sizeof(RedisTarget) + sizeof(sentinel->named_host));
	if (named == NULL)
		return;
	*named = *sentinel->target;
	named->scheme = REDIS_PLAIN;
	named->service = NULL;
	named->nhosts = 1;
	named->hosts[0].name = strcpy((char *) (named + 1), sentinel->named_host);
	named->hosts[0].port = sentinel->named_port;
	free(master);
	sentinel->master = named;
	*moved = sentinel->state == SENTINEL_KNOWN;
}

static void
end_round(Sentinel *sentinel, TimestampTz now, bool *moved)
{
	Assert(sentinel->asking && sentinel->named_host[0] != '\0' && sentinel->named_port > 0);
	sentinel->asking = false;
	if (sentinel->named_epoch >= 0)
		sentinel->epoch = sentinel->named_epoch;
	note_master(sentinel, moved);
	sentinel->state = sentinel->master ? SENTINEL_KNOWN : SENTINEL_FAILED;
	backoff_reset(&sentinel->backoff);
	sentinel->ask_at = TimestampTzPlusMilliseconds(now, WATCH_MS);
	if (now >= sentinel->move_on_at)
		try_next(sentinel);
}

/* Open a link to the Sentinel whose turn it is. */
static void
open_link(Sentinel *sentinel, TimestampTz now)
{
	RedisOptions options = settings_redis_options();

	Assert(sentinel->waited.link == NULL);
	link_set_add(&sentinel->waited, redis_open(sentinel->target, sentinel->host, &options));
	sentinel->answer = ANSWER_NONE;
	sentinel->move_on_at = TimestampTzPlusMilliseconds(now, MOVE_ON_MS);
	if (sentinel->waited.link == NULL)
		strlcpy(sentinel->error, "out of memory", sizeof(sentinel->error));
}

static void
turn_link(Sentinel *sentinel)
{
	RedisLinkState link_state = link_set_turn(&sentinel->waited);

	if (link_state == REDIS_FAILED)
		refuse_answer(sentinel, "Sentinel cannot be asked: %s",
					  log_text_cut(redis_error(sentinel->waited.link), 200));
	else if (link_state == REDIS_READY && sentinel->asking && sentinel->answer == ANSWER_NONE)
	{
		sentinel->answer = ANSWER_DUE;
		send_question(sentinel, "MASTER", master_answered);
		send_question(sentinel, "GET-MASTER-ADDR-BY-NAME", address_answered);
		redis_flush(sentinel->waited.link);
	}
}

SentinelState
sentinel_turn(Sentinel *sentinel, bool *moved)
{
	TimestampTz now = clock_now();

	*moved = false;
	if (sentinel->state == SENTINEL_KNOWN && !sentinel->asking && now >= sentinel->ask_at)
		begin_round(sentinel);

	/* Repeated as long as a Sentinel fails at once. */
	while (sentinel->asking || sentinel->waited.link != NULL)
	{
		if (sentinel->waited.link == NULL)
			open_link(sentinel, now);
		if (sentinel->waited.link != NULL)
			turn_link(sentinel);
		if (sentinel->asking && sentinel->answer == ANSWER_GOOD)
			end_round(sentinel, now, moved);
		else if (sentinel->waited.link == NULL || sentinel->answer == ANSWER_BAD)
			try_next(sentinel);
		else
			break;
	}
	return sentinel->state;
}

/* ------------------------------------------------------------------------
 * Asking this file
 * ------------------------------------------------------------------------
 */
SentinelState
sentinel_state(const Sentinel *sentinel)
{
	return sentinel->state;
}

const RedisTarget *
sentinel_master(const Sentinel *sentinel)
{
	Assert(sentinel->state != SENTINEL_KNOWN || sentinel->master != NULL);
	return sentinel->state == SENTINEL_KNOWN ? sentinel->master : NULL;
}

const char *
sentinel_error(const Sentinel *sentinel)
{
	return sentinel->error;
}

TimestampTz
sentinel_deadline(const Sentinel *sentinel)
{
	RedisLink  *link = sentinel->waited.link;
	TimestampTz deadline = link ? redis_deadline(link) : DT_NOEND;

	if (sentinel->state == SENTINEL_KNOWN && !sentinel->asking)
		deadline = Min(deadline, sentinel->ask_at);
	return deadline;
}
