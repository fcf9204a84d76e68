/*
 * cluster_map.h
 *	  What a client of Redis Cluster must know: hash slots, the map of the masters
 *	  that serve them, and redirections.
 *
 * Nothing here sends, waits, logs or raises an error; memory comes from malloc,
 * so that all of it may be called from the answer to a command.
 */
#ifndef UNCACHE_CLUSTER_MAP_H
#define UNCACHE_CLUSTER_MAP_H

#include "postgres.h"

#include "redis/redis.h"

#define CLUSTER_SLOTS		16384
#define CLUSTER_MAX_HOST	253 /* bytes; the longest name that DNS allows */

/*
 * The hash slot of a key of "len" bytes, 0 .. CLUSTER_SLOTS - 1: of its hash tag (the
 * text between the first '{' and the next '}', unless that is empty), or of all of it.
 */
extern uint16 cluster_map_slot(const char *key, size_t len);

/* Which master serves which hash slot.  Never changes once it was read. */
typedef struct ClusterMap ClusterMap;

/*
 * The map in an answer to CLUSTER SLOTS.  A node that does not know its own
 * address leaves the host empty; then "asked_host" takes its place, the host that
 * the question was sent to (CLUSTER_MAX_HOST bytes at most).  Returns NULL where the
 * answer makes no sense as a whole, names no slot at all (the answer of a node that
 * is in no cluster yet), or memory ran out.  To be given to cluster_map_free(),
 * which takes NULL.
 */
extern ClusterMap *cluster_map_read(const RedisReply *reply, const char *asked_host);
extern void cluster_map_free(ClusterMap *map);

/* Masters with at least one slot, numbered from 0 in no particular order. */
extern int	cluster_map_nodes(const ClusterMap *map);
extern const char *cluster_map_host(const ClusterMap *map, int node);
extern int	cluster_map_port(const ClusterMap *map, int node);

/* The number of the master that serves a slot; -1: none does. */
extern int	cluster_map_node(const ClusterMap *map, uint16 slot);

/* Whether every slot has the same host and port in both (or in both none). */
extern bool cluster_map_equal(const ClusterMap *a, const ClusterMap *b);

/*
 * The epoch of the cluster in an answer to CLUSTER INFO; 0 where it does not tell.
 * A failover raises it, so a node with a lower one than another has missed some.
 */
extern uint64 cluster_map_epoch_read(const RedisReply *reply);

typedef enum ClusterRedirect
{
	CLUSTER_NO_REDIRECT,		/* any other answer, good or bad */
	CLUSTER_MOVED,				/* send it there, and all else of this slot too */
	CLUSTER_ASK,				/* send ASKING and this command there, this once */
} ClusterRedirect;

/*
 * Whether a command was sent to the wrong master; then its slot, and the host and port
 * of the right one.  "host" gets at most "hostlen" bytes with the final zero
 * (CLUSTER_MAX_HOST + 1 always do), and is empty for the host of the node that
 * gave the answer.  Nothing is set where the result is CLUSTER_NO_REDIRECT, as
 * it is for a redirection that makes no sense.
 */
extern ClusterRedirect cluster_map_redirect(const RedisReply *reply, uint16 *slot,
											char *host, size_t hostlen, int *port);

/* Whether a node says that keys are at another node, or on the way there. */
extern bool cluster_map_is_moving(const RedisReply *reply);

#endif							/* UNCACHE_CLUSTER_MAP_H */
