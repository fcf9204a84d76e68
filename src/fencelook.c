/*
 * fencelook.c
 *	  Finding out what a node knows of fenced fills, and teaching it.
 *
 * A node with a link is asked for its status, a call of the functions.  Where it has
 * none, or older ones, it is given them; where that fails they are offered again after
 * pauses that double up to a minute.  Until then, or where they are not wanted, a look
 * once in a while finds out whether another worker has brought them.  From then on
 * the status is what pings ask for, so that an epoch that was lost is found out.
 *
 * fence.c says what the states mean, and why a failure lets no fill through.
 */
#include "postgres.h"

#include "access/xlog.h"

#include "clock.h"
#include "fence_int.h"
#include "settings.h"
#include "trouble.h"
#include "uncache_lua.h"

/* Of lua/uncache.lua; a node with older functions gets these. */
#define LIBRARY_VERSION		2

/* Redis 7.0 brought FUNCTION and FCALL. */
#define FIRST_VERSION_WITH_FUNCTIONS	70000

/*
 * A worker without the fence deletes with UNLINK, unnoticed by the functions, until
 * it has found them: it looks at every ping, once in 1.2 s.  So the first epoch that
 * a node is given waits for twice as long.
 */
#define FIRST_EPOCH_MS		2400

/* Before functions that were refused are offered again; doubles. */
#define LOAD_FIRST_MS		1000
#define LOAD_LAST_MS		(60 * 1000)

static char server_id[24];
static char timeline[12];

static void begin(RedisNode *node);
static void send_status(RedisNode *node);

void
fencelook_init(void)
{
	snprintf(server_id, sizeof(server_id), UINT64_FORMAT, GetSystemIdentifier());
	snprintf(timeline, sizeof(timeline), "%u", GetWALInsertionTimeLine());
}

/* It may be out of memory, or lack replicas; keys are deleted without them meanwhile. */
static void
library_refused(RedisNode *node, const RedisReply *reply)
{
	Fence	   *fence = fence_of(node);

	node_note_error(node, "Redis does not load the functions of pg_uncache: %s",
					trouble_text(reply));
	fence_set_state(node, FENCE_IMPOSSIBLE);
	/* Somebody else may: from then on a bare UNLINK would go unnoticed. */
	fence->looks_for_functions = true;
	fence->load_ms = Min(Max(fence->load_ms * 2, LOAD_FIRST_MS), LOAD_LAST_MS);
	fence->load_at = TimestampTzPlusMilliseconds(clock_now(), fence->load_ms);
}

static void
library_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	FenceState	state = fence_state_of(node);

	/* Offered again while somebody else has brought them: then the status is asked for. */
	if (reply == NULL || (state != FENCE_LOADING && state != FENCE_IMPOSSIBLE))
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		library_refused(node, reply);
		return;
	}
	/* What was deleted without them is deleted again, by them. */
	node->fence->wants_resending |= state == FENCE_IMPOSSIBLE;
	node->fence->load_ms = 0;
	begin(node);
}

static void
offer_library(RedisNode *node)
{
	const char *argv[] = {"FUNCTION", "LOAD", "REPLACE", uncache_lua};

	fence_of(node)->load_at = 0;
	fence_send(node, lengthof(argv), argv, library_answered, NULL);
}

static void
load_library(RedisNode *node)
{
	fence_set_state(node, FENCE_LOADING);
	offer_library(node);
}

/* The node has no functions, or they can't be called. */
static void
no_functions(RedisNode *node, const RedisReply *reply)
{
	const char *text = redis_reply_text(reply, NULL);
	const char *why;

	if (strstr(text, "unction not found") != NULL && setting_fence_ttl > 0)
		load_library(node);
	else if (redis_reply_is_error(reply, "NOPERM") || redis_reply_is_error(reply, "ERR") ||
			 !trouble_is(reply, &why))
	{
		if (setting_fence_ttl > 0)
			node_note_error(node, "fenced fills are not possible: %s", trouble_text(reply));
		fence_set_state(node, setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		node->fence->shut_out = redis_reply_is_error(reply, "NOPERM");
		node->fence->looks_for_functions = !node->fence->shut_out;
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
	fence_set_state(node, FENCE_NO_EPOCH);
	fence_send(node, lengthof(argv), argv, voiding_answered, NULL);
}

static void
note_status(RedisNode *node, const RedisReply *reply)
{
	Fence	   *fence = fence_of(node);
	FenceState	state = fence_state_of(node);
	bool		has_epoch = redis_reply_type(redis_reply_element(reply, 1)) == REDIS_STRING;

	fence->wants_beat = redis_reply_integer(redis_reply_element(reply, 2)) != 0;
	fence->stored = redis_reply_integer(redis_reply_element(reply, 3));
	fence->refused = redis_reply_integer(redis_reply_element(reply, 4));
	fence->beats = redis_reply_integer(redis_reply_element(reply, 5));
	fence_publish();

	if (redis_reply_integer(redis_reply_element(reply, 0)) < LIBRARY_VERSION &&
		setting_fence_ttl > 0)
		load_library(node);
	else if (has_epoch && fence->may_have_forgotten && setting_fence_ttl > 0)
		void_tokens(node);
	else if (has_epoch)
	{
		if (state == FENCE_UNKNOWN || state == FENCE_NO_EPOCH)
			fence_set_state(node, FENCE_ON);
	}
	else if (state == FENCE_UNKNOWN || state == FENCE_ON)
	{
		bool		first = redis_reply_integer(redis_reply_element(reply, 6)) == 0;

		fence->epoch_at = TimestampTzPlusMilliseconds(clock_now(),
													  first ? FIRST_EPOCH_MS : 0);
		fence->may_have_forgotten = false;	/* it has no tokens to be voided */
		fence_set_state(node, FENCE_NO_EPOCH);
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
	fence_send(node, lengthof(status_argv), status_argv, status_answered, NULL);
}

/* The ping while there are none: an FCALL would be counted as an error by Redis. */
static const char *list_argv[] = {"FUNCTION", "LIST", "LIBRARYNAME", "uncache"};

static bool
looks_for_functions(const RedisNode *node)
{
	FenceState	state = fence_state_of(node);

	return (state == FENCE_NONE || state == FENCE_IMPOSSIBLE) && node->fence->looks_for_functions;
}

static void
list_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	const char *why;

	if (reply == NULL || !looks_for_functions(node))
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY)
	{
		/* What was deleted since the last look is deleted again, by them. */
		node->fence->wants_resending |= redis_reply_count(reply) > 0;
		if (redis_reply_count(reply) > 0)
			begin(node);
	}
	/* A server that does not know the command has no functions, and is well. */
	else if (redis_reply_is_error(reply, "NOPERM") || redis_reply_is_error(reply, "ERR") ||
			 !trouble_is(reply, &why))
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
	fence->shut_out = false;
	fence->load_at = 0;
	status_argv[5] = Shared_state->incarnation;
	node_set_ping(node, NULL, 0, NULL);
	if (version != 0 && version < FIRST_VERSION_WITH_FUNCTIONS)
	{
		fence_set_state(node, setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		if (setting_fence_ttl > 0)
			node_note_error(node, "fenced fills are not possible: %s", "Redis is older than version 7");
		return;
	}
	fence_set_state(node, FENCE_UNKNOWN);
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
	if (!fence_is_used(node) || (setting_fence_ttl > 0 && fence_state_of(node) == FENCE_NO_EPOCH))
	{
		fence_of(node)->may_have_forgotten = false;
		begin(node);
	}
	else
	{
		fence_set_state(node, setting_fence_ttl > 0 ? FENCE_SETTING : FENCE_NO_EPOCH);
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

/* Functions that were refused are offered again; returns when to come again. */
static TimestampTz
load_if_due(RedisNode *node, TimestampTz now)
{
	if (fence_state_of(node) != FENCE_IMPOSSIBLE || node->fence->load_at == 0)
		return DT_NOEND;
	if (now < node->fence->load_at)
		return node->fence->load_at;
	offer_library(node);
	return DT_NOEND;
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
		else if (looks_for_functions(node))
			node_set_ping(node, list_argv, lengthof(list_argv), list_answered);
		else
			node_set_ping(node, NULL, 0, NULL);
		if (fence_state_of(node) == FENCE_NO_EPOCH && now < node->fence->epoch_at)
			wake = Min(wake, node->fence->epoch_at);
		wake = Min(wake, load_if_due(node, now));
	}
	return wake;
}
