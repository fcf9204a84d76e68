/*
 * pattern_unlink.h
 *	  The keys that a pass over Redis has found, on their way: many in an UNLINK, of one rule.
 */
#ifndef UNCACHE_PATTERN_UNLINK_H
#define UNCACHE_PATTERN_UNLINK_H

#include "postgres.h"

#include "topology/node.h"

/* Once, in the worker.  "refused": Redis refuses this key, by itself. */
extern void pattern_unlink_init(void (*refused) (RedisNode *node, const char *key, size_t len));

/* A pass begins.  "asking": keys may be at nodes of a cluster that do not have their slots yet. */
extern void pattern_unlink_begin(bool asking);

/* Whether more keys should be given for this node now. */
extern bool pattern_unlink_has_room(const RedisNode *node);

/* Delete a key, which is copied; and send what was gathered. */
extern void pattern_unlink_add(RedisNode *node, Oid rule, const char *key, size_t len);
extern void pattern_unlink_send(RedisNode *node);

/* Of this pass: batches without an answer, at all nodes; and whether something went wrong. */
extern int	pattern_unlink_under_way(void);
extern bool pattern_unlink_lost(void);	/* a batch was not answered or not sent */
extern bool pattern_unlink_missed(void);	/* a key had moved in the cluster before it was
											 * deleted */

#endif							/* UNCACHE_PATTERN_UNLINK_H */
