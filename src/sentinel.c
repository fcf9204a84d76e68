/*
 * sentinel.c
 *	  Asks Redis Sentinel which server is the master, and whether it still is.
 *
 * Model: a round asks the Sentinels of the target one after the other, beginning
 * with the one that answered last, until one of them names the master.  While
 * there is a connection to that master the same question is asked again every
 * WATCH_MS, on a link that stays open, and every MOVE_ON_MS of another Sentinel.
 * So a master that was replaced is left even where nobody could tell it so: cut
 * off from its Sentinels, it goes on taking writes.
 *
 * A Sentinel that was cut off itself names the master of before.  Each failover
 * has an epoch, which Sentinels tell, and an answer of an older one than was
 * heard before does not count.  Only where most answers are older it is forgotten:
 * the Sentinels were made anew.
 *
 * Failure: that a Sentinel fails, hangs or knows nothing makes the round go on to
 * the next one.  A round of watching that fails changes nothing; it is repeated
 * ever less often.  Whether a master is one is asked of itself (redishello.c).
 *
 * Limits: a host name is resolved each time its Sentinel is connected to, which
 * blocks for as long as the resolver does.
 *
 * SUBSCRIBE +switch-master would tell a little earlier, but of one Sentinel only,
 * on a link that can't be asked anything.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "linksettings.h"
#include "sentinel.h"

#define WATCH_MS		1000
#define WATCH_LAST_MS	(60 * 1000) /* after rounds that failed */
#define MOVE_ON_MS		(10 * 1000)

#define MAX_HOST_BYTES	253

static const RedisTarget *target = NULL;
static SentinelState state = SENTINEL_UNUSED;
static RedisTarget *master = NULL;	/* malloc'd with its host's name; the rest is target's */
static int64 epoch = -1;		/* newest that was heard of; -1: none */

/* The Sentinel that is asked. */
static int	host = 0;
static RedisLink *link = NULL;
static uint64 generation = 0;
static TimestampTz move_on_at;

/* The round. */
static bool asking = false;
static int	hosts_left;
static int	answers_behind;		/* that were of an older epoch */
static TimestampTz ask_at;		/* the next, while watching */
static int	watch_ms = WATCH_MS;

/* What the Sentinel has said so far. */
static enum
{
	ANSWER_NONE,				/* not asked yet */
	ANSWER_DUE,
	ANSWER_GOOD,
	ANSWER_BAD,					/* see error */
}			answer;
static char named_host[MAX_HOST_BYTES + 1];
static int	named_port;
static int64 named_epoch;		/* -1: not told */
static char error[256];

static void
close_link(void)
{
	RedisLink  *closing = link;

	if (closing == NULL)
		return;
	link = NULL;
	generation++;
	redis_close(closing);
}

void
sentinel_use(const RedisTarget *new_target)
{
	asking = false;
	close_link();
	free(master);
	master = NULL;
	epoch = -1;
	host = 0;
	target = new_target != NULL && new_target->scheme == REDIS_SENTINEL ? new_target : NULL;
	state = target ? SENTINEL_IDLE : SENTINEL_UNUSED;
}

void
sentinel_forget(void)
{
	if (state == SENTINEL_UNUSED)
		return;
	asking = false;
	state = SENTINEL_IDLE;
	/* An answer that is still due would be taken for one to the next question. */
	if (answer == ANSWER_DUE)
		close_link();
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */

static void
refuse_answer(const char *format,...) pg_attribute_printf(1, 2);

static void
refuse_answer(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(error, sizeof(error), format, args);
	va_end(args);
	answer = ANSWER_BAD;
}

/* For messages. */
static const char *
asked_host(void)
{
	static char text[MAX_HOST_BYTES + 8];

	snprintf(text, sizeof(text), "%s:%d", target->hosts[host].name, target->hosts[host].port);
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
take_host(const RedisReply *reply)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%";
	size_t		len;
	const char *text = redis_reply_text(reply, &len);

	if (len == 0 || len > MAX_HOST_BYTES || strspn(text, allowed) != len)
		return false;
	strlcpy(named_host, text, sizeof(named_host));
	return true;
}

/* SENTINEL MASTER: names and values in turn.  May be forbidden. */
static void
master_answered(void *arg, const RedisReply *reply)
{
	named_epoch = -1;
	if (reply == NULL)
		return;
	for (size_t i = 0; i + 1 < redis_reply_count(reply); i += 2)
	{
		const char *name = redis_reply_text(redis_reply_element(reply, i), NULL);

		if (strcmp(name, "config-epoch") == 0)
			named_epoch = number_of(redis_reply_element(reply, i + 1));
	}
}

/* SENTINEL GET-MASTER-ADDR-BY-NAME: host and port. */
static void
address_answered(void *arg, const RedisReply *reply)
{
	int64		port = -1;

	if (reply == NULL)
		return;					/* the link has failed */
	if (redis_reply_type(reply) == REDIS_NIL)
	{
		refuse_answer("Sentinel at %s does not know a master named \"%s\"",
					  asked_host(), target->service);
		return;
	}
	if (redis_reply_count(reply) == 2)
		port = number_of(redis_reply_element(reply, 1));
	if (port < 1 || port > 65535 || !take_host(redis_reply_element(reply, 0)))
	{
		refuse_answer("Sentinel at %s does not tell the master's address: %.100s",
					  asked_host(), redis_reply_text(reply, NULL));
		return;
	}
	named_port = port;
	if (named_epoch >= 0 && named_epoch < epoch)
	{
		answers_behind++;
		refuse_answer("Sentinel at %s has not heard of the last failover yet", asked_host());
		return;
	}
	answer = ANSWER_GOOD;
}

static void
send_question(const char *subcommand, RedisAnswer answered)
{
	const char *argv[] = {"SENTINEL", subcommand, target->service};
	const size_t lens[] = {8, strlen(subcommand), strlen(target->service)};

	redis_send(link, 3, argv, lens, answered, NULL);
}

/* ------------------------------------------------------------------------
 * Rounds
 * ------------------------------------------------------------------------
 */

static void
begin_round(void)
{
	asking = true;
	answer = ANSWER_NONE;
	answers_behind = 0;
	hosts_left = target->nhosts;
}

void
sentinel_ask(void)
{
	Assert(state == SENTINEL_IDLE || state == SENTINEL_FAILED);
	state = SENTINEL_ASKING;
	begin_round();
}

static void
fail_round(void)
{
	asking = false;
	if (answers_behind > target->nhosts / 2)
		epoch = -1;
	if (state == SENTINEL_ASKING)
		state = SENTINEL_FAILED;
	else
	{
		watch_ms = Min(watch_ms * 2, WATCH_LAST_MS);
		ask_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), watch_ms);
	}
}

/* This Sentinel is of no use. */
static void
try_next(void)
{
	close_link();
	host = (host + 1) % target->nhosts;
	if (asking && --hosts_left <= 0)
		fail_round();
}

/* Out of memory the round fails, and comes again. */
static void
note_master(bool *moved)
{
	RedisTarget *named;

	if (master != NULL && strcmp(master->hosts[0].name, named_host) == 0 &&
		master->hosts[0].port == named_port)
		return;
	named = malloc(sizeof(RedisTarget) + sizeof(named_host));
	if (named == NULL)
		return;
	*named = *target;
	named->scheme = REDIS_PLAIN;
	named->service = NULL;
	named->nhosts = 1;
	named->hosts[0].name = strcpy((char *) (named + 1), named_host);
	named->hosts[0].port = named_port;
	free(master);
	master = named;
	*moved = state == SENTINEL_KNOWN;
}

static void
end_round(TimestampTz now, bool *moved)
{
	asking = false;
	if (named_epoch >= 0)
		epoch = named_epoch;
	note_master(moved);
	state = master ? SENTINEL_KNOWN : SENTINEL_FAILED;
	watch_ms = WATCH_MS;
	ask_at = TimestampTzPlusMilliseconds(now, watch_ms);
	if (now >= move_on_at)
		try_next();
}

/* Have a link to the Sentinel whose turn it is. */
static void
open_link(TimestampTz now)
{
	RedisOptions options = linksettings_options();

	link = redis_open(target, host, &options);
	generation++;
	answer = ANSWER_NONE;
	move_on_at = TimestampTzPlusMilliseconds(now, MOVE_ON_MS);
	if (link == NULL)
		strlcpy(error, "out of memory", sizeof(error));
}

static void
turn_link(uint32 events)
{
	RedisLinkState link_state = redis_turn(link, events);

	if (link_state == REDIS_FAILED)
		refuse_answer("Sentinel can't be asked: %.200s", redis_error(link));
	else if (link_state == REDIS_READY && asking && answer == ANSWER_NONE)
	{
		answer = ANSWER_DUE;
		send_question("MASTER", master_answered);
		send_question("GET-MASTER-ADDR-BY-NAME", address_answered);
		redis_flush(link);
	}
}

SentinelState
sentinel_turn(uint32 events, bool *moved)
{
	TimestampTz now = GetCurrentTimestamp();

	*moved = false;
	if (state == SENTINEL_KNOWN && !asking && now >= ask_at)
		begin_round();

	/* More than once where one fails at once. */
	while (asking || link != NULL)
	{
		if (link == NULL)
			open_link(now);
		if (link != NULL)
			turn_link(events);
		events = 0;
		if (asking && answer == ANSWER_GOOD)
			end_round(now, moved);
		else if (link == NULL || answer == ANSWER_BAD)
			try_next();
		else
			break;
	}
	return state;
}

/* ------------------------------------------------------------------------
 * Asking this file
 * ------------------------------------------------------------------------
 */
SentinelState
sentinel_state(void)
{
	return state;
}

const RedisTarget *
sentinel_master(void)
{
	return state == SENTINEL_KNOWN ? master : NULL;
}

const char *
sentinel_error(void)
{
	return error;
}

pgsocket
sentinel_socket(void)
{
	return link ? redis_socket(link) : PGINVALID_SOCKET;
}

uint32
sentinel_wanted_events(void)
{
	return link ? redis_wanted_events(link) : 0;
}

TimestampTz
sentinel_deadline(void)
{
	TimestampTz deadline = link ? redis_deadline(link) : DT_NOEND;

	if (state == SENTINEL_KNOWN && !asking)
		deadline = Min(deadline, ask_at);
	return deadline;
}

uint64
sentinel_generation(void)
{
	return generation;
}
