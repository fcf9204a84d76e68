/*
 * fence.h
 *	  The worker's side of fenced fills.
 */
#ifndef UNCACHE_FENCE_H
#define UNCACHE_FENCE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis.h"
#include "shmem.h"

extern void fence_init(DatabaseSlot *slot);

/*
 * A connection is made: find out what the node knows.  A new server is one that
 * may have missed or lost deliveries; all is being sent to it again.
 */
extern void fence_begin(RedisLink *link, bool new_server);

/* uncache.fence_ttl has changed while connected. */
extern void fence_change(RedisLink *link);

/* The connection is gone. */
extern void fence_forget(void);

/*
 * Whether keys may be delivered: it is known by which command.  And whether that
 * is uncache_invalidate.
 */
extern bool fence_is_ready(void);
extern bool fence_is_used(void);

/*
 * True once after the node was found without an epoch: all that the outbox still
 * holds must be sent again, and fence_caught_up() be called when that is done.
 */
extern bool fence_wants_resending(void);
extern void fence_caught_up(RedisLink *link);
extern bool fence_waits_for_catching_up(void);

/* Beats: begin one, or end one; returns when to come again. */
extern TimestampTz fence_turn(RedisLink *link, TimestampTz now);

/* A beat's transaction is open: no other may be begun. */
extern bool fence_holds_transaction(void);

/*
 * Void all tokens before a pattern is scanned for.  "done" is called with false
 * where Redis did not answer that it is so.
 */
typedef void (*FenceDone) (bool ok, const RedisReply *reply);
extern bool fence_new_epoch(RedisLink *link, FenceDone done);

/* Arguments of uncache_invalidate that are the same for all keys. */
extern const char *fence_ttl_text(void);

#endif							/* UNCACHE_FENCE_H */
