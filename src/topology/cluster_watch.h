/*
 * cluster_watch.h
 *	  Asks the nodes of a Redis Cluster which master serves which slot.
 *
 * Used by cluster_nodes.c alone.  Never waits (but where redis_open() does).
 */
#ifndef UNCACHE_CLUSTER_WATCH_H
#define UNCACHE_CLUSTER_WATCH_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/cluster_map.h"
#include "redis/redis_url.h"

typedef struct ClusterWatch ClusterWatch;

/* For the seeds of a target, which must stay until cluster_watch_free(). */
extern ClusterWatch *cluster_watch_make(const RedisTarget *target);
extern void cluster_watch_free(ClusterWatch *watch);

/*
 * Do what can be done without waiting.  Returns true when the map is another one
 * than before (at first: when there is one).
 */
extern bool cluster_watch_turn(ClusterWatch *watch, TimestampTz now);

/* What was heard last, valid until a turn returns true again; NULL: nothing yet. */
extern const ClusterMap *cluster_watch_map(const ClusterWatch *watch);

/*
 * The map may be wrong: ask soon.  "elsewhere": of another node, since the one that
 * was asked may be cut off from the others.
 */
extern void cluster_watch_ask(ClusterWatch *watch, bool elsewhere);

/* Why no node has told the map at the last attempt; empty if one has. */
extern const char *cluster_watch_error(const ClusterWatch *watch);

/* When to come again. */
extern TimestampTz cluster_watch_deadline(const ClusterWatch *watch);

#endif							/* UNCACHE_CLUSTER_WATCH_H */
