/*
 * deliveragain.h
 *	  Rows that wait to be sent again: whether there are any, and until when.
 *
 * A row with a part that was lost is not to be sent again at once: while its node is
 * away a scan would find it over and over.  It stays ROW_SENT, "waiting", although
 * no delivery has it, until deliver_release_waiting().
 */
#ifndef UNCACHE_DELIVERAGAIN_H
#define UNCACHE_DELIVERAGAIN_H

#include "postgres.h"
#include "datatype/timestamp.h"

/* Whether there may be such rows. */
extern bool deliver_has_waiting(void);

/* They are to be released without a node's coming back, after a pause. */
extern void deliver_release_soon(void);

/* When that is due; DT_NOEND: only when a node comes back. */
extern TimestampTz deliver_release_at(void);

/* For delivery.c: a row begins to wait. */
extern void deliveragain_wait(void);

/* For delivery.c: how often rows were released, ever. */
extern uint64 deliveragain_releases(void);

/* For delivery.c: they are released now.  Whether there may be any. */
extern bool deliveragain_release(void);

#endif							/* UNCACHE_DELIVERAGAIN_H */
