/*
 * connections.c
 *	  The worker's connections to all of its targets.
 *
 *		CONNECTING --> CONNECTED --> DOWN --(attempts)--> CONNECTED ...
 *			 \------------------------^
 *		PAUSED: uncache.delivery is off, no connection
 *
 * CONNECTED means that every node of every target is; one that has failed makes
 * the state DOWN.  Keys of the others are delivered all the same, so another field,
 * "serving", says whether committers use the ring.
 *
 * Most turns touch only the nodes with which something happens (node.c).  A full turn looks at
 * all of them: for what is due, for nodes that come and go, for the state.  The next full turn is
 * when the last one said that something is due, and within FULL_TURN_MS after a turn that was
 * not full; so whatever such a turn leaves out waits so long at the most.
 *
 * A session whose wait has timed out opens the breaker (DatabaseState.breaker).  With one
 * node that keeps all sessions from waiting.  With several, the worker finds out which
 * nodes are slow and closes the breaker; then no session waits for keys of these nodes.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/log_text.h"
#include "redis/redis_url.h"
#include "settings/settings_redis.h"
#include "settings/settings.h"
#include "topology/connections.h"
#include "topology/target.h"

/*
 * Between full turns where there are several nodes.  One with a thousand nodes takes a small part
 * of this, and no time-out or pause is so exact that it matters to it.
 */
#define FULL_TURN_MS	10

static TimestampTz full_turn_at = 0;

/* Of this turn. */
static TimestampTz turn_began = 0;
static bool began_full = true;

static bool addresses_taken = false;
static bool has_one_node = true;
static bool left_one_down = false;	/* when it was forgotten, after a line in the log */
static char endpoint[sizeof(((DatabaseState *) NULL)->endpoint)];

void
connections_init(void)
{
	settings_redis_note();
}

bool
connections_is_serving(void)
{
	return pg_atomic_read_u32(&MyDatabaseState->serving) != 0;
}

/*
 * --------------------------------------------------------------------------
 * What is shown
 * --------------------------------------------------------------------------
 */

static void
note_endpoint(void)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < target_count(); i++)
	{
		if (i > 0)
			appendStringInfoChar(&text, ' ');
		target_describe(target_at(i), &text);
	}
	if (strncmp(text.data, endpoint, sizeof(endpoint) - 1) != 0)
	{
		strlcpy(endpoint, text.data, sizeof(endpoint));
		LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
		log_text_copy(MyDatabaseState->endpoint, sizeof(MyDatabaseState->endpoint), endpoint);
		LWLockRelease(MyDatabaseState->lock);
	}
	pfree(text.data);
}

static bool
was_made(const RedisNode *node)
{
	return node->event == NODE_MADE;
}

static WorkerState
state_of_targets(void)
{
	bool		whole = target_count() > 0;
	bool		down = target_count() == 0;

	Assert(addresses_taken);
	for (int i = 0; i < target_count(); i++)
	{
		whole &= target_is_connected(target_at(i));
		down |= target_is_down(target_at(i));
	}
	if (whole)
		return WORKER_CONNECTED;
	if (down)
		return WORKER_DOWN;
	return WORKER_CONNECTING;
}

/* With a barrier, so that the worker finds each row in the ring, or in the outbox later. */
static void
set_state(WorkerState state, bool serving)
{
	bool		changed = false;

	Assert(!serving || state != WORKER_PAUSED);
	if (pg_atomic_read_u32(&MyDatabaseState->state) != state)
	{
		pg_atomic_write_u32(&MyDatabaseState->state, state);
		changed = true;
	}
	if (pg_atomic_read_u32(&MyDatabaseState->serving) != serving)
	{
		pg_atomic_write_u32(&MyDatabaseState->serving, serving);
		changed = true;
	}
	if (changed)
		pg_memory_barrier();
}

static bool
is_linked(const RedisNode *node)
{
	return node->link != NULL;
}

static bool
is_down(const RedisNode *node)
{
	return node->is_down;
}

/* node_link.c logs that a node is back, but not when the setting was changed meanwhile. */
static void
note_state(void)
{
	WorkerState state = state_of_targets();

	set_state(state, node_any(is_linked));
	if (state == WORKER_CONNECTED && left_one_down)
	{
		ereport(LOG, (errmsg("connected to Redis at %s", endpoint)));
		left_one_down = false;
	}
}

/*
 * --------------------------------------------------------------------------
 * Slow nodes
 * --------------------------------------------------------------------------
 */

/* Mark those that are silent with commands under way, or else all: pings clear the mark. */
static void
mark_slow_nodes(uint32 waited_ms)
{
	bool		found = false;

	Assert(waited_ms > 0);
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link != NULL && redis_silent_ms(node->link) >= (int) (waited_ms / 2))
		{
			node->slow_after_ms = waited_ms;
			found = true;
		}
	}
	for (int i = 0; i < node_count() && !found; i++)
	{
		if (node_at(i)->link != NULL)
			node_at(i)->slow_after_ms = waited_ms;
	}
}

static void
look_at_breaker(void)
{
	uint32		waited_ms = pg_atomic_read_u32(&MyDatabaseState->breaker);

	Assert(!has_one_node);
	if (waited_ms == 0)
		return;
	mark_slow_nodes(waited_ms);
	pg_atomic_write_u32(&MyDatabaseState->breaker, 0);
}

/*
 * --------------------------------------------------------------------------
 * Turning
 * --------------------------------------------------------------------------
 */

/* The next address of the setting, or NULL; skips one that can't be parsed. */
static RedisTarget *
next_address(char **rest)
{
	char	   *url;

	/* The setting was checked when it was set. */
	while ((url = strsep(rest, REDISURL_BLANKS)) != NULL)
	{
		const char *problem;
		RedisTarget *parsed = *url ? redis_url_parse(url, &problem) : NULL;

		if (parsed)
			return parsed;
	}
	return NULL;
}

static void
take_addresses(void)
{
	char	   *rest = pstrdup(setting_redis_url);
	RedisTarget *parsed;

	Assert(!addresses_taken && target_count() == 0);
	while ((parsed = next_address(&rest)) != NULL)
		target_add(parsed);
	addresses_taken = true;
	has_one_node = target_count() == 1 && node_count() == 1;
	node_set_single(has_one_node);
	note_endpoint();
}

char *
connections_addresses(void)
{
	StringInfoData text;
	char	   *rest = pstrdup(setting_redis_url);
	RedisTarget *parsed;
	char		address[256];

	initStringInfo(&text);
	while ((parsed = next_address(&rest)) != NULL)
	{
		redis_url_public(parsed, address, sizeof(address));
		appendStringInfo(&text, "%s%s", text.len > 0 ? " " : "", address);
		redis_url_free(parsed);
	}
	return text.data;
}

static void
forget_addresses(void)
{
	left_one_down |= node_any(is_down);
	target_forget_all();
	Assert(target_count() == 0 && node_count() == 0);
	addresses_taken = false;
}

bool
connections_turn(void)
{
	bool		changed = false;

	if (!setting_delivery)
	{
		forget_addresses();
		set_state(WORKER_PAUSED, false);
		return false;
	}
	if (!addresses_taken)
		take_addresses();

	turn_began = clock_now();
	node_begin_turn(turn_began >= full_turn_at || !connections_is_serving());
	began_full = node_turn_is_full();
	for (int i = 0; i < target_count(); i++)
		changed |= target_turn(target_at(i), turn_began);
	if (node_turn_is_full())
	{
		if (changed || node_any(was_made))
			note_endpoint();
		note_state();
	}
	if (!has_one_node)
		look_at_breaker();
	return changed;
}

void
connections_reset(void)
{
	forget_addresses();
	settings_redis_note();
	set_state(setting_delivery ? WORKER_CONNECTING : WORKER_PAUSED, false);
}

TimestampTz
connections_deadline(TimestampTz wake)
{
	TimestampTz soon = TimestampTzPlusMilliseconds(turn_began, FULL_TURN_MS);
	TimestampTz deadline = DT_NOEND;

	if (!setting_delivery)
		return wake;
	for (int i = 0; i < target_count() && node_turn_is_full(); i++)
		deadline = Min(deadline, target_deadline(target_at(i)));
	if (!node_next_turn_is_full())
		deadline = Max(deadline, soon);
	wake = Min(wake, deadline);
	full_turn_at = began_full ? Max(wake, soon) : Min(full_turn_at, soon);
	return began_full ? wake : Min(wake, full_turn_at);
}
