/*
 * xact.h
 *	  What happens to the pending set when its transaction ends.
 */
#ifndef UNCACHE_XACT_H
#define UNCACHE_XACT_H

#include "postgres.h"

/* Register the callbacks; once, in _PG_init. */
extern void xact_init(void);

/*
 * The pending set has grown.  Called by pending.c after every addition, so
 * that what is added after the outbox row was written gets a row at once.
 */
extern void xact_pending_grew(void);

#endif							/* UNCACHE_XACT_H */
