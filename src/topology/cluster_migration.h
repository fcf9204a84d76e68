/*
 * cluster_migration.h
 *	  Whether slots, and keys with them, move to or from a node of a Redis Cluster.
 */
#ifndef UNCACHE_CLUSTER_MIGRATION_H
#define UNCACHE_CLUSTER_MIGRATION_H

#include "postgres.h"

#include "topology/node.h"

/* Slots are on the move, or may be. */
#define SLOTS_MOVE		0

/*
 * Ask a node.  The answer is to be given to cluster_migration_read(), which returns
 * SLOTS_MOVE, or a number that stands for the slots that the node serves: as long
 * as it stays the same, no key came or went with a slot.  Nodes that slots are
 * moving to are taken into the target.  cluster_migration_ask() returns false, and never
 * calls "answer", where the node's link is not ready.
 */
extern bool cluster_migration_ask(RedisNode *node, RedisAnswer answer);
extern uint32 cluster_migration_read(RedisNode *node, const RedisReply *reply);

#endif							/* UNCACHE_CLUSTER_MIGRATION_H */
