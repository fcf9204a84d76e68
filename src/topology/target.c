/*
 * target.c
 *	  One address in uncache.redis_url, and the nodes behind it.
 *
 * Model: a plain server is a target with one node.  So is the master that Sentinel
 * names: before each connect this file asks sentinel.c for its address.  The masters
 * of a cluster are in cluster_nodes.c.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "topology/target.h"
#include "topology/topology_int.h"

struct Target
{
	RedisTarget *url;
	Sentinel   *sentinel;		/* NULL unless the address is of Sentinels */
	bool		had_link;		/* to the master that Sentinel has named */
	RedisNode  *only;			/* NULL in a cluster */
	ClusterNodes *cluster;		/* NULL elsewhere */
};

static Target *targets[TARGETS_MAX];
static int	ntargets = 0;

#ifdef USE_ASSERT_CHECKING
/* A target has either one node or a cluster; only a single node can have Sentinels. */
static bool
is_sound(const Target *target)
{
	return (target->only != NULL) != (target->cluster != NULL) &&
		(target->sentinel == NULL || target->only != NULL);
}
#endif

const RedisTarget *
target_url(const Target *target)
{
	return target->url;
}

int
target_database(const Target *target)
{
	return target->url->db;
}

int
target_count(void)
{
	return ntargets;
}

Target *
target_at(int i)
{
	Assert(i >= 0 && i < ntargets);
	return targets[i];
}

void
target_add(RedisTarget *url)
{
	Target	   *target;

	if (ntargets == TARGETS_MAX)
	{
		redis_url_free(url);
		return;
	}
	target = MemoryContextAllocZero(TopMemoryContext, sizeof(Target));
	target->url = url;
	if (url->scheme == REDIS_CLUSTER)
		target->cluster = cluster_nodes_make(target, url);
	else
	{
		target->only = node_make(false);
		target->only->target = target;
		redis_url_public(url, target->only->name, sizeof(target->only->name));
	}
	if (url->scheme == REDIS_SENTINEL)
		target->sentinel = sentinel_make(url);
	Assert(is_sound(target));
	targets[ntargets++] = target;
}

void
target_forget_all(void)
{
	/* The keys under way on a link that is closed are looked up in the targets that are left. */
	while (ntargets > 0)
	{
		Target	   *target = targets[--ntargets];

		if (target->only)
			node_free(target->only);
		if (target->sentinel)
			sentinel_free(target->sentinel);
		if (target->cluster)
			cluster_nodes_free(target->cluster);
		redis_url_free(target->url);
		pfree(target);
	}
}

/*
 * --------------------------------------------------------------------------
 * A single server
 * --------------------------------------------------------------------------
 */

/* The server to connect to; NULL while no Sentinel has named one. */
static const RedisTarget *
find_server(Target *target)
{
	Sentinel   *sentinel = target->sentinel;
	SentinelState state;
	bool		moved;

	Assert(target->only != NULL && !node_has_link(target->only));
	if (sentinel == NULL)
		return target->url;
	state = sentinel_state(sentinel);
	if (state == SENTINEL_IDLE)
	{
		sentinel_ask(sentinel);
		state = sentinel_turn(sentinel, &moved);
	}
	if (state == SENTINEL_FAILED)
	{
		node_fail(target->only, sentinel_error(sentinel));
		sentinel_forget(sentinel);
	}
	return sentinel_master(sentinel);
}

static void
turn_sentinel(Target *target)
{
	bool		moved;

	sentinel_turn(target->sentinel, &moved);
	if (moved && node_has_link(target->only))
		node_fail(target->only, "Sentinel names another server as master");
}

static void
turn_single(Target *target, TimestampTz now)
{
	RedisNode  *node = target->only;

	Assert(node != NULL && target->cluster == NULL);
	if (target->sentinel)
		turn_sentinel(target);
	if (node_wants_link(node, now))
	{
		const RedisTarget *server = find_server(target);

		if (server)
		{
			redis_url_public(server, node->name, sizeof(node->name));
			node_connect(node, server, 0);
		}
	}
	node_turn(node);

	/* After a loss another server may be the master: ask the Sentinels anew. */
	if (target->sentinel && target->had_link && !node_has_link(node))
	{
		sentinel_forget(target->sentinel);
		redis_url_public(target->url, node->name, sizeof(node->name));
	}
	target->had_link = node_has_link(node);
}

/*
 * --------------------------------------------------------------------------
 * Both
 * --------------------------------------------------------------------------
 */

bool
target_turn(Target *target, TimestampTz now)
{
	Assert(is_sound(target));
	if (target->cluster)
		return cluster_nodes_turn(target->cluster, now);
	turn_single(target, now);
	return false;
}

TimestampTz
target_deadline(const Target *target)
{
	TimestampTz deadline = DT_NOEND;

	Assert(is_sound(target));
	if (target->cluster)
		return cluster_nodes_deadline(target->cluster);
	if (target->sentinel)
		deadline = sentinel_deadline(target->sentinel);
	if (target->sentinel == NULL || node_has_link(target->only) ||
		sentinel_state(target->sentinel) != SENTINEL_ASKING)
		deadline = Min(deadline, node_deadline(target->only));
	return deadline;
}

RedisNode *
target_node(const Target *target, const char *key, size_t len, uint16 *slot)
{
	Assert(is_sound(target));
	if (target->cluster)
		return cluster_nodes_node(target->cluster, key, len, slot);
	*slot = 0;
	return target->only;
}

bool
target_is_connected(const Target *target)
{
	Assert(is_sound(target));
	if (target->cluster)
		return cluster_nodes_are_connected(target->cluster);
	return target->only->link != NULL;
}

bool
target_is_down(const Target *target)
{
	Assert(is_sound(target));
	if (target->cluster)
		return cluster_nodes_are_down(target->cluster);
	return target->only->link == NULL && target->only->is_down;
}

RedisNode *
target_take_in(Target *target, const char *host, int port)
{
	return target->cluster ? cluster_nodes_take_in(target->cluster, host, port) : NULL;
}

RedisNode *
target_redirect(Target *target, const RedisReply *reply, bool *asking)
{
	return target->cluster ? cluster_nodes_redirect(target->cluster, reply, asking) : NULL;
}

void
target_describe(const Target *target, StringInfo to)
{
	char		address[128];
	const RedisTarget *master = target->sentinel ? sentinel_master(target->sentinel) : NULL;

	redis_url_public(master ? master : target->url, address, sizeof(address));
	appendStringInfoString(to, address);
	if (target->cluster && cluster_nodes_count(target->cluster) > 0)
		appendStringInfo(to, " (%d nodes)", cluster_nodes_count(target->cluster));
}
