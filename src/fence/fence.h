/*
 * fence.h
 *	  The worker's side of fenced fills: what each node knows of them.
 */
#ifndef UNCACHE_FENCE_H
#define UNCACHE_FENCE_H

#include "postgres.h"

#include "topology/node.h"
#include "redis/redis.h"
#include "shmem/shmem.h"

extern void fence_init(void);

/*
 * There is a link: find out what the node knows.  A new server (RedisNode.new_server) is
 * one that may have missed or lost deliveries; all is being sent to it again.  Sets
 * RedisNode.open when it is known by which command keys are delivered.
 */
extern void fence_begin(RedisNode *node);

/* The link is gone. */
extern void fence_forget(RedisNode *node);

/* uncache.fence_ttl has changed: for all nodes with a link. */
extern void fence_change_all(void);

/*
 * For an error reply: it says that the node's functions are gone, or have lost their memory.
 * Then they are loaded, and this server is registered, by what has been sent ahead when
 * this returns true: whoever got the reply sends its command again at once.
 */
extern bool fence_note_loss(RedisNode *node, const RedisReply *reply);

/* Choose the nodes' pings; returns when to come again. */
extern TimestampTz fence_run(TimestampTz now);

/* Whether keys are delivered by uncache_invalidate; whether fills can be let through. */
extern bool fence_is_used(const RedisNode *node);
extern bool fence_is_on(const RedisNode *node);

/*
 * Whether fills may be let through there, although this worker may not call the functions.
 * A key without a record is not filled; so the records are deleted, too.
 */
extern bool fence_is_shut_out(const RedisNode *node);

/*
 * True once after the node was found without an epoch: all that the outbox still
 * holds must be sent to it again, and fence_caught_up() be called when that is done.
 */
extern bool fence_wants_resending(RedisNode *node);
extern bool fence_waits_for_catching_up(void);
extern void fence_caught_up(void);

/*
 * Void all tokens of a node before its keys are scanned.  "done" is called with false
 * where it did not answer that it is so; node_answering() tells whose answer it is.
 */
typedef void (*FenceDone) (bool ok, const RedisReply *reply);
extern bool fence_new_epoch(RedisNode *node, FenceDone done);

/* Whether refused fills have asked for a beat; and that there is one now. */
extern bool fence_wants_beat(void);
extern void fence_beat_begun(void);

/* The argument fence_ttl of the functions; and as text, until the next call. */
extern int	fence_ttl_ms(void);
extern const char *fence_ttl_text(void);

#endif							/* UNCACHE_FENCE_H */
