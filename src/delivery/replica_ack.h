/*
 * replica_ack.h
 *	  Having replicas acknowledge what a node was sent (uncache.wait_replicas).
 */
#ifndef UNCACHE_REPLICAS_H
#define UNCACHE_REPLICAS_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"

/* Whether that is asked for. */
extern bool replica_ack_are_wanted(void);

/*
 * Whether the last time too few have answered in time.  Then nobody should ask, or
 * wait for it: the node is asked once a second (replica_ack_run), and what waits is
 * sent again when enough have answered.
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

#endif							/* UNCACHE_REPLICAS_H */
