/*
 * outbox_open.h
 *	  Opening a table of pg_uncache without waiting for the session that has it locked.
 */
#ifndef UNCACHE_OUTBOX_OPEN_H
#define UNCACHE_OUTBOX_OPEN_H

#include "postgres.h"
#include "storage/lockdefs.h"
#include "utils/rel.h"

/* For a worker: a transaction with its snapshot. */
extern void outbox_begin(void);
extern void outbox_end(void);

/*
 * The same to read only: within the transaction of a beat (fence_beat.h), if one is open.
 * The first returns whether it was open; the second needs to know that.
 */
extern bool outbox_begin_reading(void);
extern void outbox_end_reading(bool joined);

typedef enum Opening
{
	OPENING_DONE,
	OPENING_GONE,				/* there is no such table */
	OPENING_REFUSED,			/* other sessions have it locked, or wait for a lock on it */
} Opening;

/*
 * For a worker, in a transaction: open a table if its lock is free.  Where it is not,
 * last_error and, once, the log say which session has the table locked.  *rel is set with
 * OPENING_DONE only.
 */
extern Opening outbox_open_try(Oid relid, LOCKMODE mode, Relation *rel);

/* The same for a table of users, which is locked and not opened; true: locked. */
extern bool outbox_open_lock(Oid relid, LOCKMODE mode);

/*
 * The sessions that keep others from a lock of this mode, as in "held by PID 17
 * (AccessExclusiveLock)"; made in CurrentMemoryContext.  In a transaction; may raise.
 */
extern char *outbox_open_holders(Oid relid, LOCKMODE mode);

#endif							/* UNCACHE_OUTBOX_OPEN_H */
