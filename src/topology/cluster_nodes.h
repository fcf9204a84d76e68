/*
 * cluster_nodes.h
 *	  The masters of a Redis Cluster that is a target.
 *
 * Used by target.c alone, whose functions of like names say more.
 */
#ifndef UNCACHE_CLUSTER_NODES_H
#define UNCACHE_CLUSTER_NODES_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"
#include "redis/redis_url.h"

typedef struct ClusterNodes ClusterNodes;

/* The URL must stay until cluster_nodes_free(). */
extern ClusterNodes *cluster_nodes_make(struct Target *owner, const RedisTarget *url);
extern void cluster_nodes_free(ClusterNodes *cluster);

/* Find out which nodes there are, and turn all of them; true: the map has changed. */
extern bool cluster_nodes_turn(ClusterNodes *cluster, TimestampTz now);
extern TimestampTz cluster_nodes_deadline(const ClusterNodes *cluster);

/* The node of a key; whether all are connected, some has failed; how many there are. */
extern RedisNode *cluster_nodes_node(const ClusterNodes *cluster, const char *key, size_t len,
									uint16 *slot);
extern bool cluster_nodes_are_connected(const ClusterNodes *cluster);
extern bool cluster_nodes_are_down(const ClusterNodes *cluster);
extern int	cluster_nodes_count(const ClusterNodes *cluster);

/* A node that the map need not name; NULL where there is no room for it. */
extern RedisNode *cluster_nodes_take_in(ClusterNodes *cluster, const char *host, int port);
extern RedisNode *cluster_nodes_redirect(ClusterNodes *cluster, const RedisReply *reply,
										bool *asking);

#endif							/* UNCACHE_CLUSTER_NODES_H */
