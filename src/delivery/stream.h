/*
 * stream.h
 *	  The stream (uncache.stream) that tells others what was deleted.
 *
 * Everything in here belongs to a worker, and does nothing while uncache.stream is empty.
 */
#ifndef UNCACHE_STREAM_H
#define UNCACHE_STREAM_H

#include "postgres.h"

#include "delivery/batch_int.h"
#include "topology/target.h"

/* Once, in the worker. */
extern void stream_init(void);

/* Once in a turn: take over a change of uncache.stream. */
extern void stream_turn(void);

/* Its name, in UTF-8; "" while there is none.  It lives until the turn ends. */
extern const char *stream_name(void);

/* Whether this key of Redis is the stream: a pass over all keys leaves it alone. */
extern bool stream_is_key(const char *key, size_t len);

/*
 * The deletes of a batch are answered: announce its keys, and end the batch with the answer to
 * that.  A key that was deleted once more (OUTBOX_MEMORY) is not named.
 */
extern void stream_announce(Batch *batch);

/*
 * Too few replicas have the deletes, so they will be sent again: announce its keys now, unless
 * that was done when their rows were sent before.  The caller keeps the batch, and does not learn
 * what becomes of the entry.
 */
extern void stream_announce_unconfirmed(const Batch *batch);

/* A node was connected or lost: it may have lost entries that it has answered for. */
extern void stream_note_links(void);

/*
 * For a key that was sent before, and whose own node does not need it again: the node of the
 * target's stream where that has lost entries, so that the key is to be announced once more.
 * NULL: it has not.
 */
extern RedisNode *stream_node_in_need(const Target *target);

/*
 * A pass has deleted the keys of a pattern, of this delivery: its glob, which is copied, is
 * announced with those that follow, by stream_send_patterns().  A part of the delivery for each
 * target ends with that.
 */
extern void stream_add_pattern(Delivery *delivery, const char *glob, size_t len);
extern void stream_send_patterns(void);

/* Entries under way at all nodes. */
extern int	stream_count_under_way(void);

#endif							/* UNCACHE_STREAM_H */
