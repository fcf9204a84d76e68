/*
 * target.c
 *	  One address in uncache.redis_url, and the nodes behind it.
 *
 * Model: a plain server is a target with one node.  So is what Sentinel watches:
 * its node's address is asked of sentinel.c before each connect.  A cluster has a
 * member for each master of the map that slotwatch.c has heard last.  A master that
 * the map does not name, but a redirection does, is kept a while: it may be the one
 * to which slots are being moved.
 *
 * Failure: a node that can't be reached is node.c's affair.  That a cluster tells
 * no map, or lacks a master for some slots, is noted here.  While a member is down
 * the map is asked for often, since a replica may take its place.
 *
 * Limits: NODES_MAX nodes in all; those beyond are not served, which shows as slots
 * without a node.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cluster.h"
#include "sentinel.h"
#include "slotwatch.h"
#include "target.h"

/* How long a node is kept that only a redirection has named. */
#define REDIRECTED_MS	(30 * 1000)

/* The map is asked for so often while it shows a node that can't be reached. */
#define ASK_WHILE_DOWN_MS	500

/* The log hears again of a cluster that can't be used. */
#define SUMMARY_MS		(60 * 1000)

typedef struct Member
{
	RedisNode	   *node;
	RedisTarget address;		/* hosts[0].name points to "host" */
	char		host[CLUSTER_MAX_HOST + 1];
	bool		mapped;			/* the map names it */
	TimestampTz wanted_until;	/* otherwise */
} Member;

struct Target
{
	RedisTarget *url;
	Sentinel   *sentinel;		/* NULL unless the address is of Sentinels */
	bool		had_link;		/* to the master that Sentinel has named */
	RedisNode	   *only;			/* NULL in a cluster */

	/* Of a cluster. */
	SlotWatch  *watch;
	Member	   *members[NODES_MAX];
	int			nmembers;
	RedisNode	   *by_number[NODES_MAX];	/* by number in the map */
	bool		has_gaps;		/* slots without a node */
	bool		is_down;		/* has no map, or gaps, and the log knows it */
	TimestampTz summary_at;
	TimestampTz ask_at;
	TimestampTz forget_at;		/* what redirections have named */
};

static Target *targets[TARGETS_MAX];
static int	ntargets = 0;

int
target_count(void)
{
	return ntargets;
}

Target *
target_at(int i)
{
	return targets[i];
}

void
target_add(RedisTarget *url)
{
	Target	   *target;

	if (ntargets == TARGETS_MAX)
	{
		redisurl_free(url);
		return;
	}
	target = MemoryContextAllocZero(TopMemoryContext, sizeof(Target));
	target->url = url;
	if (url->scheme == REDIS_CLUSTER)
		target->watch = slotwatch_make(url);
	else
	{
		target->only = node_make(false);
		target->only->target = target;
		redisurl_public(url, target->only->name, sizeof(target->only->name));
	}
	if (url->scheme == REDIS_SENTINEL)
		target->sentinel = sentinel_make(url);
	targets[ntargets++] = target;
}

static void
free_member(Member *member)
{
	node_free(member->node);
	pfree(member);
}

void
target_forget_all(void)
{
	for (int i = 0; i < ntargets; i++)
	{
		Target	   *target = targets[i];

		if (target->only)
			node_free(target->only);
		for (int m = 0; m < target->nmembers; m++)
			free_member(target->members[m]);
		if (target->sentinel)
			sentinel_free(target->sentinel);
		if (target->watch)
			slotwatch_free(target->watch);
		redisurl_free(target->url);
		pfree(target);
	}
	ntargets = 0;
}

/*
 * --------------------------------------------------------------------------
 * A single server
 * --------------------------------------------------------------------------
 */

/* The server to connect to, or NULL: Sentinel has not said yet. */
static const RedisTarget *
find_server(Target *target)
{
	Sentinel   *sentinel = target->sentinel;
	SentinelState state;
	bool		moved;

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
	RedisNode	   *node = target->only;

	if (target->sentinel)
		turn_sentinel(target);
	if (node_wants_link(node, now))
	{
		const RedisTarget *server = find_server(target);

		if (server)
		{
			redisurl_public(server, node->name, sizeof(node->name));
			node_connect(node, server, 0);
		}
	}
	node_turn(node);

	/* After a loss it has to be asked anew. */
	if (target->sentinel && target->had_link && !node_has_link(node))
	{
		sentinel_forget(target->sentinel);
		redisurl_public(target->url, node->name, sizeof(node->name));
	}
	target->had_link = node_has_link(node);
}

/*
 * --------------------------------------------------------------------------
 * The members of a cluster
 * --------------------------------------------------------------------------
 */

static Member *
find_member(const Target *target, const char *host, int port)
{
	for (int m = 0; m < target->nmembers; m++)
	{
		Member	   *member = target->members[m];

		if (member->address.hosts[0].port == port && strcmp(member->host, host) == 0)
			return member;
	}
	return NULL;
}

static Member *
find_or_make_member(Target *target, const char *host, int port)
{
	Member	   *member = find_member(target, host, port);
	RedisNode	   *node;

	if (member)
		return member;
	node = node_make(true);
	if (node == NULL)
		return NULL;

	member = MemoryContextAllocZero(TopMemoryContext, sizeof(Member));
	member->node = node;
	node->target = target;
	strlcpy(member->host, host, sizeof(member->host));
	member->address = *target->url;
	member->address.scheme = REDIS_PLAIN;
	member->address.nhosts = 1;
	member->address.hosts[0].name = member->host;
	member->address.hosts[0].port = port;
	redisurl_public(&member->address, node->name, sizeof(node->name));
	target->members[target->nmembers++] = member;
	return member;
}

/* Close what no map and no redirection has named for a while. */
static void
forget_members(Target *target, TimestampTz now)
{
	for (int m = 0; m < target->nmembers;)
	{
		Member	   *member = target->members[m];

		if (member->mapped || member->wanted_until > now)
			m++;
		else
		{
			if (member->node->is_down)
				ereport(LOG,
						(errmsg("Redis at %s is no master of its Redis Cluster any more",
								member->node->name)));
			target->members[m] = target->members[--target->nmembers];
			free_member(member);
		}
	}
}

static bool
has_gaps(const Target *target, const ClusterMap *map)
{
	for (int slot = 0; slot < CLUSTER_SLOTS; slot++)
	{
		int			number = cluster_map_node(map, slot);

		if (number < 0 || target->by_number[number] == NULL)
			return true;
	}
	return false;
}

static void
use_map(Target *target, TimestampTz now)
{
	const ClusterMap *map = slotwatch_map(target->watch);

	for (int m = 0; m < target->nmembers; m++)
		target->members[m]->mapped = false;
	for (int n = 0; n < Min(cluster_map_nodes(map), NODES_MAX); n++)
	{
		Member	   *member = find_member(target, cluster_map_host(map, n), cluster_map_port(map, n));

		if (member)
			member->mapped = true;
	}
	forget_members(target, now);
	for (int n = 0; n < Min(cluster_map_nodes(map), NODES_MAX); n++)
	{
		Member	   *member = find_or_make_member(target, cluster_map_host(map, n),
												 cluster_map_port(map, n));

		target->by_number[n] = member ? member->node : NULL;
		if (member)
			member->mapped = true;
	}
	target->has_gaps = has_gaps(target, map);
}

/*
 * --------------------------------------------------------------------------
 * A cluster
 * --------------------------------------------------------------------------
 */

/* What keeps all or some of its keys from being delivered, or NULL. */
static const char *
cluster_problem(const Target *target)
{
	if (slotwatch_map(target->watch) == NULL)
		return slotwatch_error(target->watch)[0] ? slotwatch_error(target->watch) : NULL;
	return target->has_gaps ? "no node serves some of the slots" : NULL;
}

/* Tell the log, and uncache.stat, as node.c does for a node. */
static void
tell_problem(Target *target, TimestampTz now)
{
	const char *problem = cluster_problem(target);
	char		name[128];
	char		text[256];

	if (problem == NULL && !target->is_down)
		return;
	redisurl_public(target->url, name, sizeof(name));
	if (problem == NULL)
	{
		if (slotwatch_map(target->watch) == NULL)
			return;				/* asking */
		target->is_down = false;
		ereport(LOG, (errmsg("the Redis Cluster at %s can be used again", name)));
	}
	else if (!target->is_down || now >= target->summary_at)
	{
		target->is_down = true;
		target->summary_at = TimestampTzPlusMilliseconds(now, SUMMARY_MS);
		ereport(LOG,
				(errmsg("the Redis Cluster at %s can't be used: %s", name, problem),
				 errdetail("The outbox keeps what is to be deleted until it can.")));
		snprintf(text, sizeof(text), "%s: %s", name, problem);
		shmem_note_error(shmem_my_slot(), text);
	}
}

/* A replica may take the place of a master that is down. */
static void
ask_while_down(Target *target, TimestampTz now)
{
	bool		down = target->has_gaps;

	for (int m = 0; m < target->nmembers; m++)
		down |= target->members[m]->node->is_down;
	if (!down || now < target->ask_at)
		return;
	target->ask_at = TimestampTzPlusMilliseconds(now, ASK_WHILE_DOWN_MS);
	slotwatch_ask(target->watch);
}

static bool
turn_cluster(Target *target, TimestampTz now)
{
	bool		changed = slotwatch_turn(target->watch, now);

	if (changed)
		use_map(target, now);
	tell_problem(target, now);
	for (int m = 0; m < target->nmembers; m++)
	{
		Member	   *member = target->members[m];

		if (node_wants_link(member->node, now))
			node_connect(member->node, &member->address, 0);
		node_turn(member->node);
		if (member->node->event == NODE_LOST)
			slotwatch_ask(target->watch);
	}
	ask_while_down(target, now);
	if (!changed && now >= target->forget_at)
	{
		target->forget_at = TimestampTzPlusMilliseconds(now, REDIRECTED_MS);
		forget_members(target, now);
	}
	return changed;
}

/*
 * --------------------------------------------------------------------------
 * Both
 * --------------------------------------------------------------------------
 */

bool
target_turn(Target *target, TimestampTz now)
{
	if (target->watch)
		return turn_cluster(target, now);
	turn_single(target, now);
	return false;
}

TimestampTz
target_deadline(const Target *target)
{
	TimestampTz deadline = DT_NOEND;

	if (target->watch)
	{
		deadline = slotwatch_deadline(target->watch);
		for (int m = 0; m < target->nmembers; m++)
			deadline = Min(deadline, node_deadline(target->members[m]->node));
		return deadline;
	}
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
	const ClusterMap *map;
	int			number;

	*slot = 0;
	if (target->only)
		return target->only;
	map = slotwatch_map(target->watch);
	if (map == NULL)
		return NULL;
	*slot = cluster_slot(key, len);
	number = cluster_map_node(map, *slot);
	return number >= 0 && number < NODES_MAX ? target->by_number[number] : NULL;
}

bool
target_is_whole(const Target *target)
{
	if (target->only)
		return target->only->link != NULL;
	for (int m = 0; m < target->nmembers; m++)
	{
		if (target->members[m]->mapped && target->members[m]->node->link == NULL)
			return false;
	}
	return slotwatch_map(target->watch) != NULL && !target->has_gaps;
}

bool
target_is_down(const Target *target)
{
	if (target->only)
		return target->only->link == NULL && target->only->is_down;
	for (int m = 0; m < target->nmembers; m++)
	{
		Member	   *member = target->members[m];

		if (member->mapped && member->node->link == NULL && member->node->is_down)
			return true;
	}
	return target->is_down;
}

RedisNode *
target_take_in(Target *target, const char *host, int port)
{
	Member	   *member = find_or_make_member(target, host, port);

	if (member == NULL)
		return NULL;
	member->wanted_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REDIRECTED_MS);
	return member->node;
}

RedisNode *
target_redirect(Target *target, const RedisReply *reply, bool *asking)
{
	uint16		slot;
	char		host[CLUSTER_MAX_HOST + 1];
	int			port;
	ClusterRedirect redirect;

	if (target->watch == NULL)
		return NULL;
	redirect = cluster_redirect(reply, &slot, host, sizeof(host), &port);
	if (redirect == CLUSTER_NO_REDIRECT)
		return NULL;
	if (redirect == CLUSTER_MOVED)
		slotwatch_ask(target->watch);
	for (int m = 0; m < target->nmembers && host[0] == '\0'; m++)
	{
		if (target->members[m]->node == node_answering())
			strlcpy(host, target->members[m]->host, sizeof(host));
	}
	*asking = redirect == CLUSTER_ASK;
	return target_take_in(target, host, port);
}

void
target_describe(const Target *target, StringInfo to)
{
	char		address[128];
	const RedisTarget *master = target->sentinel ? sentinel_master(target->sentinel) : NULL;

	redisurl_public(master ? master : target->url, address, sizeof(address));
	appendStringInfoString(to, address);
	if (target->watch && target->nmembers > 0)
		appendStringInfo(to, " (%d nodes)", target->nmembers);
}
