/*
 * database_hold.h
 *	  Keeping the worker out of a database for the rest of a transaction.
 */
#ifndef UNCACHE_HOLD_H
#define UNCACHE_HOLD_H

#include "postgres.h"
#include "storage/lockdefs.h"

#include "shmem/shmem.h"

/* Register what releases the holds; once, in _PG_init. */
extern void database_hold_init(void);

/*
 * End the worker of a database, wait until it is gone, and keep it away until
 * this transaction ends.  Takes the database's lock in "mode", the one which the
 * command takes that follows.  Gives up waiting after 5 s, in silence: the
 * command then finds the worker itself.  Returns whether the worker has left anything
 * undelivered, if there was one to say so.  May raise (lock, cancel).
 */
extern LeftBehind database_hold(Oid dboid, LOCKMODE mode);

#endif							/* UNCACHE_HOLD_H */
