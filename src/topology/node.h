/*
 * node.h
 *	  One Redis server that keys are delivered to: its link, opened, lost, tried again.
 *
 * A plain Redis is one node; so is the master that Sentinel names; a Redis Cluster
 * has one for each master.
 */
#ifndef UNCACHE_NODE_H
#define UNCACHE_NODE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis/redis.h"
#include "shmem/shmem.h"

/* Of all targets together: a Redis Cluster has at most 1000.  Some loops walk over all. */
#define NODES_MAX	2048

typedef enum NodeEvent
{
	NODE_SAME,
	NODE_MADE,					/* there is a link now */
	NODE_LOST,					/* there was one before this turn; its commands are answered */
} NodeEvent;

typedef struct RedisNode
{
	/* Written by node_link.c; NULL unless commands are accepted. */
	RedisLink  *link;

	/* What the last turn has brought about. */
	NodeEvent	event;

	/* Of this link: another server, or started anew, since the last one. */
	bool		new_server;

	/*
	 * Written by fence.c: keys may be sent, since it is known by which command. node_link.c
	 * clears it with the link.
	 */
	bool		open;
	bool		was_open;		/* reconnect.c: at its last look */

	/*
	 * Used where there are several nodes.  0, or the wait_timeout in ms that has expired because
	 * of this node: then no session waits for the node until it answers a ping in half that
	 * time.  connections.c sets it, node_ping.c clears it.
	 */
	uint32		slow_after_ms;

	/* Written by delivery/: rows delivered before have to be sent to this node again. */
	bool		needs_resend;
	bool		resend_in_progress;

	/* cluster_nodes.c, for reconnect.c: it has slots of a master that is gone. */
	bool		took_over;

	struct Target *target;		/* target.c: the target that it belongs to */
	const char *cluster;		/* cluster_nodes.c: the cluster's address, or NULL */
	bool		in_cluster;		/* a command's keys must be of one slot */
	bool		is_down;		/* has failed, and no link has worked since */
	char		name[128];		/* target.c, cluster_nodes.c: its address without secrets */

	/* What other files remember of the node, made in its context, or NULL. */
	MemoryContext context;
	struct Fence *fence;
	struct NodeBatches *batches;
	struct NodeScan *scan;
	struct NodeWalk *walk;
	struct NodeReplicas *replicas;

	struct NodePrivate *own;
} RedisNode;

/* All nodes; the order means nothing, and changes only when one is freed. */
extern int	node_count(void);
extern RedisNode *node_at(int i);

/* Whether there is one for which is() is true; whether there is an open one. */
extern bool node_any(bool (*is) (const RedisNode *node));
extern bool node_any_open(void);

/*
 * A turn of the worker is full, or touches only some nodes: those whose sockets have something,
 * and those that are given something to send.  connections.c begins a turn, full where there is
 * one node.  node_turn_fully() makes the rest of this turn and the next one full: something has
 * changed that is looked for at all nodes.
 */
extern void node_begin_turn(bool full);
extern void node_turn_fully(void);
extern bool node_turn_is_full(void);
extern bool node_next_turn_is_full(void);

/* Touch a node in this turn, or in the next one; forget which were touched, before that one. */
extern void node_touch(RedisNode *node);
extern void node_forget_touched(void);

/* Call for all nodes in a full turn, else for those that are touched, and will be meanwhile. */
extern void node_for_turn(void (*each) (RedisNode *node, void *arg), void *arg);

/* NULL where there are NODES_MAX already. */
extern RedisNode *node_make(bool in_cluster);
extern void node_free(RedisNode *node);

/*
 * Whether there is only one node: then a session whose wait has timed out keeps all
 * others from waiting by itself (DatabaseState.breaker).
 */
extern void node_set_single(bool single);

/*
 * Whether there is a link, ready or not; whether there is none and it is time to
 * connect; connect, to target->hosts[host].
 */
extern bool node_has_link(const RedisNode *node);
extern bool node_wants_link(const RedisNode *node, TimestampTz now);
extern void node_connect(RedisNode *node, const RedisTarget *target, int host);

/* True while the previous link failed before it worked and this one has not worked yet. */
extern bool node_is_on_probation(const RedisNode *node);

/* Read and write without waiting.  Sets node->event. */
extern void node_turn(RedisNode *node);

/* Write what was sent, as far as the sockets take it. */
extern void node_flush_all(void);

/* Close the link, or give up finding the server: log it, and try again after a pause. */
extern void node_fail(RedisNode *node, const char *error);

/* When to be called again; DT_NOEND: when a socket has something. */
extern TimestampTz node_deadline(const RedisNode *node);

/*
 * A second link, for SCAN alone: an answer that breaks it leaves the first one whole.  NULL
 * while it can't be used; then it is being opened, or will be at a call from
 * node_scan_link_retry_at() on.  In an answer of NULL node_scan_error() says why it broke;
 * where RedisNode.link is NULL then, the first one did.
 */
extern RedisLink *node_scan_link(RedisNode *node);
extern TimestampTz node_scan_link_retry_at(const RedisNode *node);
extern const char *node_scan_error(const RedisNode *node);
extern void node_release_scan_link(RedisNode *node);

/* In an answer: the node that it came from. */
extern RedisNode *node_answering(void);

/*
 * In an answer: it may say that the link can't be used any more; it makes no sense; it shows
 * that the link works.
 */
extern void node_note_trouble(RedisNode *node, const RedisReply *reply);
extern void node_note_nonsense(RedisNode *node);
extern void node_note_success(RedisNode *node);

/* Set last_error and log it; for an error that does not end the link. */
extern void node_note_error(const RedisNode *node, const char *format,...)
			pg_attribute_printf(2, 3);

/*
 * What to send as a ping: texts, and the function that gets the answer; NULL for a PING.
 * The array must stay.
 */
extern void node_set_ping(RedisNode *node, const char **argv, int argc, RedisAnswer answer);

#endif							/* UNCACHE_NODE_H */
