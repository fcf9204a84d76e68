/*
 * cluster_nodes.c
 *	  The masters of a Redis Cluster that is a target.
 *
 * Used by target.c alone.
 *
 * Model: there is a member for each master of the map that cluster_watch.c has read last.
 * A node that the map does not name, but a redirection does, is kept a while: it may be
 * the one to which hash slots are being moved.
 *
 * Failure: node_link.c logs that a node can't be reached.  This file logs that a cluster
 * tells no map, or lacks a master for some slots.  While a member is down the map is asked
 * for often, since a replica may take its place.
 *
 * Limits: NODES_MAX nodes in all; those beyond are not served, which shows as slots
 * without a node.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/log_throttle.h"
#include "topology/topology_int.h"

/* How long a node is kept that only a redirection has named. */
#define REDIRECTED_MS	(30 * 1000)

/* Between questions for the map while it names a node that can't be reached. */
#define ASK_WHILE_DOWN_MS	500

typedef struct Member
{
	RedisNode  *node;
	RedisTarget address;		/* hosts[0].name points to "host" */
	char		host[CLUSTER_MAX_HOST + 1];
	bool		mapped;			/* the map names it */
	TimestampTz wanted_until;	/* unless mapped: when it is forgotten */
} Member;

struct ClusterNodes
{
	struct Target *owner;
	const RedisTarget *url;
	char		name[128];		/* its address without secrets */
	ClusterWatch *watch;
	Member	   *members[NODES_MAX];
	int			nmembers;
	RedisNode  *by_slot[CLUSTER_SLOTS]; /* NULL: no node is known */
	bool		has_gaps;		/* slots without a node */
	bool		is_down;		/* has no map, or gaps, and that was logged */
	LogThrottle throttle;
	TimestampTz ask_at;
	TimestampTz forget_at;		/* the next look for members to forget */
};

ClusterNodes *
cluster_nodes_make(struct Target *owner, const RedisTarget *url)
{
	ClusterNodes *cluster = MemoryContextAllocZero(TopMemoryContext, sizeof(ClusterNodes));

	cluster->owner = owner;
	cluster->url = url;
	redis_url_public(url, cluster->name, sizeof(cluster->name));
	cluster->watch = cluster_watch_make(url);
	return cluster;
}

/* First clear its slots: the keys that are lost with the link are looked up in by_slot. */
static void
free_member(ClusterNodes *cluster, Member *member)
{
	Assert(member->node->in_cluster && member->node->target == cluster->owner);
	for (int slot = 0; slot < CLUSTER_SLOTS; slot++)
	{
		if (cluster->by_slot[slot] == member->node)
			cluster->by_slot[slot] = NULL;
	}
	node_free(member->node);
	pfree(member);
}

void
cluster_nodes_free(ClusterNodes *cluster)
{
	while (cluster->nmembers > 0)
		free_member(cluster, cluster->members[--cluster->nmembers]);
	cluster_watch_free(cluster->watch);
	pfree(cluster);
}

int
cluster_nodes_count(const ClusterNodes *cluster)
{
	return cluster->nmembers;
}

/*
 * --------------------------------------------------------------------------
 * The members of a cluster
 * --------------------------------------------------------------------------
 */

static Member *
find_member(const ClusterNodes *cluster, const char *host, int port)
{
	for (int m = 0; m < cluster->nmembers; m++)
	{
		Member	   *member = cluster->members[m];

		if (member->address.hosts[0].port == port && strcmp(member->host, host) == 0)
			return member;
	}
	return NULL;
}

static Member *
find_or_make_member(ClusterNodes *cluster, const char *host, int port)
{
	Member	   *member = find_member(cluster, host, port);
	RedisNode  *node;

	if (member)
		return member;
	node = node_make(true);
	if (node == NULL)
		return NULL;

	member = MemoryContextAllocZero(TopMemoryContext, sizeof(Member));
	member->node = node;
	node->target = cluster->owner;
	node->cluster = cluster->name;
	strlcpy(member->host, host, sizeof(member->host));
	member->address = *cluster->url;
	member->address.scheme = REDIS_PLAIN;
	member->address.nhosts = 1;
	member->address.hosts[0].name = member->host;
	member->address.hosts[0].port = port;
	redis_url_public(&member->address, node->name, sizeof(node->name));
	Assert(cluster->nmembers < NODES_MAX);
	cluster->members[cluster->nmembers++] = member;
	return member;
}

/* Close the nodes that no map and no redirection has named for a while. */
static void
forget_members(ClusterNodes *cluster, TimestampTz now)
{
	for (int m = 0; m < cluster->nmembers;)
	{
		Member	   *member = cluster->members[m];

		if (member->mapped || member->wanted_until > now)
			m++;
		else
		{
			if (member->node->is_down)
				ereport(LOG,
						(errmsg("Redis at %s is no master of its Redis Cluster any more",
								member->node->name)));
			cluster->members[m] = cluster->members[--cluster->nmembers];
			free_member(cluster, member);
		}
	}
}

/* Whether the map names this node as a master. */
static bool
is_mapped(const ClusterNodes *cluster, const RedisNode *node)
{
	for (int m = 0; m < cluster->nmembers; m++)
	{
		if (cluster->members[m]->node == node)
			return cluster->members[m]->mapped;
	}
	return false;
}

/*
 * Give the slots to the nodes of the map; by_number[] is in its order.  A node that gets a
 * slot needs the rows again that wait for keys of this slot; and if the slot comes from a
 * master that is gone, also the rows that were delivered to that master last.
 */
static void
assign_slots(ClusterNodes *cluster, RedisNode *const *by_number)
{
	const ClusterMap *map = cluster_watch_map(cluster->watch);

	cluster->has_gaps = false;
	for (int slot = 0; slot < CLUSTER_SLOTS; slot++)
	{
		int			number = cluster_map_node(map, slot);
		RedisNode  *before = cluster->by_slot[slot];
		RedisNode  *node = number >= 0 && number < NODES_MAX ? by_number[number] : NULL;

		cluster->by_slot[slot] = node;
		if (node == NULL)
			cluster->has_gaps = true;
		else if (node != before)
		{
			node->needs_resend = true;
			node->took_over |= before == NULL || !is_mapped(cluster, before);
		}
	}
}

static void
use_map(ClusterNodes *cluster, TimestampTz now)
{
	const ClusterMap *map = cluster_watch_map(cluster->watch);
	RedisNode  *by_number[NODES_MAX];

	Assert(map != NULL);
	for (int m = 0; m < cluster->nmembers; m++)
		cluster->members[m]->mapped = false;
	for (int n = 0; n < Min(cluster_map_nodes(map), NODES_MAX); n++)
	{
		Member	   *member = find_member(cluster, cluster_map_host(map, n),
										 cluster_map_port(map, n));

		if (member)
			member->mapped = true;
	}
	forget_members(cluster, now);
	for (int n = 0; n < Min(cluster_map_nodes(map), NODES_MAX); n++)
	{
		Member	   *member = find_or_make_member(cluster, cluster_map_host(map, n),
												 cluster_map_port(map, n));

		by_number[n] = member ? member->node : NULL;
		if (member)
			member->mapped = true;
	}
	assign_slots(cluster, by_number);
}

/*
 * --------------------------------------------------------------------------
 * A cluster
 * --------------------------------------------------------------------------
 */

/* Why all or some of its keys are not delivered, or NULL. */
static const char *
cluster_problem(const ClusterNodes *cluster)
{
	if (cluster_watch_map(cluster->watch) == NULL)
		return cluster_watch_error(cluster->watch)[0] ? cluster_watch_error(cluster->watch) : NULL;
	return cluster->has_gaps ? "no node serves some of the slots" : NULL;
}

/* Log it, and tell uncache.stat, as node_link.c does for a node. */
static void
tell_problem(ClusterNodes *cluster, TimestampTz now)
{
	const char *problem = cluster_problem(cluster);
	char		text[256];

	if (problem == NULL && !cluster->is_down)
		return;
	if (problem == NULL)
	{
		if (cluster_watch_map(cluster->watch) == NULL)
			return;				/* still asking */
		cluster->is_down = false;
		ereport(LOG, (errmsg("the Redis Cluster at %s can be used again", cluster->name)));
	}
	else
	{
		if (!cluster->is_down)
			log_throttle_reset(&cluster->throttle);
		cluster->is_down = true;
		if (!log_throttle_passes(&cluster->throttle, problem, now, LOG_THROTTLE_MS))
			return;
		ereport(LOG,
				(errmsg("the Redis Cluster at %s cannot be used: %s", cluster->name, problem),
				 errdetail("The outbox keeps what is to be deleted until it can.")));
		snprintf(text, sizeof(text), "%s: %s", cluster->name, problem);
		shmem_note_error(MyDatabaseState, text);
	}
}

/* A replica may take the place of a master that is down. */
static void
ask_while_down(ClusterNodes *cluster, TimestampTz now)
{
	bool		down = cluster->has_gaps;

	for (int m = 0; m < cluster->nmembers; m++)
		down |= cluster->members[m]->node->is_down;
	if (!down || now < cluster->ask_at)
		return;
	cluster->ask_at = TimestampTzPlusMilliseconds(now, ASK_WHILE_DOWN_MS);
	cluster_watch_ask(cluster->watch, true);
}

static void
turn_node(RedisNode *node, void *arg)
{
	ClusterNodes *cluster = arg;

	if (node->target != cluster->owner)
		return;
	node_turn(node);
	if (node->event == NODE_LOST)
		cluster_watch_ask(cluster->watch, true);
}

static void
turn_members(ClusterNodes *cluster, TimestampTz now)
{
	for (int m = 0; m < cluster->nmembers; m++)
	{
		Member	   *member = cluster->members[m];

		if (node_wants_link(member->node, now))
			node_connect(member->node, &member->address, 0);
		turn_node(member->node, cluster);
	}
}

bool
cluster_nodes_turn(ClusterNodes *cluster, TimestampTz now)
{
	bool		changed = cluster_watch_turn(cluster->watch, now);

	if (changed)
	{
		use_map(cluster, now);
		node_turn_fully();
	}
	tell_problem(cluster, now);
	if (node_turn_is_full())
		turn_members(cluster, now);
	else
		node_for_turn(turn_node, cluster);
	if (!node_turn_is_full())
		return false;
	ask_while_down(cluster, now);
	if (!changed && now >= cluster->forget_at)
	{
		cluster->forget_at = TimestampTzPlusMilliseconds(now, REDIRECTED_MS);
		forget_members(cluster, now);
	}
	return changed;
}

/*
 * --------------------------------------------------------------------------
 * Asking this file
 * --------------------------------------------------------------------------
 */

TimestampTz
cluster_nodes_deadline(const ClusterNodes *cluster)
{
	TimestampTz deadline = cluster_watch_deadline(cluster->watch);

	for (int m = 0; m < cluster->nmembers; m++)
		deadline = Min(deadline, node_deadline(cluster->members[m]->node));
	return deadline;
}

RedisNode *
cluster_nodes_node(const ClusterNodes *cluster, const char *key, size_t len, uint16 *slot)
{
	*slot = 0;
	if (cluster_watch_map(cluster->watch) == NULL)
		return NULL;
	*slot = cluster_map_slot(key, len);
	Assert(cluster->by_slot[*slot] == NULL || cluster->by_slot[*slot]->target == cluster->owner);
	return cluster->by_slot[*slot];
}

bool
cluster_nodes_are_connected(const ClusterNodes *cluster)
{
	for (int m = 0; m < cluster->nmembers; m++)
	{
		if (cluster->members[m]->mapped && cluster->members[m]->node->link == NULL)
			return false;
	}
	return cluster_watch_map(cluster->watch) != NULL && !cluster->has_gaps;
}

bool
cluster_nodes_are_down(const ClusterNodes *cluster)
{
	for (int m = 0; m < cluster->nmembers; m++)
	{
		Member	   *member = cluster->members[m];

		if (member->mapped && member->node->link == NULL && member->node->is_down)
			return true;
	}
	return cluster->is_down;
}

RedisNode *
cluster_nodes_take_in(ClusterNodes *cluster, const char *host, int port)
{
	Member	   *member = find_or_make_member(cluster, host, port);

	if (member == NULL)
		return NULL;
	member->wanted_until = TimestampTzPlusMilliseconds(clock_now(), REDIRECTED_MS);
	return member->node;
}

RedisNode *
cluster_nodes_redirect(ClusterNodes *cluster, const RedisReply *reply, bool *asking)
{
	uint16		slot;
	char		host[CLUSTER_MAX_HOST + 1];
	int			port;
	ClusterRedirect redirect = cluster_map_redirect(reply, &slot, host, sizeof(host), &port);

	if (redirect == CLUSTER_NO_REDIRECT)
		return NULL;
	if (redirect == CLUSTER_MOVED)
		cluster_watch_ask(cluster->watch, false);
	for (int m = 0; m < cluster->nmembers && host[0] == '\0'; m++)
	{
		if (cluster->members[m]->node == node_answering())
			strlcpy(host, cluster->members[m]->host, sizeof(host));
	}
	*asking = redirect == CLUSTER_ASK;
	return cluster_nodes_take_in(cluster, host, port);
}
