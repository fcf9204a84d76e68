/*
 * resend.h
 *	  Rows that wait to be sent again: whether there are any, and until when.
 *
 * A row with a part that was lost is not to be sent again at once: while its node is
 * away a scan would find it over and over.  It stays ROW_SENT, "waiting", although
 * no delivery has it, until delivery_release_waiting().
 */
#ifndef UNCACHE_DELIVERAGAIN_H
#define UNCACHE_DELIVERAGAIN_H

#include "postgres.h"
#include "datatype/timestamp.h"

/* Whether there may be such rows. */
extern bool resend_has_waiting(void);

/* They are to be released without a node's coming back, after a pause. */
extern void resend_release_soon(void);

/* When they may be, at the earliest; DT_NOEND: only when a node comes back. */
extern TimestampTz resend_release_at(void);

/* Likewise, but not while the scan that the release before has begun goes on, for a while. */
extern TimestampTz resend_release_due_at(void);

/* That scan has read all.  May be called again. */
extern void resend_note_read(TimestampTz now);

/* For delivery.c: a row begins to wait. */
extern void resend_wait(void);

/* For delivery.c: how often rows were released, ever. */
extern uint64 resend_releases(void);

/* For delivery.c: they are released now.  Whether there may be any. */
extern bool resend_release(void);

#endif							/* UNCACHE_DELIVERAGAIN_H */
