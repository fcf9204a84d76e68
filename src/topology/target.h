/*
 * target.h
 *	  One address in uncache.redis_url, and the nodes behind it.
 *
 * A target is a plain Redis, the master that Sentinel names, or all masters of a
 * Redis Cluster.  Every key is delivered to one node of each target.
 */
#ifndef UNCACHE_TARGET_H
#define UNCACHE_TARGET_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"
#include "redis/redis_url.h"

typedef struct Target Target;

/* All targets, in the order of the setting. */
extern int	target_count(void);
extern Target *target_at(int i);

/* Takes over what redis_url_parse() has made. */
extern void target_add(RedisTarget *url);
extern void target_forget_all(void);

/*
 * Connect, find out which nodes there are, read and write as far as it is possible
 * without waiting.  Returns true when nodes have got other keys than before.
 */
extern bool target_turn(Target *target, TimestampTz now);

/* Its address, as the setting has it. */
extern const RedisTarget *target_url(const Target *target);

/* The number of its database, 0 for a cluster. */
extern int	target_database(const Target *target);

/* When to be called again. */
extern TimestampTz target_deadline(const Target *target);

/*
 * The node of a key, and its hash slot, 0 unless the target is a cluster; NULL where
 * none is known.  The node may be down: see RedisNode.open.
 */
extern RedisNode *target_node(const Target *target, const char *key, size_t len, uint16 *slot);

/* Whether all of its nodes are connected; whether some of it has failed. */
extern bool target_is_connected(const Target *target);
extern bool target_is_down(const Target *target);

/*
 * For an answer of a cluster's node: the node to send the command to instead, and
 * whether to send ASKING before it; NULL where it is no redirection, or there is no
 * room for that node.
 */
extern RedisNode *target_redirect(Target *target, const RedisReply *reply, bool *asking);

/*
 * Serve a node of a cluster for a while that the map does not name, or not yet.
 * NULL where there is no room for it.
 */
extern RedisNode *target_take_in(Target *target, const char *host, int port);

/* Append its address without secrets. */
extern void target_describe(const Target *target, StringInfo to);

/* Hash slots are on the move, or may be (cluster_migration.c). */
#define SLOTS_MOVE		0

/*
 * Ask a node of a cluster for its hash slots.  The answer is to be given to
 * cluster_migration_read(), which returns SLOTS_MOVE, or a number that stands for the
 * slots that the node serves: as long as it stays the same, no key came or went with a
 * slot.  Nodes that slots are moving to are taken into the target.
 * cluster_migration_ask() returns false, and never calls "answer", where the node's link
 * is not ready.
 */
extern bool cluster_migration_ask(RedisNode *node, RedisAnswer answer);
extern uint32 cluster_migration_read(RedisNode *node, const RedisReply *reply);

#endif							/* UNCACHE_TARGET_H */
