/*
 * resend.h
 *	  What has to be sent again: when its rows are released, and which nodes need it.
 */
#ifndef UNCACHE_RESEND_H
#define UNCACHE_RESEND_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"
#include "topology/target.h"

/*
 * Rows that wait
 */

/* Whether there may be any. */
extern bool resend_has_waiting(void);

/* Have them released after a pause, although no node has come back. */
extern void resend_release_soon(void);

/* When that will be, at the earliest; DT_NOEND: only when a node comes back. */
extern TimestampTz resend_release_at(void);

/* The same, but, for a while, not before the scan is over that the last release has begun. */
extern TimestampTz resend_release_due_at(void);

/* That scan has read all.  May be called again. */
extern void resend_note_read(TimestampTz now);

/* For settle.c: a row begins to wait. */
extern void resend_wait(void);

/* For delivery.c and settle.c: how often rows were released, ever. */
extern uint64 resend_releases(void);

/* For delivery.c: the rows are released now.  Returns whether there may be any. */
extern bool resend_release(void);

/*
 * Nodes that need what was sent before
 */

/* A key was lost on the way to its node; or any node may have lost anything. */
extern void resend_note_key(const Target *target, const char *key, size_t len);
extern void resend_note_all(void);

/* A row was lost that nodes may have forgotten: those that were being sent it need it still. */
extern void resend_note_again(void);

/* Whether keys that were sent before go to this node. */
extern bool resend_is_needed(const RedisNode *node);

/* A scan begins to send again; all that it has found is sent. */
extern void resend_begin(void);
extern void resend_end(void);
extern bool resend_is_in_progress(void);

#endif							/* UNCACHE_RESEND_H */
