/*
 * fence.c
 *	  The worker's side of fenced fills.
 *
 * What makes a fill safe is decided in Redis, by the functions of
 * lua/uncache.lua; read that file first.  The worker loads them and keeps them
 * informed: it tells which incarnation of which server delivers, sets epochs,
 * and makes beats.
 *
 *		UNKNOWN --status--> NONE			no functions, no fence: plain UNLINK
 *			  |			\-> IMPOSSIBLE		asked for, but Redis is older than 7
 *			  |			\-> LOADING --> UNKNOWN
 *			  |			\-> NO_EPOCH		deliver all again, then set one
 *			  |			\-> ON
 *
 * Where the functions are there, keys are delivered by them whatever the own
 * fence_ttl is: another database may use the same Redis with its fence on, and a
 * bare UNLINK would go unnoticed by it.
 *
 * A beat is the one transaction that stays open while Redis is asked: its commit
 * must come after the announcement.  It has an xid and no snapshot, it ends with
 * the answer or with the connection, and meanwhile the worker begins no other.
 *
 * Whatever fails leaves fills refused, never let through: a node without an epoch
 * stores nothing.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "utils/timestamp.h"

#include "connection.h"
#include "fence.h"
#include "settings.h"
#include "uncache_lua.h"
#include "trouble.h"

/* Of lua/uncache.lua; a node with older functions gets these. */
#define LIBRARY_VERSION		1

#define FIRST_VERSION_WITH_FUNCTIONS	70000

/* At most one beat in this time. */
#define BEAT_MS				1000

/* For records of keys while the own fence is off. */
#define DEFAULT_TTL			"300000"

static DatabaseSlot *slot;
static RedisLink *fence_link = NULL;
static bool wants_resending = false;
static bool may_have_forgotten = false; /* the node of this connection */

/* With the own fence off: another worker may load the functions at any time. */
static bool looks_for_functions = false;

static enum
{
	BEAT_NONE,
	BEAT_ANNOUNCED,				/* transaction open, no answer yet */
	BEAT_ANSWERED,				/* to be committed and confirmed */
	BEAT_GIVEN_UP,				/* to be committed, and forgotten */
}			beat = BEAT_NONE;
static uint64 beat_xid;
static TimestampTz next_beat_at = 0;
static bool beat_wanted = false;

static char server_id[24];
static char timeline[12];
static char ttl_text[12];

static void send_status(void);
static void status_answered(void *arg, const RedisReply *reply);

static FenceState
get_state(void)
{
	return (FenceState) pg_atomic_read_u32(&slot->fence.state);
}

static void
set_state(FenceState state)
{
	pg_atomic_write_u32(&slot->fence.state, state);
}

void
fence_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	set_state(FENCE_UNKNOWN);
	snprintf(server_id, sizeof(server_id), UINT64_FORMAT, GetSystemIdentifier());
	snprintf(timeline, sizeof(timeline), "%u", GetWALInsertionTimeLine());
}

bool
fence_is_ready(void)
{
	return get_state() >= FENCE_NONE;
}

bool
fence_is_used(void)
{
	return get_state() >= FENCE_NO_EPOCH;
}

const char *
fence_ttl_text(void)
{
	if (setting_fence_ttl == 0)
		return DEFAULT_TTL;
	snprintf(ttl_text, sizeof(ttl_text), "%d", setting_fence_ttl);
	return ttl_text;
}

bool
fence_wants_resending(void)
{
	bool		wants = wants_resending;

	wants_resending = false;
	return wants;
}

bool
fence_waits_for_catching_up(void)
{
	return get_state() == FENCE_NO_EPOCH && setting_fence_ttl > 0;
}

/* Send a command of texts. */
static bool
send_texts(int argc, const char **argv, RedisAnswer answer, void *arg)
{
	size_t		lens[8];

	Assert(argc <= lengthof(lens));
	for (int i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	return redis_send(fence_link, argc, argv, lens, answer, arg);
}

/*
 * --------------------------------------------------------------------------
 * Epochs
 * --------------------------------------------------------------------------
 */

static void
epoch_answered(void *arg, const RedisReply *reply)
{
	FenceDone	done = (FenceDone) arg;
	bool		ok = reply != NULL && redis_reply_type(reply) != REDIS_ERROR;

	if (ok && get_state() >= FENCE_NO_EPOCH && setting_fence_ttl > 0)
		set_state(FENCE_ON);
	if (done)
		done(ok, reply);
	else if (reply != NULL && !ok)
		trouble_note(reply);
}

/* An epoch that never was; or, with the own fence off, none. */
bool
fence_new_epoch(RedisLink *link, FenceDone done)
{
	char		random_text[20] = "";
	uint64		random;
	const char *argv[] = {"FCALL", "uncache_epoch", "0", random_text, fence_ttl_text()};

	fence_link = link;
	if (setting_fence_ttl > 0)
	{
		if (!pg_strong_random(&random, sizeof(random)))
			return false;
		snprintf(random_text, sizeof(random_text), "%016" PRIx64, random);
	}
	return send_texts(lengthof(argv), argv, epoch_answered, (void *) done);
}

/*
 * All that the outbox holds has been delivered to the node by now, so that whatever
 * it had forgotten is made good.
 */
void
fence_caught_up(RedisLink *link)
{
	may_have_forgotten = false;
	set_state(FENCE_SETTING);
	if (!fence_new_epoch(link, NULL))
		set_state(FENCE_NO_EPOCH);
}

/*
 * --------------------------------------------------------------------------
 * What the node knows
 * --------------------------------------------------------------------------
 */

static void
library_answered(void *arg, const RedisReply *reply)
{
	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		connection_note_error("Redis does not load the functions of pg_uncache: %s",
							  redis_reply_text(reply, NULL));
		set_state(FENCE_IMPOSSIBLE);
		return;
	}
	set_state(FENCE_UNKNOWN);
	send_status();
}

static void
load_library(void)
{
	const char *argv[] = {"FUNCTION", "LOAD", "REPLACE", uncache_lua};

	set_state(FENCE_LOADING);
	send_texts(lengthof(argv), argv, library_answered, NULL);
}

/* The node has no functions, or they can't be called. */
static void
no_functions(const RedisReply *reply)
{
	const char *text = redis_reply_text(reply, NULL);
	const char *why;

	if (strstr(text, "unction not found") != NULL && setting_fence_ttl > 0)
		load_library();
	else if (setting_fence_ttl > 0 && !trouble_is(reply, &why))
	{
		connection_note_error("Fenced fills are not possible: %s", text);
		set_state(FENCE_IMPOSSIBLE);
	}
	else if (redis_reply_is_error(reply, "NOPERM") || redis_reply_is_error(reply, "ERR"))
	{
		set_state(setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		looks_for_functions = redis_reply_is_error(reply, "ERR");
	}
	else
		trouble_note(reply);
}

static void
voiding_answered(void *arg, const RedisReply *reply)
{
	if (reply != NULL && redis_reply_type(reply) == REDIS_ERROR)
		trouble_note(reply);
}

/*
 * The node remembers an epoch, but may have missed deliveries since: a master that
 * became a replica and was promoted again keeps its memory.  So its tokens are
 * void, and it gets an epoch when it was sent all that it can have missed.
 */
static void
void_tokens(void)
{
	const char *argv[] = {"FCALL", "uncache_epoch", "0", "", fence_ttl_text()};

	may_have_forgotten = false;
	set_state(FENCE_NO_EPOCH);
	send_texts(lengthof(argv), argv, voiding_answered, NULL);
}

static void
note_status(const RedisReply *reply)
{
	FenceState	state = get_state();
	bool		has_epoch = redis_reply_type(redis_reply_element(reply, 1)) == REDIS_STRING;

	beat_wanted = redis_reply_integer(redis_reply_element(reply, 2)) != 0;
	pg_atomic_write_u64(&slot->fence.stored, redis_reply_integer(redis_reply_element(reply, 3)));
	pg_atomic_write_u64(&slot->fence.refused, redis_reply_integer(redis_reply_element(reply, 4)));
	pg_atomic_write_u64(&slot->fence.beats, redis_reply_integer(redis_reply_element(reply, 5)));

	if (redis_reply_integer(redis_reply_element(reply, 0)) < LIBRARY_VERSION &&
		setting_fence_ttl > 0)
		load_library();
	else if (has_epoch && may_have_forgotten && setting_fence_ttl > 0)
		void_tokens();
	else if (has_epoch)
	{
		if (state == FENCE_UNKNOWN || state == FENCE_NO_EPOCH)
			set_state(FENCE_ON);
	}
	else if (state == FENCE_UNKNOWN || state == FENCE_ON)
	{
		set_state(FENCE_NO_EPOCH);
		wants_resending = setting_fence_ttl > 0;
	}
}

static void
status_answered(void *arg, const RedisReply *reply)
{
	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) >= 6)
		note_status(reply);
	else
		no_functions(reply);
}

static const char *status_argv[] = {
	"FCALL", "uncache_status", "0", server_id, timeline, NULL
};

static void
send_status(void)
{
	status_argv[5] = Shared_state->incarnation;
	send_texts(lengthof(status_argv), status_argv, status_answered, NULL);
}

/* The ping while there are none: an FCALL would be counted as an error by Redis. */
static const char *list_argv[] = {"FUNCTION", "LIST", "LIBRARYNAME", "uncache"};

static void
list_answered(void *arg, const RedisReply *reply)
{
	const char *why;

	if (reply == NULL || get_state() != FENCE_NONE)
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY)
	{
		if (redis_reply_count(reply) > 0)
			fence_begin(fence_link, may_have_forgotten);
	}
	else if (redis_reply_is_error(reply, "NOPERM") || !trouble_is(reply, &why))
		looks_for_functions = false;
	else
		trouble_note(reply);
}

void
fence_begin(RedisLink *link, bool new_server)
{
	int			version = redis_version(link);

	fence_link = link;
	may_have_forgotten = new_server;
	looks_for_functions = false;
	status_argv[5] = Shared_state->incarnation;
	connection_set_ping(NULL, 0, NULL);
	if (version != 0 && version < FIRST_VERSION_WITH_FUNCTIONS)
	{
		set_state(setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		if (setting_fence_ttl > 0)
			connection_note_error("Fenced fills are not possible: Redis is older than version 7%s", "");
		return;
	}
	set_state(FENCE_UNKNOWN);
	send_status();
}

/*
 * On: load functions and all that.  Off: tokens are void, from now on no fill is
 * let through; keys are still delivered by the functions.  Another time: it goes
 * to the node with a new epoch.
 */
void
fence_change(RedisLink *link)
{
	if (!fence_is_used())
		fence_begin(link, false);
	else if (setting_fence_ttl > 0 && get_state() == FENCE_NO_EPOCH)
		fence_begin(link, false);
	else
	{
		set_state(setting_fence_ttl > 0 ? FENCE_SETTING : FENCE_NO_EPOCH);
		fence_new_epoch(link, NULL);
	}
}

void
fence_forget(void)
{
	fence_link = NULL;
	set_state(FENCE_UNKNOWN);
	wants_resending = false;
	beat_wanted = false;
	if (beat != BEAT_NONE)
		beat = BEAT_GIVEN_UP;
}

/*
 * --------------------------------------------------------------------------
 * Beats
 * --------------------------------------------------------------------------
 */

bool
fence_holds_transaction(void)
{
	return beat != BEAT_NONE;
}

static void
announcement_answered(void *arg, const RedisReply *reply)
{
	bool		ok = reply != NULL && redis_reply_integer(reply) == 1;

	if (beat == BEAT_ANNOUNCED)
		beat = ok ? BEAT_ANSWERED : BEAT_GIVEN_UP;
}

static void
confirmation_answered(void *arg, const RedisReply *reply)
{
	/* A beat that is not confirmed is of no use, and does no harm. */
}

static bool
send_beat(const char *step, RedisAnswer answer)
{
	char		xid[24];
	const char *argv[] = {
		"FCALL", "uncache_beat", "0", step, Shared_state->incarnation, xid
	};

	snprintf(xid, sizeof(xid), UINT64_FORMAT, beat_xid);
	return send_texts(lengthof(argv), argv, answer, NULL);
}

static void
begin_beat(TimestampTz now)
{
	beat_wanted = false;
	next_beat_at = TimestampTzPlusMilliseconds(now, BEAT_MS);
	StartTransactionCommand();
	beat_xid = U64FromFullTransactionId(GetTopFullTransactionId());
	beat = send_beat("announce", announcement_answered) ? BEAT_ANNOUNCED : BEAT_GIVEN_UP;
}

static void
end_beat(void)
{
	bool		answered = beat == BEAT_ANSWERED;

	CommitTransactionCommand();
	beat = BEAT_NONE;
	if (answered)
		send_beat("confirm", confirmation_answered);
}

TimestampTz
fence_turn(RedisLink *link, TimestampTz now)
{
	if (beat == BEAT_ANSWERED || beat == BEAT_GIVEN_UP)
		end_beat();
	if (link == NULL)
		return DT_NOEND;

	fence_link = link;
	if (fence_is_used())
		connection_set_ping(status_argv, lengthof(status_argv), status_answered);
	else if (get_state() == FENCE_NONE && looks_for_functions)
		connection_set_ping(list_argv, lengthof(list_argv), list_answered);
	else
		connection_set_ping(NULL, 0, NULL);
	if (get_state() == FENCE_ON && beat == BEAT_NONE && beat_wanted && setting_fence_ttl > 0)
	{
		if (now < next_beat_at)
			return next_beat_at;
		begin_beat(now);
	}
	return DT_NOEND;
}
