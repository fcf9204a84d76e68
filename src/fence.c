/*
 * fence.c
 *	  The worker's side of fenced fills: what each node knows of them.
 *
 * What makes a fill safe is decided in Redis, by the functions of
 * lua/uncache.lua; read that file first.  The worker loads them into every node and
 * keeps them informed: it tells which incarnation of which server delivers, sets
 * epochs, and makes beats (beat.c).  Of each node:
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
 * uncache.stat shows the state of the node that is least far, and sums.
 *
 * Whatever fails leaves fills refused, never let through: a node without an epoch
 * stores nothing.
 */
#include "postgres.h"

#include "access/xlog.h"

#include "fence.h"
#include "settings.h"
#include "trouble.h"
#include "uncache_lua.h"

/* Of lua/uncache.lua; a node with older functions gets these. */
#define LIBRARY_VERSION		1

#define FIRST_VERSION_WITH_FUNCTIONS	70000

/*
 * A worker without the fence deletes with UNLINK, unnoticed by the functions, until
 * it has found them: it looks at every ping, once in 1.2 s.  So the first epoch that
 * a node is given waits for twice as long.
 */
#define FIRST_EPOCH_MS		2400

/* For records of keys while the own fence is off. */
#define DEFAULT_TTL			"300000"

/* Of a node, in RedisNode.fence. */
typedef struct Fence
{
	FenceState	state;
	bool		may_have_forgotten; /* what it was sent before this link */
	bool		wants_resending;	/* comeback.c has not been told yet */
	TimestampTz epoch_at;		/* in FENCE_NO_EPOCH: none before this time */

	/* With the own fence off: another worker may load the functions at any time. */
	bool		looks_for_functions;

	/* Since its functions were loaded, from its last status. */
	uint64		stored;
	uint64		refused;
	uint64		beats;
	bool		wants_beat;
} Fence;

static DatabaseSlot *slot;

static char server_id[24];
static char timeline[12];
static char ttl_text[12];

static void begin(RedisNode *node);
static void send_status(RedisNode *node);
static void status_answered(void *arg, const RedisReply *reply);

static Fence *
fence_of(RedisNode *node)
{
	if (node->fence == NULL)
		node->fence = MemoryContextAllocZero(node->context, sizeof(Fence));
	return node->fence;
}

static FenceState
state_of(const RedisNode *node)
{
	return node->fence ? node->fence->state : FENCE_UNKNOWN;
}

/* For uncache.stat, and for who wants to commit with consistency = strict. */
static void
publish(void)
{
	FenceState	least = FENCE_ON;
	bool		any = false;
	bool		any_on = false;
	uint64		stored = 0;
	uint64		refused = 0;
	uint64		beats = 0;

	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link == NULL || node->fence == NULL)
			continue;
		any = true;
		any_on |= node->fence->state == FENCE_ON;
		least = Min(least, node->fence->state);
		stored += node->fence->stored;
		refused += node->fence->refused;
		beats = Max(beats, node->fence->beats);
	}
	pg_atomic_write_u32(&slot->fence.state, any ? least : FENCE_UNKNOWN);
	pg_atomic_write_u32(&slot->fence.any_on, any_on);
	pg_atomic_write_u64(&slot->fence.stored, stored);
	pg_atomic_write_u64(&slot->fence.refused, refused);
	pg_atomic_write_u64(&slot->fence.beats, beats);
}

static void
set_state(RedisNode *node, FenceState state)
{
	fence_of(node)->state = state;
	node->open = node->link != NULL && state >= FENCE_NONE;
	publish();
}

void
fence_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	publish();
	snprintf(server_id, sizeof(server_id), UINT64_FORMAT, GetSystemIdentifier());
	snprintf(timeline, sizeof(timeline), "%u", GetWALInsertionTimeLine());
}

bool
fence_is_used(const RedisNode *node)
{
	return state_of(node) >= FENCE_NO_EPOCH;
}

bool
fence_is_on(const RedisNode *node)
{
	return state_of(node) == FENCE_ON;
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
fence_wants_resending(RedisNode *node)
{
	bool		wants = node->fence != NULL && node->fence->wants_resending;

	if (wants)
		node->fence->wants_resending = false;
	return wants;
}

static bool
waits_for_catching_up(const RedisNode *node)
{
	return node->link != NULL && state_of(node) == FENCE_NO_EPOCH && setting_fence_ttl > 0 &&
		GetCurrentTimestamp() >= node->fence->epoch_at;
}

bool
fence_waits_for_catching_up(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (waits_for_catching_up(node_at(i)))
			return true;
	}
	return false;
}

bool
fence_wants_beat(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->open && fence_is_on(node) && node->fence->wants_beat)
			return true;
	}
	return false;
}

void
fence_beat_begun(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->fence)
			node_at(i)->fence->wants_beat = false;
	}
}

/* Send a command of texts. */
static bool
send_texts(RedisNode *node, int argc, const char **argv, RedisAnswer answer, void *arg)
{
	size_t		lens[8];

	Assert(argc <= lengthof(lens));
	for (int i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	return redis_send(node->link, argc, argv, lens, answer, arg);
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
	RedisNode  *node = node_answering();
	bool		ok = reply != NULL && redis_reply_type(reply) != REDIS_ERROR;

	if (ok && state_of(node) > FENCE_NO_EPOCH && setting_fence_ttl > 0)
		set_state(node, FENCE_ON);
	if (done)
		done(ok, reply);
	else if (reply != NULL && !ok)
		node_note_trouble(node, reply);
}

/*
 * An epoch that never was.  None with the own fence off, nor as long as the node has
 * none because it has to wait for it: there are no tokens to be voided then.
 */
bool
fence_new_epoch(RedisNode *node, FenceDone done)
{
	char		random_text[20] = "";
	uint64		random;
	const char *argv[] = {"FCALL", "uncache_epoch", "0", random_text, fence_ttl_text()};

	if (setting_fence_ttl > 0 && state_of(node) != FENCE_NO_EPOCH)
	{
		if (!pg_strong_random(&random, sizeof(random)))
			return false;
		snprintf(random_text, sizeof(random_text), "%016" PRIx64, random);
	}
	return send_texts(node, lengthof(argv), argv, epoch_answered, (void *) done);
}

/*
 * All that the outbox holds has been delivered to the nodes by now, so that whatever
 * one had forgotten is made good.
 */
void
fence_caught_up(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (!waits_for_catching_up(node))
			continue;
		node->fence->may_have_forgotten = false;
		set_state(node, FENCE_SETTING);
		if (!fence_new_epoch(node, NULL))
			set_state(node, FENCE_NO_EPOCH);
	}
}

/*
 * --------------------------------------------------------------------------
 * What the node knows
 * --------------------------------------------------------------------------
 */

static void
library_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		node_note_error(node, "Redis does not load the functions of pg_uncache: %s",
							  trouble_text(reply));
		set_state(node, FENCE_IMPOSSIBLE);
		return;
	}
	set_state(node, FENCE_UNKNOWN);
	send_status(node);
}

static void
load_library(RedisNode *node)
{
	const char *argv[] = {"FUNCTION", "LOAD", "REPLACE", uncache_lua};

	set_state(node, FENCE_LOADING);
	send_texts(node, lengthof(argv), argv, library_answered, NULL);
}

/* The node has no functions, or they can't be called. */
static void
no_functions(RedisNode *node, const RedisReply *reply)
{
	const char *text = redis_reply_text(reply, NULL);
	const char *why;

	if (strstr(text, "unction not found") != NULL && setting_fence_ttl > 0)
		load_library(node);
	else if (setting_fence_ttl > 0 && !trouble_is(reply, &why))
	{
		node_note_error(node, "fenced fills are not possible: %s", trouble_text(reply));
		set_state(node, FENCE_IMPOSSIBLE);
	}
	else if (redis_reply_is_error(reply, "NOPERM") || redis_reply_is_error(reply, "ERR"))
	{
		if (setting_fence_ttl > 0)
			node_note_error(node, "fenced fills are not possible: %s", trouble_text(reply));
		set_state(node, setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		node->fence->looks_for_functions = redis_reply_is_error(reply, "ERR");
	}
	else
		node_note_trouble(node, reply);
}

static void
voiding_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply != NULL && redis_reply_type(reply) == REDIS_ERROR)
		node_note_trouble(node, reply);
}

/*
 * The node remembers an epoch, but may have missed deliveries since: a master that
 * became a replica and was promoted again keeps its memory.  So its tokens are
 * void, and it gets an epoch when it was sent all that it can have missed.
 */
static void
void_tokens(RedisNode *node)
{
	const char *argv[] = {"FCALL", "uncache_epoch", "0", "", fence_ttl_text()};

	node->fence->may_have_forgotten = false;
	set_state(node, FENCE_NO_EPOCH);
	send_texts(node, lengthof(argv), argv, voiding_answered, NULL);
}

static void
note_status(RedisNode *node, const RedisReply *reply)
{
	Fence	   *fence = fence_of(node);
	FenceState	state = state_of(node);
	bool		has_epoch = redis_reply_type(redis_reply_element(reply, 1)) == REDIS_STRING;

	fence->wants_beat = redis_reply_integer(redis_reply_element(reply, 2)) != 0;
	fence->stored = redis_reply_integer(redis_reply_element(reply, 3));
	fence->refused = redis_reply_integer(redis_reply_element(reply, 4));
	fence->beats = redis_reply_integer(redis_reply_element(reply, 5));
	publish();

	if (redis_reply_integer(redis_reply_element(reply, 0)) < LIBRARY_VERSION &&
		setting_fence_ttl > 0)
		load_library(node);
	else if (has_epoch && fence->may_have_forgotten && setting_fence_ttl > 0)
		void_tokens(node);
	else if (has_epoch)
	{
		if (state == FENCE_UNKNOWN || state == FENCE_NO_EPOCH)
			set_state(node, FENCE_ON);
	}
	else if (state == FENCE_UNKNOWN || state == FENCE_ON)
	{
		bool		first = redis_reply_integer(redis_reply_element(reply, 6)) == 0;

		fence->epoch_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  first ? FIRST_EPOCH_MS : 0);
		fence->may_have_forgotten = false;	/* it has no tokens to be voided */
		set_state(node, FENCE_NO_EPOCH);
		fence->wants_resending |= setting_fence_ttl > 0;
	}
}

static void
status_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) >= 7)
		note_status(node, reply);
	else
		no_functions(node, reply);
}

static const char *status_argv[] = {
	"FCALL", "uncache_status", "0", server_id, timeline, NULL
};

static void
send_status(RedisNode *node)
{
	status_argv[5] = Shared_state->incarnation;
	send_texts(node, lengthof(status_argv), status_argv, status_answered, NULL);
}

/* The ping while there are none: an FCALL would be counted as an error by Redis. */
static const char *list_argv[] = {"FUNCTION", "LIST", "LIBRARYNAME", "uncache"};

static void
list_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	const char *why;

	if (reply == NULL || state_of(node) != FENCE_NONE)
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY)
	{
		/* What was deleted since the last look is deleted again, by them. */
		node->fence->wants_resending |= redis_reply_count(reply) > 0;
		if (redis_reply_count(reply) > 0)
			begin(node);
	}
	else if (redis_reply_is_error(reply, "NOPERM") || !trouble_is(reply, &why))
		node->fence->looks_for_functions = false;
	else
		node_note_trouble(node, reply);
}

static void
begin(RedisNode *node)
{
	Fence	   *fence = fence_of(node);
	int			version = redis_version(node->link);

	fence->looks_for_functions = false;
	status_argv[5] = Shared_state->incarnation;
	node_set_ping(node, NULL, 0, NULL);
	if (version != 0 && version < FIRST_VERSION_WITH_FUNCTIONS)
	{
		set_state(node, setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		if (setting_fence_ttl > 0)
			node_note_error(node, "Fenced fills are not possible: Redis is older than version 7%s", "");
		return;
	}
	set_state(node, FENCE_UNKNOWN);
	send_status(node);
}

void
fence_begin(RedisNode *node)
{
	fence_of(node)->may_have_forgotten = node->new_server;
	begin(node);
}

/*
 * On: load functions and all that.  Off: tokens are void, from now on no fill is
 * let through; keys are still delivered by the functions.  Another time: it goes
 * to the node with a new epoch.
 */
static void
change(RedisNode *node)
{
	if (!fence_is_used(node) || (setting_fence_ttl > 0 && state_of(node) == FENCE_NO_EPOCH))
	{
		fence_of(node)->may_have_forgotten = false;
		begin(node);
	}
	else
	{
		set_state(node, setting_fence_ttl > 0 ? FENCE_SETTING : FENCE_NO_EPOCH);
		fence_new_epoch(node, NULL);
	}
}

void
fence_change_all(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->link != NULL)
			change(node_at(i));
	}
}

void
fence_forget(RedisNode *node)
{
	Fence	   *fence = fence_of(node);

	fence->wants_beat = false;
	set_state(node, FENCE_UNKNOWN);
}

TimestampTz
fence_turn(TimestampTz now)
{
	TimestampTz wake = DT_NOEND;

	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link == NULL)
			continue;
		if (fence_is_used(node))
			node_set_ping(node, status_argv, lengthof(status_argv), status_answered);
		else if (state_of(node) == FENCE_NONE && node->fence->looks_for_functions)
			node_set_ping(node, list_argv, lengthof(list_argv), list_answered);
		else
			node_set_ping(node, NULL, 0, NULL);
		if (state_of(node) == FENCE_NO_EPOCH && now < node->fence->epoch_at)
			wake = Min(wake, node->fence->epoch_at);
	}
	return wake;
}
