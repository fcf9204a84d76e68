/*
 * replica_ack.h
 *	  Having replicas acknowledge what a node was sent (uncache.wait_replicas).
 */
#ifndef UNCACHE_REPLICA_ACK_H
#define UNCACHE_REPLICA_ACK_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"

/* Whether that is asked for. */
extern bool replica_ack_are_wanted(void);

/*
 * Whether too few replicas have acknowledged in time when they were last asked.  Then they should
 * not be asked behind each batch, and no session waits for the node: replica_ack_run() asks once
 * a second, and rows that wait are sent again when enough replicas have answered.
 */
extern bool replica_ack_are_short(const RedisNode *node);
extern bool replica_ack_are_short_anywhere(void);

/*
 * Send WAIT: the answer comes when enough replicas have all that was sent to the node
 * before, or when it took too long.  To be given to replica_ack_note(), which returns
 * whether they are enough.  Returns false, and never calls "answer", where the
 * link is not ready.
 */
extern bool replica_ack_ask(RedisNode *node, RedisAnswer answer);
extern bool replica_ack_note(RedisNode *node, const RedisReply *reply);

/* Ask nodes that are short of replicas; returns when to call it again. */
extern TimestampTz replica_ack_run(TimestampTz now);

#endif							/* UNCACHE_REPLICA_ACK_H */
