/*
 * topology_int.h
 *	  What the files of this folder share.
 *
 * They call each other in this order, each those before it:
 *
 *		link_set.c, cluster_map.c
 *		node.c
 *		node_ping.c, node_scan.c
 *		node_link.c
 *		cluster_watch.c, sentinel.c
 *		cluster_nodes.c
 *		target.c
 *		cluster_migration.c, connections.c
 */
#ifndef UNCACHE_TOPOLOGY_INT_H
#define UNCACHE_TOPOLOGY_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "base/backoff.h"
#include "base/log_throttle.h"
#include "redis/redis.h"
#include "redis/redis_url.h"
#include "topology/cluster_map.h"
#include "topology/link_set.h"
#include "topology/node.h"

/*
 * --------------------------------------------------------------------------
 * A node: node.c, node_ping.c, node_scan.c, node_link.c
 * --------------------------------------------------------------------------
 */

/* Often enough to notice a hang, and still less than two wake-ups a second (node_ping.c). */
#define PING_MS				1200

/* The link for SCAN (node_scan.c). */
typedef struct NodeScanLink
{
	WaitedLink	waited;
	bool		wanted;			/* else to be closed at the next turn */
	bool		ready;			/* commands are accepted */
	Backoff		retry;			/* without a link: not to be opened before its end */
	LogThrottle throttle;		/* of messages that it can't be opened */
} NodeScanLink;

typedef struct NodePrivate
{
	WaitedLink	waited;			/* its link, ready or not; RedisNode.link once it is ready */
	NodeScanLink scan;
	bool		is_touched;		/* in the list of node_touch(), by the next field */
	dlist_node	touched_node;

	/* Where the link was opened to; NULL without one.  It stays as long as the link. */
	const RedisTarget *server;
	int			server_host;

	NodeEvent	event;			/* for the next turn to tell */
	char		trouble[256];	/* why the link should be given up, or empty */
	bool		of_cluster;		/* it is the trouble of its cluster, not its own */

	/* Of a link that is ready. */
	bool		carried_out;	/* it has carried out a command */
	bool		worked;			/* that, or it has lasted for PING_MS */
	TimestampTz ready_at;

	bool		on_probation;	/* the last link failed before it worked, and this one has not */
	uint64		links;			/* ever opened */
	bool		told_withheld;	/* the log knows which commands the server does not answer */

	Backoff		retry;			/* without a link: opened at its end */

	/* While is_down. */
	TimestampTz down_since;
	uint64		attempts;
	LogThrottle throttle;

	/* Of the server of the last link. */
	char		run_id[64];
	char		history[64];

	TimestampTz ping_at;
	TimestampTz ping_sent_at;
	bool		ping_under_way;
	bool		tells_role;		/* asked with each ping whether it is still a master */
	const char **ping_argv;		/* NULL: a PING */
	int			ping_argc;
	RedisAnswer ping_answer;
	RedisAnswer due_answer;		/* of the ping under way; node_set_ping() may change the next */
} NodePrivate;

/* Whether this is the only node; see node_set_single(). */
extern bool node_is_single(void);

/* Set last_error alone; node_note_error() logs, too. */
extern void node_show_error(const RedisNode *node, const char *error);

/* Forget a node that has no link any more. */
extern void node_remove(RedisNode *node);

/* As node_link.c does with the first link. */
extern void node_scan_turn(RedisNode *node);
extern void node_scan_close(RedisNode *node);
extern TimestampTz node_scan_deadline(const RedisNode *node);

/* There is a link, and it has not been pinged yet. */
extern void node_ping_begin(RedisNode *node, TimestampTz now);
extern void node_ping_if_due(RedisNode *node, TimestampTz now);

/*
 * The node is slow: the wait_timeout in ms that has expired because of it; 0: it is not.
 * For a single node that is DatabaseState.breaker, else RedisNode.slow_after_ms.
 */
extern void node_ping_set_slow(RedisNode *node, uint32 ms);

/*
 * --------------------------------------------------------------------------
 * cluster_watch.c: asking a cluster's nodes which master serves which slot
 * --------------------------------------------------------------------------
 */

typedef struct ClusterWatch ClusterWatch;

/* For the seeds of a target, which must stay until cluster_watch_free(). */
extern ClusterWatch *cluster_watch_make(const RedisTarget *target);
extern void cluster_watch_free(ClusterWatch *watch);

/*
 * Do what can be done without waiting.  Returns true when the map is another one
 * than before (at first: when there is one).
 */
extern bool cluster_watch_turn(ClusterWatch *watch, TimestampTz now);

/* The map that was read last, valid until a turn returns true again; NULL: none yet. */
extern const ClusterMap *cluster_watch_map(const ClusterWatch *watch);

/*
 * The map may be wrong: ask soon.  "elsewhere": another node, since the one that
 * was asked may be cut off from the others.
 */
extern void cluster_watch_ask(ClusterWatch *watch, bool elsewhere);

/* Why the node that was asked last has told no map; empty if it has. */
extern const char *cluster_watch_error(const ClusterWatch *watch);

/* When to be called again. */
extern TimestampTz cluster_watch_deadline(const ClusterWatch *watch);

/*
 * --------------------------------------------------------------------------
 * sentinel.c: asking Sentinels which server is the master
 * --------------------------------------------------------------------------
 */

typedef struct Sentinel Sentinel;

typedef enum SentinelState
{
	SENTINEL_IDLE,				/* no master is known: sentinel_ask() */
	SENTINEL_ASKING,
	SENTINEL_KNOWN,				/* sentinel_master(); asked again now and then */
	SENTINEL_FAILED,			/* none could tell: sentinel_error() */
} SentinelState;

/* For the Sentinels of a target, which must stay until sentinel_free(). */
extern Sentinel *sentinel_make(const RedisTarget *target);
extern void sentinel_free(Sentinel *sentinel);

/* Ask each Sentinel in turn, at most once, until one names the master. */
extern void sentinel_ask(Sentinel *sentinel);

/* Forget the master, since another server may be it by now. */
extern void sentinel_forget(Sentinel *sentinel);

/*
 * Do what can be done without waiting.  *moved is set when the master that was
 * known is not the master any more: sentinel_master() is the new one then.
 */
extern SentinelState sentinel_turn(Sentinel *sentinel, bool *moved);

/* The state after the last turn. */
extern SentinelState sentinel_state(const Sentinel *sentinel);

/* The master, as a target of its own, valid until the next turn; NULL unless known. */
extern const RedisTarget *sentinel_master(const Sentinel *sentinel);

/* Why the last Sentinel that could not name the master could not. */
extern const char *sentinel_error(const Sentinel *sentinel);

/* When to be called again; DT_NOEND: when a socket of the link has something. */
extern TimestampTz sentinel_deadline(const Sentinel *sentinel);

/*
 * --------------------------------------------------------------------------
 * cluster_nodes.c: the masters of a cluster.  target.h says more of each function.
 * --------------------------------------------------------------------------
 */

typedef struct ClusterNodes ClusterNodes;

/* The URL must stay until cluster_nodes_free(). */
extern ClusterNodes *cluster_nodes_make(struct Target *owner, const RedisTarget *url);
extern void cluster_nodes_free(ClusterNodes *cluster);

/* Find out which nodes there are, and turn all of them; true: the map has changed. */
extern bool cluster_nodes_turn(ClusterNodes *cluster, TimestampTz now);
extern TimestampTz cluster_nodes_deadline(const ClusterNodes *cluster);

/* The node of a key; whether all nodes are connected, some has failed; how many there are. */
extern RedisNode *cluster_nodes_node(const ClusterNodes *cluster, const char *key, size_t len,
									 uint16 *slot);
extern bool cluster_nodes_are_connected(const ClusterNodes *cluster);
extern bool cluster_nodes_are_down(const ClusterNodes *cluster);
extern int	cluster_nodes_count(const ClusterNodes *cluster);

/* A node that the map need not name; NULL where there is no room for it. */
extern RedisNode *cluster_nodes_take_in(ClusterNodes *cluster, const char *host, int port);
extern RedisNode *cluster_nodes_redirect(ClusterNodes *cluster, const RedisReply *reply,
										 bool *asking);

#endif							/* UNCACHE_TOPOLOGY_INT_H */
