/*
 * fence.h
 *	  Fenced fills, as the worker keeps them: what other folders may call.
 *
 * All functions are called in the worker.
 */
#ifndef UNCACHE_FENCE_H
#define UNCACHE_FENCE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis/redis.h"
#include "shmem/ring.h"
#include "topology/node.h"

extern void fence_init(void);

/*
 * The node has a link now: ask it what it knows.  RedisNode.new_server says that the server
 * may have missed or lost deliveries; the caller sends all of them to it again.  Sets
 * RedisNode.open once it is known by which command keys are delivered.
 */
extern void fence_begin(RedisNode *node);

/* The link is gone. */
extern void fence_forget(RedisNode *node);

/*
 * Tell uncache.stat, and strict commits, what has changed since the last call.  To be called
 * once answers were read, and before the turn ends.
 */
extern void fence_publish(void);

/* uncache.fence_ttl has changed: tell all nodes that have a link. */
extern void fence_change_all(void);

/*
 * Look at an error reply.  Returns true where it says that the node's functions are gone, or
 * have lost their memory.  Then this call has already sent what loads the functions and
 * registers this server, so the caller sends its command again at once.
 */
extern bool fence_note_loss(RedisNode *node, const RedisReply *reply);

/* Choose what the nodes' pings ask; returns when to be called again. */
extern TimestampTz fence_run(TimestampTz now);

/* Whether keys are delivered by uncache_invalidate; whether the node lets fills through. */
extern bool fence_is_used(const RedisNode *node);
extern bool fence_is_on(const RedisNode *node);

/*
 * Whether the node may let fills through although this worker may not call its functions.
 * A key that has no record is not filled, so the caller deletes the records, too.
 */
extern bool fence_is_shut_out(const RedisNode *node);

/*
 * fence_wants_resending() is true once after the node was found without an epoch: the caller
 * sends it all that the outbox still holds, and calls fence_caught_up() when that is done.
 */
extern bool fence_wants_resending(RedisNode *node);
extern bool fence_waits_for_catching_up(void);
extern void fence_caught_up(void);

/*
 * Void all tokens of a node before its keys are scanned.  "done" gets ok = false where the
 * node did not confirm it; node_answering() tells which node has answered.  Returns false,
 * and never calls "done", where the command could not be sent.
 */
typedef void (*FenceDone) (bool ok, const RedisReply *reply);
extern bool fence_new_epoch(RedisNode *node, FenceDone done);

/* The argument fence_ttl of the functions, in ms; and as text, valid until the next call. */
extern int	fence_ttl_ms(void);
extern const char *fence_ttl_text(void);

/*
 * Beats (fence_beat.c): begin or end one if it is time; returns when to be called again.
 * While a beat holds the worker's transaction no other one may be begun.
 */
extern TimestampTz fence_beat_run(TimestampTz now);
extern bool fence_beat_holds_transaction(void);

/*
 * Transactions in doubt (fence_doubt.c).  "entry" is a RING_DOUBT or RING_RELEASE of the
 * ring.  fence_doubt_run() sends, renews and releases; it returns when to be called again,
 * DT_NOEND without doubts.
 */
extern void fence_doubt_init(void);
extern void fence_doubt_take(const RingEntry *entry);
extern TimestampTz fence_doubt_run(TimestampTz now);

/* Whether a transaction is in doubt whose end has not been seen. */
extern bool fence_doubt_has_any(void);

/*
 * Whether this server's readers may fill (fence_standing.c).  Load what is remembered, in a
 * transaction of the worker and before any node is asked; ERROR where the table is locked.
 * fence_standing_run() writes what has changed, reclaims and flushes; it returns when to be
 * called again.
 */
extern void fence_standing_load(void);
extern TimestampTz fence_standing_run(TimestampTz now);

#endif							/* UNCACHE_FENCE_H */
