/*
 * node_link.c
 *	  The life of a node's link: opened, ready, lost, tried again.
 *
 *		none --(retry)--> connecting --> ready --(worked)--> the pauses start over
 *		  ^---- failed -------/-------------/
 *
 * An attempt that fails is repeated after a pause that doubles up to a second.
 * The log gets one line when the server goes, one a minute while it is down and for
 * each new reason, and one when it is back; uncache.stat has the last error at any time.
 *
 * A Redis that accepts the link and then refuses every command is not back.  So a link
 * counts as one that works, for the log and for the pauses, once a command was carried
 * out on it, or it has lasted for PING_MS.  A node whose last link was ready and failed
 * before it worked is on probation until the next one works.
 *
 * The second link, for SCAN (node_scan.c), is closed with the first.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "settings/settings_redis.h"
#include "settings/settings.h"
#include "topology/topology_int.h"

/*
 * Between attempts, doubling: at first short, since a restart of Redis takes little
 * time; a server that was down for hours is found within a second when it is back.
 */
#define RETRY_FIRST_MS		50
#define RETRY_LAST_MS		1000

/* Redis 6.2, the oldest version that this program was tested with. */
#define OLDEST_VERSION		60200

static RedisNode *answering = NULL;

RedisNode *
node_answering(void)
{
	return answering;
}

/*
 * --------------------------------------------------------------------------
 * Losing
 * --------------------------------------------------------------------------
 */

static void
log_down(RedisNode *node, const char *error, TimestampTz now)
{
	NodePrivate *own = node->own;

	own->attempts++;
	if (!node->is_down)
	{
		node->is_down = true;
		own->down_since = now;
		own->attempts = 1;
		log_throttle_reset(&own->throttle);
		(void) log_throttle_passes(&own->throttle, error, now, LOG_THROTTLE_MS);
		ereport(LOG,
				(errmsg("Redis at %s cannot be used: %s", node->name, error),
				 errdetail("The outbox keeps what is to be deleted until Redis is back.")));
	}
	else if (log_throttle_is_due(&own->throttle, now))
	{
		(void) log_throttle_passes(&own->throttle, error, now, LOG_THROTTLE_MS);
		ereport(LOG,
				(errmsg("Redis at %s cannot be used for %ld s and " UINT64_FORMAT " attempts: %s",
						node->name, (long) ((now - own->down_since) / USECS_PER_SEC),
						own->attempts, error)));
	}
	else if (log_throttle_passes(&own->throttle, error, now, LOG_THROTTLE_MS))
		ereport(LOG,
				(errmsg("Redis at %s cannot be used for another reason now: %s",
						node->name, error)));
}

/* Close the link, if there is one; its commands are answered with NULL. */
static void
close_link(RedisNode *node)
{
	NodePrivate *own = node->own;
	RedisLink  *closing = link_set_remove(&own->waited);

	/* An answer must not close the link that it came by: see node.c. */
	Assert(answering == NULL);
	Assert(node->link == NULL || node->link == closing);
	if (node->link != NULL)
		own->event = NODE_LOST;
	node->link = NULL;
	node->open = false;
	node->slow_after_ms = 0;
	answering = node;
	if (closing)
		redis_close(closing);
	node_scan_close(node);
	answering = NULL;
	own->server = NULL;
	own->trouble[0] = '\0';
	own->of_cluster = false;
}

void
node_free(RedisNode *node)
{
	close_link(node);
	node_remove(node);
}

void
node_fail(RedisNode *node, const char *error)
{
	NodePrivate *own = node->own;
	TimestampTz now = clock_now();
	char		copy[256];

	strlcpy(copy, error, sizeof(copy));
	node_show_error(node, copy);
	log_down(node, copy, now);
	own->on_probation = node->link != NULL && !own->worked;
	close_link(node);

	/* Up to half of the pause is left out at random: the workers don't come all at once. */
	backoff_fail(&own->retry, now, RETRY_FIRST_MS, RETRY_LAST_MS);
	own->retry.until -= 1000 * pg_prng_uint64_range(&pg_global_prng_state, 0, own->retry.ms / 2);
}

/*
 * --------------------------------------------------------------------------
 * Opening
 * --------------------------------------------------------------------------
 */

bool
node_wants_link(const RedisNode *node, TimestampTz now)
{
	return node->own->waited.link == NULL && now >= node->own->retry.until;
}

void
node_connect(RedisNode *node, const RedisTarget *target, int host)
{
	RedisOptions options = settings_redis_options();
	RedisLink  *link = redis_open(target, host, &options);

	Assert(!node_has_link(node) && node->link == NULL);
	if (link == NULL)
	{
		node_fail(node, "out of memory");
		return;
	}
	node->own->links++;
	node->own->server = target;
	node->own->server_host = host;
	link_set_add(&node->own->waited, link);
}

/* Logged once for each node: a service or an ACL that hides a command goes on hiding it. */
static void
tell_withheld(RedisNode *node)
{
	const char *withheld = redis_withheld(node->own->waited.link);

	if (withheld[0] == '\0' || node->own->told_withheld)
		return;
	node->own->told_withheld = true;
	ereport(LOG,
			(errmsg("Redis at %s does not answer %s, and is used without", node->name, withheld),
			 errdetail("Without INFO each new connection is sent again what was delivered "
					   "within \"%s\". Without ROLE and INFO a replica is known by its "
					   "refusing writes alone.",
					   "uncache.redeliver_window")));
}

static void
note_ready(RedisNode *node, TimestampTz now)
{
	NodePrivate *own = node->own;
	RedisLink  *link = own->waited.link;
	const char *id = redis_run_id(link);

	Assert(node->link == NULL && link != NULL);

	/* A server that does not tell its id counts as a new one, which is safe. */
	node->new_server = id[0] == '\0' || strcmp(id, own->run_id) != 0 ||
		strcmp(redis_history(link), own->history) != 0;
	strlcpy(own->run_id, id, sizeof(own->run_id));
	strlcpy(own->history, redis_history(link), sizeof(own->history));

	if (redis_version(link) != 0 && redis_version(link) < OLDEST_VERSION)
		ereport(LOG,
				(errmsg("Redis at %s is older than version 6.2, "
						"the oldest that pg_uncache supports",
						node->name)));
	tell_withheld(node);
	if (own->links > 1)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.reconnects, 1);

	node->link = link;
	own->worked = false;
	own->carried_out = false;
	own->ready_at = now;
	node_ping_begin(node, now);
	/* No session shall wait for a link that is likely to fail at once. */
	node_ping_set_slow(node, own->on_probation ? Max(setting_wait_timeout, 1) : 0);
}

/* See whether the link works. */
static void
note_working(RedisNode *node, TimestampTz now)
{
	NodePrivate *own = node->own;

	Assert(node->link != NULL && !own->worked);
	if (!own->carried_out && !TimestampDifferenceExceeds(own->ready_at, now, PING_MS))
		return;

	if (node->is_down)
		ereport(LOG,
				(errmsg("connected to Redis at %s again after %ld s",
						node->name, (long) ((now - own->down_since) / USECS_PER_SEC))));
	if (own->on_probation)
		node_ping_set_slow(node, 0);
	own->worked = true;
	own->on_probation = false;
	node->is_down = false;
	backoff_reset(&own->retry);
}

/*
 * --------------------------------------------------------------------------
 * Turning
 * --------------------------------------------------------------------------
 */

static void
turn_link(RedisNode *node)
{
	NodePrivate *own = node->own;
	RedisLinkState state;
	TimestampTz now;

	Assert(answering == NULL);
	answering = node;
	state = link_set_turn(&own->waited);
	if (state == REDIS_READY)
		node_scan_turn(node);
	answering = NULL;

	now = clock_now();
	if (state == REDIS_FAILED || own->trouble[0] != '\0')
		node_fail(node, own->trouble[0] ? own->trouble : redis_error(own->waited.link));
	else if (state == REDIS_READY && node->link == NULL)
	{
		note_ready(node, now);
		own->event = NODE_MADE;
	}
	else if (state == REDIS_READY)
	{
		if (!own->worked)
			note_working(node, now);
		node_ping_if_due(node, now);
	}
}

void
node_turn(RedisNode *node)
{
	if (node->own->waited.link != NULL)
		turn_link(node);
	node->event = node->own->event;
	node->own->event = NODE_SAME;
	if (node->event != NODE_SAME)
		node_turn_fully();		/* to act on it, and to forget it in the next turn */
}

void
node_flush_all(void)
{
	link_set_flush();
}

TimestampTz
node_deadline(const RedisNode *node)
{
	const NodePrivate *own = node->own;
	TimestampTz deadline;

	if (own->waited.link == NULL)
		return own->retry.until;
	deadline = Min(redis_deadline(own->waited.link), node_scan_deadline(node));
	if (node->link != NULL && !own->ping_under_way)
		deadline = Min(deadline, own->ping_at);
	return deadline;
}
