/*
 * node.c
 *	  One Redis server that keys are delivered to: its link, opened, lost, tried again.
 *
 * An attempt that fails is repeated after a pause that doubles up to a second.
 * The log gets one line when the server goes, one a minute while it is away and for
 * each new reason, and one when it is back; uncache.stat has the last error at any time.
 *
 * A Redis that lets us in and then refuses every command is not back.  So a
 * link counts for the log, and for the pauses, once it has proven itself: by
 * a command that was carried out, or by having lasted for a second.
 *
 * Pings (node_ping.c) find out that a server hangs while nothing is to be delivered.
 * Patterns have a second link (node_scan.c), which is closed with the first.
 *
 * An answer must not close the link that it came by.  So it notes the trouble, and
 * the next turn acts on it.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/log_text.h"
#include "settings/settings_redis.h"
#include "topology/node_int.h"
#include "settings/settings.h"
#include "redis/redis_error.h"

/*
 * Between attempts, doubling: at first short, since a restart of Redis takes little
 * time; one that was away for hours is found within a second when it is back.
 */
#define RETRY_FIRST_MS		50
#define RETRY_LAST_MS		1000

/* Redis 6.2: what this program was tested with at the least. */
#define OLDEST_VERSION		60200

static RedisNode *nodes[NODES_MAX];
static int	nnodes = 0;
static bool is_alone = true;
static RedisNode *answering = NULL;

/*
 * --------------------------------------------------------------------------
 * All nodes
 * --------------------------------------------------------------------------
 */

void
node_init(void)
{
	nodeping_init();
}

int
node_count(void)
{
	return nnodes;
}

RedisNode *
node_at(int i)
{
	return nodes[i];
}

RedisNode *
node_make(bool in_cluster)
{
	MemoryContext context;
	RedisNode  *node;

	if (nnodes == NODES_MAX)
		return NULL;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache node", ALLOCSET_SMALL_SIZES);
	node = MemoryContextAllocZero(context, sizeof(RedisNode));
	node->context = context;
	node->in_cluster = in_cluster;
	node->needs_resend = true;
	node->own = MemoryContextAllocZero(context, sizeof(NodePrivate));
	node_set_ping(node, NULL, 0, NULL);
	nodes[nnodes++] = node;
	return node;
}

static void close_link(RedisNode *node);

void
node_free(RedisNode *node)
{
	close_link(node);
	for (int i = 0; i < nnodes; i++)
	{
		if (nodes[i] == node)
			nodes[i] = nodes[--nnodes];
	}
	MemoryContextDelete(node->context);
}

void
node_set_single(bool alone)
{
	is_alone = alone;
}

bool
node_is_single(void)
{
	return is_alone;
}

bool
node_any(bool (*is) (const RedisNode *node))
{
	for (int i = 0; i < nnodes; i++)
	{
		if (is(nodes[i]))
			return true;
	}
	return false;
}

static bool
is_open(const RedisNode *node)
{
	return node->open;
}

bool
node_any_open(void)
{
	return node_any(is_open);
}

RedisNode *
node_answering(void)
{
	return answering;
}

/*
 * --------------------------------------------------------------------------
 * Trouble
 * --------------------------------------------------------------------------
 */

void
node_note_trouble(RedisNode *node, const RedisReply *reply)
{
	char	   *trouble = node->own->trouble;
	const char *why;

	if (trouble[0] != '\0' || !redis_error_is_fatal(reply, &why))
		return;
	snprintf(trouble, sizeof(node->own->trouble), "%s (%s)", why,
			 log_text_cut(redis_error_text(reply), 150));
	node->own->of_cluster = node->cluster != NULL && redis_reply_is_error(reply, "CLUSTERDOWN");
}

void
node_note_nonsense(RedisNode *node)
{
	if (node->own->trouble[0] == '\0')
		strlcpy(node->own->trouble, "Redis gave an answer that makes no sense",
				sizeof(node->own->trouble));
}

void
node_note_success(RedisNode *node)
{
	node->own->of_use = true;
}

/*
 * Where there are several nodes an error says whose it is.  A node that says that its
 * cluster is down is well itself.
 */
static void
show_error(const RedisNode *node, const char *error)
{
	const char *whose = node->own->of_cluster ? node->cluster : node->name;
	char		text[256];

	if (is_alone)
	{
		shmem_note_error(MyDatabaseState, error);
		return;
	}
	snprintf(text, sizeof(text), "%s: %s", whose, error);
	shmem_note_error(MyDatabaseState, text);
}

void
node_note_error(const RedisNode *node, const char *format,...)
{
	char		error[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(error, sizeof(error), format, args);
	va_end(args);
	show_error(node, error);
	if (is_alone)
		ereport(LOG, (errmsg("%s", error)));
	else
		ereport(LOG, (errmsg("%s: %s", node->name, error)));
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

/* Close the link, if any; its commands are answered with NULL. */
static void
close_link(RedisNode *node)
{
	NodePrivate *own = node->own;
	RedisLink  *closing = link_set_remove(&own->waited);

	if (own->was_ready)
		own->event = NODE_LOST;
	node->link = NULL;
	node->open = false;
	node->slow_after_ms = 0;
	own->was_ready = false;
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
node_fail(RedisNode *node, const char *error)
{
	NodePrivate *own = node->own;
	TimestampTz now = clock_now();
	char		copy[256];

	strlcpy(copy, error, sizeof(copy));
	show_error(node, copy);
	log_down(node, copy, now);
	own->flaps = own->was_ready && !own->proven;
	close_link(node);

	/* Up to half of the pause is left out at random: the workers do not all come at once. */
	backoff_fail(&own->retry, now, RETRY_FIRST_MS, RETRY_LAST_MS);
	own->retry.until -= 1000 * pg_prng_uint64_range(&pg_global_prng_state, 0, own->retry.ms / 2);
}

/*
 * --------------------------------------------------------------------------
 * Opening
 * --------------------------------------------------------------------------
 */

bool
node_has_link(const RedisNode *node)
{
	return node->own->waited.link != NULL;
}

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

/* Once for each node: what a service or an ACL hides stays hidden. */
static void
tell_withheld(RedisNode *node)
{
	const char *withheld = redis_withheld(node->own->waited.link);

	if (withheld[0] == '\0' || node->own->told_withheld)
		return;
	node->own->told_withheld = true;
	ereport(LOG,
			(errmsg("Redis at %s does not answer %s, and is used without", node->name, withheld),
			 errdetail("Without INFO each new connection is sent again what was delivered within \"%s\". Without ROLE and INFO a replica is known by its refusing writes alone.",
					   "uncache.redeliver_window")));
}

static void
note_ready(RedisNode *node, TimestampTz now)
{
	NodePrivate *own = node->own;
	RedisLink  *link = own->waited.link;
	const char *id = redis_run_id(link);

	/* A server that does not tell its id is taken for a new one: that is safe. */
	node->new_server = id[0] == '\0' || strcmp(id, own->run_id) != 0 ||
		strcmp(redis_history(link), own->history) != 0;
	strlcpy(own->run_id, id, sizeof(own->run_id));
	strlcpy(own->history, redis_history(link), sizeof(own->history));

	if (redis_version(link) != 0 && redis_version(link) < OLDEST_VERSION)
		ereport(LOG,
				(errmsg("Redis at %s is older than version 6.2, the oldest that pg_uncache supports",
						node->name)));
	tell_withheld(node);
	if (own->links > 1)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.reconnects, 1);

	node->link = link;
	own->was_ready = true;
	own->proven = false;
	own->of_use = false;
	own->ready_at = now;
	node_ping_begin(node, now);
	/* Nobody shall wait for one that is likely to be lost at once. */
	node_ping_set_slow(node, own->flaps ? Max(setting_wait_timeout, 1) : 0);
}

/* Look whether the link has proven itself. */
static void
prove_link(RedisNode *node, TimestampTz now)
{
	NodePrivate *own = node->own;

	if (!own->of_use && !TimestampDifferenceExceeds(own->ready_at, now, PING_MS))
		return;

	if (node->is_down)
		ereport(LOG,
				(errmsg("connected to Redis at %s again after %ld s",
						node->name, (long) ((now - own->down_since) / USECS_PER_SEC))));
	if (own->flaps)
		node_ping_set_slow(node, 0);
	own->proven = true;
	own->flaps = false;
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

	answering = node;
	state = link_set_turn(&own->waited);
	if (state == REDIS_READY)
		node_scan_turn(node);
	answering = NULL;

	now = clock_now();
	if (state == REDIS_FAILED || own->trouble[0] != '\0')
		node_fail(node, own->trouble[0] ? own->trouble : redis_error(own->waited.link));
	else if (state == REDIS_READY && !own->was_ready)
	{
		note_ready(node, now);
		own->event = NODE_MADE;
	}
	else if (state == REDIS_READY)
	{
		if (!own->proven)
			prove_link(node, now);
		node_ping_if_due(node, now);
	}
}

bool
node_is_on_probation(const RedisNode *node)
{
	return node->own->flaps;
}

void
node_turn(RedisNode *node)
{
	if (node->own->waited.link != NULL)
		turn_link(node);
	node->event = node->own->event;
	node->own->event = NODE_SAME;
}

void
node_flush_all(void)
{
	for (int i = 0; i < nnodes; i++)
	{
		if (nodes[i]->link != NULL)
		{
			redis_flush(nodes[i]->link);
			node_scan_flush(nodes[i]);
		}
	}
}

TimestampTz
node_deadline(const RedisNode *node)
{
	const NodePrivate *own = node->own;
	TimestampTz deadline;

	if (own->waited.link == NULL)
		return own->retry.until;
	deadline = Min(redis_deadline(own->waited.link), node_scan_deadline(node));
	if (own->was_ready && !own->ping_under_way)
		deadline = Min(deadline, own->ping_at);
	return deadline;
}
