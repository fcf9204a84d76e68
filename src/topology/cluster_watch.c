/*
 * cluster_watch.c
 *	  Asks the nodes of a Redis Cluster which master serves which hash slot.
 *
 * Used by cluster_nodes.c alone.  Never waits (but where redis_open() does).
 *
 * Model: on a link of its own, to any node, master or replica, this file asks CLUSTER
 * SLOTS every WATCH_MS, and soon after an answer has shown that the map is wrong.
 * Candidates are the masters of the last map and the seeds of the address, in
 * turn; it asks the same node for MOVE_ON_MS, then the next one, so that a node
 * that was cut off from the others does not mislead it for ever.  When a master is
 * lost, or says that the cluster is down, it asks the next candidate at once.
 *
 * Failure: when a node fails, hangs or answers nonsense the next candidate is asked.
 * The map of before stays.  When all have failed in a row there is a pause.  A node that
 * tells a lower epoch than another one has told before has missed a failover, so it counts
 * as failed, too; unless all nodes of a round have told a lower one: then the cluster
 * was made anew.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/log_text.h"
#include "settings/settings_redis.h"
#include "topology/topology_int.h"

/* Between questions while the map seems right; and how long the same node is asked. */
#define WATCH_MS		5000
#define MOVE_ON_MS		(20 * 1000)

/* Between questions while the map seems wrong; and the pause after a round of failures. */
#define SOON_MS			100
#define PAUSE_MS		500

struct ClusterWatch
{
	const RedisTarget *target;
	ClusterMap *map;			/* NULL: none yet */
	bool		changed;		/* since the last turn */
	uint64		epoch;			/* of the cluster then; 0: not known */

	/* The node that is asked. */
	WaitedLink	waited;
	int			candidate;		/* masters of the map, then the seeds */
	int			failures;		/* in a row */
	char		host[CLUSTER_MAX_HOST + 1];
	int			port;
	TimestampTz move_on_at;

	bool		asking;			/* an answer is due */
	bool		told_withheld;	/* the log knows that CLUSTER INFO is refused */
	uint64		told_epoch;		/* of this node, told before the map; 0: it does not tell */
	bool		answered;		/* this link has told a map */
	bool		refused;		/* this link has told none, or one that is too old */
	TimestampTz asked_at;
	TimestampTz ask_at;
	char		error[256];
};

ClusterWatch *
cluster_watch_make(const RedisTarget *target)
{
	ClusterWatch *watch = MemoryContextAllocZero(TopMemoryContext, sizeof(ClusterWatch));

	Assert(target->scheme == REDIS_CLUSTER && target->nhosts > 0);
	watch->target = target;
	return watch;
}

static void
close_link(ClusterWatch *watch)
{
	RedisLink  *closing = link_set_remove(&watch->waited);

	if (closing != NULL)
		redis_close(closing);
	watch->asking = false;
}

void
cluster_watch_free(ClusterWatch *watch)
{
	close_link(watch);
	cluster_map_free(watch->map);
	pfree(watch);
}

const ClusterMap *
cluster_watch_map(const ClusterWatch *watch)
{
	return watch->map;
}

const char *
cluster_watch_error(const ClusterWatch *watch)
{
	return watch->error;
}

void
cluster_watch_ask(ClusterWatch *watch, bool elsewhere)
{
	/* A node that has not answered yet is kept, or a slow connect would never end. */
	if (elsewhere && watch->answered)
		watch->move_on_at = 0;
	watch->ask_at = Min(watch->ask_at,
						TimestampTzPlusMilliseconds(watch->asked_at, SOON_MS));
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */
static int	count_candidates(const ClusterWatch *watch);

static void
info_answered(void *arg, const RedisReply *reply)
{
	ClusterWatch *watch = arg;

	watch->told_epoch = reply ? cluster_map_epoch_read(reply) : 0;
	if (reply == NULL || redis_reply_type(reply) != REDIS_ERROR || watch->told_withheld)
		return;
	watch->told_withheld = true;
	ereport(LOG,
			(errmsg("Redis at %s:%d does not answer CLUSTER INFO, and is used without",
					watch->host, watch->port),
			 errdetail("The map of a master that is cut off from the others "
					   "is believed for up to %d s.",
					   MOVE_ON_MS / 1000)));
}

/* Whether this node has missed a failover that another one has told of before. */
static bool
is_behind(const ClusterWatch *watch)
{
	return watch->told_epoch != 0 && watch->told_epoch < watch->epoch &&
		watch->failures < count_candidates(watch);
}

static void
slots_answered(void *arg, const RedisReply *reply)
{
	ClusterWatch *watch = arg;
	ClusterMap *map;

	Assert(watch->asking);
	watch->asking = false;
	if (reply == NULL)
		return;					/* the link has failed */
	map = cluster_map_read(reply, watch->host);
	if (map == NULL)
	{
		snprintf(watch->error, sizeof(watch->error),
				 "Redis at %s:%d does not tell a map of slots: %s", watch->host, watch->port,
				 log_text_cut(redis_reply_text(reply, NULL), 100));
		watch->refused = true;
		return;
	}
	if (is_behind(watch))
	{
		watch->refused = true;
		cluster_map_free(map);
		return;
	}
	watch->epoch = watch->told_epoch;
	watch->answered = true;
	watch->failures = 0;
	watch->error[0] = '\0';
	/* An earlier time stays: the map was found to be wrong since the question was sent. */
	watch->ask_at = Min(watch->ask_at, TimestampTzPlusMilliseconds(watch->asked_at, WATCH_MS));
	if (watch->map != NULL && cluster_map_equal(watch->map, map))
	{
		cluster_map_free(map);
		return;
	}
	cluster_map_free(watch->map);
	watch->map = map;
	watch->changed = true;
}

static void
send_question(ClusterWatch *watch, TimestampTz now)
{
	const char *info[] = {"CLUSTER", "INFO"};
	const char *slots[] = {"CLUSTER", "SLOTS"};

	Assert(!watch->asking && watch->waited.link != NULL);
	watch->asked_at = now;
	watch->ask_at = DT_NOEND;
	watch->asking = redis_send_texts(watch->waited.link, 2, info, info_answered, watch) &&
		redis_send_texts(watch->waited.link, 2, slots, slots_answered, watch);
	redis_flush(watch->waited.link);
}

/* ------------------------------------------------------------------------
 * Choosing a node
 * ------------------------------------------------------------------------
 */
static int
count_candidates(const ClusterWatch *watch)
{
	return watch->target->nhosts + (watch->map ? cluster_map_nodes(watch->map) : 0);
}

static void
open_link(ClusterWatch *watch, TimestampTz now)
{
	RedisOptions options = settings_redis_options();
	RedisTarget one = *watch->target;
	int			known = watch->map ? cluster_map_nodes(watch->map) : 0;
	int			i = watch->candidate % count_candidates(watch);

	Assert(watch->waited.link == NULL && i < known + watch->target->nhosts);
	if (i < known)
	{
		strlcpy(watch->host, cluster_map_host(watch->map, i), sizeof(watch->host));
		watch->port = cluster_map_port(watch->map, i);
	}
	else
	{
		strlcpy(watch->host, watch->target->hosts[i - known].name, sizeof(watch->host));
		watch->port = watch->target->hosts[i - known].port;
	}
	one.nhosts = 1;
	one.hosts[0].name = watch->host;
	one.hosts[0].port = watch->port;

	watch->answered = false;
	watch->refused = false;
	watch->asked_at = now;
	watch->move_on_at = TimestampTzPlusMilliseconds(now, MOVE_ON_MS);
	link_set_add(&watch->waited, redis_open(&one, 0, &options));
}

/* This node has failed: ask the next one soon, or after a pause if all have failed. */
static void
leave_node(ClusterWatch *watch, TimestampTz now)
{
	Assert(watch->waited.link != NULL);
	close_link(watch);
	watch->candidate++;
	watch->failures++;
	watch->ask_at = TimestampTzPlusMilliseconds(now,
												watch->failures < count_candidates(watch) ?
												SOON_MS : PAUSE_MS);
}

static void
turn_link(ClusterWatch *watch, TimestampTz now)
{
	RedisLinkState state = link_set_turn(&watch->waited);

	if (state == REDIS_FAILED)
		strlcpy(watch->error, redis_error(watch->waited.link), sizeof(watch->error));
	if (state == REDIS_FAILED || watch->refused)
	{
		leave_node(watch, now);
		return;
	}
	if (state != REDIS_READY || watch->asking || now < watch->ask_at)
		return;
	if (now >= watch->move_on_at)
	{
		close_link(watch);
		watch->candidate++;
		open_link(watch, now);
	}
	else
		send_question(watch, now);
}

bool
cluster_watch_turn(ClusterWatch *watch, TimestampTz now)
{
	bool		changed;

	if (watch->waited.link == NULL && now >= watch->ask_at)
	{
		open_link(watch, now);
		if (watch->waited.link == NULL)
			watch->ask_at = TimestampTzPlusMilliseconds(now, PAUSE_MS);
	}
	if (watch->waited.link != NULL)
		turn_link(watch, now);

	changed = watch->changed;
	watch->changed = false;
	return changed;
}

TimestampTz
cluster_watch_deadline(const ClusterWatch *watch)
{
	TimestampTz deadline;

	if (watch->waited.link == NULL)
		return watch->ask_at;
	deadline = redis_deadline(watch->waited.link);
	if (redis_state(watch->waited.link) == REDIS_READY && !watch->asking)
		deadline = Min(deadline, watch->ask_at);
	return deadline;
}
