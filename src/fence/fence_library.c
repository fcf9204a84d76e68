/*
 * fence_library.c
 *	  Finding out what a node knows of fenced fills, and loading its functions.
 *
 * The worker asks a node for its status, which is a call of the functions.  Where the
 * node has no functions, or older ones, the worker loads them; where that fails it
 * offers them again after pauses that double up to a minute.  Meanwhile, and where the
 * fence is off, pings ask FUNCTION LIST, which shows whether another worker has loaded
 * them.  Once the node has functions, pings ask for the status, which shows an epoch
 * that was lost.  Where it has functions that refuse the status, or that this worker has no
 * right to call, the worker asks for the status again after such pauses, too.
 *
 * fence.c says what the states mean, and why a failure lets no fill through.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"

#include "base/clock.h"
#include "base/log_text.h"
#include "fence/fence_command.h"
#include "fence/fence_int.h"
#include "fence/uncache_lua.h"
#include "redis/redis_error.h"
#include "settings/settings.h"
#include "topology/target.h"

/* Of uncache.lua; a node with older functions gets these. */
#define LIBRARY_VERSION		3

/* Redis 7.0 brought FUNCTION and FCALL. */
#define FIRST_VERSION_WITH_FUNCTIONS	70000

/*
 * The worker of another database whose fence is off deletes with UNLINK, which the
 * functions don't notice, until one of its pings, every 1.2 s, has found them.  So the
 * first epoch of a node waits for twice as long.
 */
#define FIRST_EPOCH_MS		2400

/* Before functions that were refused are offered again, or that refuse are called; doubles. */
#define LOAD_FIRST_MS		1000
#define LOAD_LAST_MS		(60 * 1000)

/*
 * Where readers have asked for a beat they ask again soon if their keys are invalidated again.
 * So for some time a status follows deliveries, at most so often; otherwise pings suffice.
 */
#define HOT_MS				(10 * 1000)
#define ASK_MS				100

/* How old the next transaction id in a status may be: reading it takes a lock of all writers. */
#define NEXT_XID_MS			500

static char server_id[24];
static char timeline[12];
static char next_xid[24];
static TimestampTz next_xid_at;

static bool send_status(RedisNode *node);

void
fence_init(void)
{
	fence_publish();
	fence_command_init();
	fence_standing_init();
	snprintf(server_id, sizeof(server_id), UINT64_FORMAT, GetSystemIdentifier());
	snprintf(timeline, sizeof(timeline), "%u", GetWALInsertionTimeLine());
}

/*
 * The node has refused the functions: offer them again later, and use UNLINK meanwhile.  Where
 * it has older ones it goes on to give tokens, which a bare UNLINK would not void, so the
 * records are deleted, too.
 */
static void
go_without(RedisNode *node)
{
	Fence	   *fence = fence_of(node);

	fence_set_state(node, FENCE_IMPOSSIBLE);
	fence->shut_out = fence->outdated;
	/* Another worker may load them; from then on they would not notice a bare UNLINK. */
	fence->looks_for_functions = !fence->outdated;
	backoff_fail(&fence->load, clock_now(), LOAD_FIRST_MS, LOAD_LAST_MS);
}

/* A library of another program has the name: it must not be replaced. */
static void
note_foreign_library(RedisNode *node)
{
	if (!fence_of(node)->foreign)
		node_note_error(node, "fenced fills are not possible: "
						"Redis has a function library \"uncache\", "
						"or functions of its names, that are not of pg_uncache; "
						"FUNCTION DELETE makes room");
	node->fence->foreign = true;
	go_without(node);
}

static bool
name_is_taken(const RedisReply *reply)
{
	return strstr(redis_reply_text(reply, NULL), "already exists") != NULL;
}

/* FUNCTION LOAD has failed: Redis may be out of memory, or lack replicas. */
static void
library_refused(RedisNode *node, const RedisReply *reply)
{
	if (node->fence->foreign && name_is_taken(reply))
	{
		go_without(node);
		return;
	}
	if (name_is_taken(reply))
	{
		/* Another worker was quicker, or the library is foreign: the status tells. */
		node->fence->name_is_taken = true;
		if (!fence_is_used(node))
			fence_library_begin(node);
		return;
	}
	node_note_error(node, "Redis does not load the functions of pg_uncache: %s",
					redis_error_text(reply));
	go_without(node);
}

static void
library_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	FenceState	state = fence_state_of(node);

	Assert(node != NULL && node->fence != NULL);
	/* Another worker has loaded them since: the status is under way. */
	if (reply == NULL || state < FENCE_LOADING)
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		library_refused(node, reply);
		return;
	}
	node->fence->foreign = false;
	/* The functions were lost and are loaded again: the status is under way. */
	if (fence_is_used(node))
		return;
	node->fence->found |= state == FENCE_IMPOSSIBLE;
	node->fence->load.ms = 0;
	fence_library_begin(node);
}

/* "replace": the node has an older library of pg_uncache. */
static bool
offer_library(RedisNode *node, bool replace)
{
	const char *load[] = {"FUNCTION", "LOAD", uncache_lua};
	const char *load_over[] = {"FUNCTION", "LOAD", "REPLACE", uncache_lua};

	fence_of(node)->load.until = 0;
	node->fence->name_is_taken = false;
	return replace ? fence_send(node, lengthof(load_over), load_over, library_answered, NULL) :
		fence_send(node, lengthof(load), load, library_answered, NULL);
}

/*
 * --------------------------------------------------------------------------
 * Losses
 * --------------------------------------------------------------------------
 *
 * Someone has flushed the functions, or loaded them again, or an older version.  Then the
 * worker sends the functions and a status on the same link, without waiting for answers in
 * between, so Redis carries out whatever is sent after them with the functions in place.  A
 * session that commits meanwhile waits for one more round trip.  Fills are refused until
 * there is an epoch.
 */

static bool
regain(RedisNode *node, bool load, bool replace)
{
	Assert(fence_is_used(node) && !node->fence->regaining);
	node->fence->regaining = true;
	fence_set_state(node, FENCE_NO_EPOCH);
	node->fence->wants_resending |= setting_fence_ttl > 0;
	node->fence->epoch_at = TimestampTzPlusMilliseconds(clock_now(), FIRST_EPOCH_MS);
	return (!load || offer_library(node, replace)) && send_status(node);
}

bool
fence_note_loss(RedisNode *node, const RedisReply *reply)
{
	bool		gone = redis_error_is_unknown_function(reply);

	if (!gone && !redis_reply_is_error(reply, "UNREGISTERED"))
		return false;
	if (!fence_is_used(node))
		return node->open;		/* known already: keys are deleted by UNLINK */
	if (node->fence->regaining)
		return true;
	if (gone && setting_fence_ttl == 0)
	{
		fence_set_state(node, FENCE_NONE);
		node->fence->looks_for_functions = true;
		return true;
	}
	return regain(node, gone, false);
}

/* The node has no functions, or older ones. */
static void
load_library(RedisNode *node, bool replace)
{
	fence_of(node)->outdated = replace;
	if (fence_is_used(node))
	{
		regain(node, true, replace);
		return;
	}
	fence_set_state(node, FENCE_LOADING);
	offer_library(node, replace);
}

/*
 * Functions have been found, or loaded.  Keys that were deleted by UNLINK before are deleted
 * again: by the functions, which note it, or together with their records (shut_out).
 */
static void
resend_if_found(Fence *fence)
{
	fence->wants_resending |= fence->found;
	fence->found = false;
}

/* What the administrator can do. */
static const char *
way_out(const RedisReply *reply)
{
	if (redis_reply_is_error(reply, "NOPERM"))
		return "; give the Redis user the right to FCALL";
	if (redis_error_is_unknown_command(reply))
		return "; this Redis has no functions: set uncache.fence_ttl to 0";
	return "; FUNCTION DELETE makes room";
}

static void
note_refusal(RedisNode *node, const RedisReply *reply)
{
	bool		is_error = redis_reply_type(reply) == REDIS_ERROR;

	node_note_error(node, "fenced fills are not possible: %s%s",
					is_error ? log_text_cut(redis_error_text(reply), 150) :
					"uncache_status in Redis is not of pg_uncache", way_out(reply));
}

/*
 * This worker can't call the functions, and others perhaps can.  FUNCTION LIST shows them with
 * each ping, so the worker pauses before it calls them again, and the log hears it once.
 */
static void
call_later(RedisNode *node, const RedisReply *reply)
{
	Fence	   *fence = node->fence;
	bool		was_shut_out = fence->shut_out;
	bool		has_right = !redis_reply_is_error(reply, "NOPERM");

	if (setting_fence_ttl > 0 && fence->call.ms == 0)
		note_refusal(node, reply);
	fence_set_state(node, setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
	fence->shut_out |= !has_right || fence->found;
	fence->looks_for_functions = has_right;
	if (fence->shut_out && !was_shut_out)
		resend_if_found(fence);
	backoff_fail(&fence->call, clock_now(), LOAD_FIRST_MS, LOAD_LAST_MS);
}

/* The status was refused: the node has no functions, or they can't be called. */
static void
status_refused(RedisNode *node, const RedisReply *reply)
{
	bool		not_found = redis_error_is_unknown_function(reply);
	const char *why;

	/* Version 1 does not take as many arguments as this one gives. */
	if (redis_reply_is_error(reply, "ERR") && setting_fence_ttl > 0 &&
		strstr(redis_reply_text(reply, NULL), "wrong arguments, see uncache.lua") != NULL)
		load_library(node, true);
	else if (not_found && setting_fence_ttl > 0 && node->fence->name_is_taken)
		note_foreign_library(node);
	else if (not_found && setting_fence_ttl > 0)
		load_library(node, false);
	else if (not_found)
	{
		fence_set_state(node, FENCE_NONE);
		node->fence->looks_for_functions = true;
	}
	else if (redis_reply_is_error(reply, "NOPERM") || redis_reply_is_error(reply, "ERR") ||
			 !redis_error_is_fatal(reply, &why))
		call_later(node, reply);
	else
		node_note_trouble(node, reply);
}

static void
voiding_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply != NULL && redis_reply_type(reply) == REDIS_ERROR && !fence_note_loss(node, reply))
		node_note_trouble(node, reply);
}

/*
 * The node remembers an epoch, but may have missed deliveries since: a master that
 * became a replica and was promoted again keeps its memory.  So void its tokens; it
 * gets a new epoch when it was sent all that it can have missed.
 */
static void
void_tokens(RedisNode *node)
{
	node->fence->may_have_forgotten = false;
	fence_set_state(node, FENCE_NO_EPOCH);
	fence_send_epoch(node, "", voiding_answered, NULL);
}

/* Whether another server's readers fill instead of this one's. */
static bool
note_standing(RedisNode *node, const RedisReply *reply)
{
	Fence	   *fence = fence_of(node);

	if (!fence_standing_parse(reply, &fence->standing))
		return false;
	strlcpy(fence->told, fence->standing.by, sizeof(fence->told));
	if (setting_fence_ttl == 0)
		return false;
	fence_standing_note(&fence->standing);
	return fence->standing.kind != STANDING_FILLS;
}

/* Add what a node has counted since its last status; its counts begin again when it forgets. */
static void
count_on(pg_atomic_uint64 *counter, bool has_last, uint64 *last, const RedisReply *element)
{
	uint64		counted = redis_reply_integer(element);

	if (has_last)
		pg_atomic_fetch_add_u64(counter, counted >= *last ? counted - *last : counted);
	*last = counted;
}

/*
 * What was counted before this worker's first status may have been taken by the worker before
 * it, so it is left out.
 */
static void
note_reports(Fence *fence, const RedisReply *reply)
{
	DatabaseCounters *stats = &MyDatabaseState->stats;

	if (redis_reply_count(reply) < 19)
		return;
	count_on(&stats->checked, fence->has_reports, &fence->checked, redis_reply_element(reply, 16));
	count_on(&stats->found_stale, fence->has_reports, &fence->found_stale,
			 redis_reply_element(reply, 17));
	count_on(&stats->fills_plain, fence->has_reports, &fence->plain,
			 redis_reply_element(reply, 18));
	fence->has_reports = true;
}

static void
note_status(RedisNode *node, const RedisReply *reply)
{
	Fence	   *fence = fence_of(node);
	FenceState	state = fence_state_of(node);
	bool		has_epoch = redis_reply_type(redis_reply_element(reply, 1)) == REDIS_STRING;

	Assert(redis_reply_count(reply) >= 7 && !fence->regaining);
	fence->wants_beat = redis_reply_integer(redis_reply_element(reply, 2)) != 0;
	fence->stored = redis_reply_integer(redis_reply_element(reply, 3));
	fence->refused = redis_reply_integer(redis_reply_element(reply, 4));
	fence->beats = redis_reply_integer(redis_reply_element(reply, 5));
	if (fence->wants_beat)
		fence->hot_until = TimestampTzPlusMilliseconds(clock_now(), HOT_MS);
	note_reports(fence, reply);
	fence_note_change();

	if (redis_reply_integer(redis_reply_element(reply, 0)) < LIBRARY_VERSION &&
		setting_fence_ttl > 0)
		load_library(node, true);
	else if (note_standing(node, reply))
		fence_set_state(node, FENCE_SUPERSEDED);
	else if (has_epoch && fence->may_have_forgotten && setting_fence_ttl > 0)
		void_tokens(node);
	else if (has_epoch)
	{
		if (state == FENCE_UNKNOWN || state == FENCE_SUPERSEDED || state == FENCE_NO_EPOCH)
			fence_set_state(node, FENCE_ON);
	}
	else if (state == FENCE_UNKNOWN || state == FENCE_SUPERSEDED || state == FENCE_ON)
	{
		bool		first = redis_reply_integer(redis_reply_element(reply, 6)) == 0;

		fence->epoch_at = TimestampTzPlusMilliseconds(clock_now(),
													  first ? FIRST_EPOCH_MS : 0);
		fence->may_have_forgotten = false;	/* there are no tokens to be voided */
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
	Assert(node != NULL && node->fence != NULL);
	node->fence->regaining = false;
	/* The worker has given up the node's functions since it asked. */
	if (fence_state_of(node) == FENCE_NONE || fence_state_of(node) == FENCE_IMPOSSIBLE)
		return;
	if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) >= 7)
	{
		node->fence->name_is_taken = node->fence->foreign = node->fence->shut_out = false;
		backoff_reset(&node->fence->call);
		resend_if_found(node->fence);
		note_status(node, reply);
	}
	else
		status_refused(node, reply);
}

/*
 * A node that may have lost its memory gets a new one: it refuses all beats below that, also
 * those that were announced to it before and whose announcement arrives again.
 */
static void
refresh_next_xid(const RedisNode *node)
{
	TimestampTz now = clock_now();

	if (fence_state_of(node) == FENCE_ON && next_xid_at != 0 &&
		!TimestampDifferenceExceeds(next_xid_at, now, NEXT_XID_MS))
		return;
	next_xid_at = now;
	snprintf(next_xid, sizeof(next_xid), UINT64_FORMAT,
			 U64FromFullTransactionId(ReadNextFullTransactionId()));
}

/* The arguments of a status for this node, valid until the next status is made. */
static const char **
status_for(RedisNode *node)
{
	Fence	   *fence = fence_of(node);
	const char **argv = fence->status_argv;

	refresh_next_xid(node);
	snprintf(fence->database, sizeof(fence->database), "%d", target_database(node->target));
	argv[0] = "FCALL";
	argv[1] = "uncache_status";
	argv[2] = "0";
	argv[3] = server_id;
	argv[4] = timeline;
	argv[5] = UncacheShmem->incarnation;
	argv[6] = fence->database;
	argv[7] = setting_key_prefix;
	fence_standing_texts(&argv[8], &argv[9], &argv[10]);
	argv[11] = fence->told;
	argv[12] = next_xid;
	return argv;
}

bool
fence_library_ask(RedisNode *node, RedisAnswer answer, void *arg)
{
	return fence_send(node, STATUS_ARGS, status_for(node), answer, arg);
}

static bool
send_status(RedisNode *node)
{
	return fence_library_ask(node, status_answered, NULL);
}

static void
ask_all(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->link != NULL && fence_is_used(node_at(i)))
			send_status(node_at(i));
	}
}

/* The ping of a node without functions; Redis would count an FCALL as an error. */
static const char *list_argv[] = {"FUNCTION", "LIST", "LIBRARYNAME", "uncache"};

static bool
looks_for_functions(const RedisNode *node)
{
	FenceState	state = fence_state_of(node);

	return (state == FENCE_NONE || state == FENCE_IMPOSSIBLE) && node->fence->looks_for_functions;
}

/* [[library_name, name, engine, LUA, functions, [[name, uncache_status, ...], ...]]] */
static bool
has_our_functions(const RedisReply *reply)
{
	const RedisReply *library;
	const RedisReply *functions;

	if (redis_reply_count(reply) == 0)
		return false;
	library = redis_reply_element(reply, 0);
	if (redis_reply_count(library) < 6)
		return false;
	functions = redis_reply_element(library, 5);
	for (size_t i = 0; i < redis_reply_count(functions); i++)
	{
		const RedisReply *function = redis_reply_element(functions, i);

		if (redis_reply_count(function) >= 2 &&
			strcmp(redis_reply_text(redis_reply_element(function, 1), NULL), "uncache_status") == 0)
			return true;
	}
	return false;
}

static void
begin_with_found(RedisNode *node)
{
	fence_of(node)->found = true;
	fence_library_begin(node);
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
		if (has_our_functions(reply) &&
			(!node->fence->shut_out || clock_now() >= node->fence->call.until))
			begin_with_found(node);
	}
	/* A server that does not know the command has no functions, which is no trouble. */
	else if (redis_reply_is_error(reply, "NOPERM") || redis_reply_is_error(reply, "ERR") ||
			 !redis_error_is_fatal(reply, &why))
		node->fence->looks_for_functions = false;
	else
		node_note_trouble(node, reply);
}

void
fence_library_begin(RedisNode *node)
{
	Fence	   *fence = fence_of(node);
	int			version = redis_version(node->link);

	Assert(node->target != NULL && node->link != NULL);
	fence->looks_for_functions = false;
	fence->load.until = 0;
	node_set_ping(node, NULL, 0, NULL);
	if (version != 0 && version < FIRST_VERSION_WITH_FUNCTIONS)
	{
		fence->shut_out = false;
		fence_set_state(node, setting_fence_ttl > 0 ? FENCE_IMPOSSIBLE : FENCE_NONE);
		if (setting_fence_ttl > 0)
			node_note_error(node, "fenced fills are not possible: %s",
							"Redis is older than version 7");
		return;
	}
	fence_set_state(node, FENCE_UNKNOWN);
	send_status(node);
}

void
fence_begin(RedisNode *node)
{
	fence_of(node)->may_have_forgotten = node->new_server;
	node->fence->standing.known = false;
	node->fence->told[0] = '\0';
	node->fence->regaining = false;
	node->fence->name_is_taken = node->fence->foreign = node->fence->outdated = false;
	node->fence->shut_out = node->fence->found = false;
	backoff_reset(&node->fence->call);
	if (node->new_server)
		fence_standing_note_new_server();
	fence_library_begin(node);
}

/* Ask whether readers want a beat, after deliveries; returns when to be called for that. */
static TimestampTz
ask_if_hot(RedisNode *node, TimestampTz now)
{
	Fence	   *fence = fence_of(node);
	uint64		batches = pg_atomic_read_u64(&MyDatabaseState->stats.batches);

	Assert(node->link != NULL);
	if (now >= fence->hot_until || !fence_is_on(node) || batches == fence->asked)
		return DT_NOEND;
	if (now < fence->ask_at)
		return fence->ask_at;
	fence->asked = batches;
	fence->ask_at = TimestampTzPlusMilliseconds(now, ASK_MS);
	send_status(node);
	return DT_NOEND;
}

/* Offer functions that the node has refused again; returns when to be called for that. */
static TimestampTz
load_if_due(RedisNode *node, TimestampTz now)
{
	if (fence_state_of(node) != FENCE_IMPOSSIBLE || node->fence->load.until == 0)
		return DT_NOEND;
	if (now < node->fence->load.until)
		return node->fence->load.until;
	offer_library(node, false);
	return DT_NOEND;
}

/* The same for functions that could not be called. */
static TimestampTz
call_if_due(RedisNode *node, TimestampTz now)
{
	if (!fence_is_shut_out(node) || node->fence->call.until == 0)
		return DT_NOEND;
	if (now < node->fence->call.until)
		return node->fence->call.until;
	begin_with_found(node);
	return DT_NOEND;
}

TimestampTz
fence_run(TimestampTz now)
{
	TimestampTz wake = DT_NOEND;

	if (fence_standing_wants_status())
		ask_all();
	if (!node_turn_is_full())
		return DT_NOEND;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link == NULL)
			continue;
		if (fence_is_used(node))
			node_set_ping(node, status_for(node), STATUS_ARGS, status_answered);
		else if (looks_for_functions(node))
			node_set_ping(node, list_argv, lengthof(list_argv), list_answered);
		else
			node_set_ping(node, NULL, 0, NULL);
		if (fence_state_of(node) == FENCE_NO_EPOCH && now < node->fence->epoch_at)
			wake = Min(wake, node->fence->epoch_at);
		wake = Min(wake, load_if_due(node, now));
		wake = Min(wake, call_if_due(node, now));
		wake = Min(wake, ask_if_hot(node, now));
	}
	return wake;
}
