/*
 * waiters.h
 *	  The worker's side of COMMIT's wait: answering by transaction.
 */
#ifndef UNCACHE_WAITERS_H
#define UNCACHE_WAITERS_H

#include "compat.h"

/* A row of this transaction is delivered; its waiter is known, or -1. */
extern void waiters_row_delivered(uint64 xid, int waiter);

/* Answer what waiters_row_delivered() has gathered for unknown waiters. */
extern void waiters_flush(void);

/* Redis won't be reached for now: wake all who wait in this database. */
extern void waiters_give_up(Oid dboid);

/* One transaction is refused for a reason of its own. */
extern void waiters_refused(uint64 xid);

/* How many sessions wait in a database. */
extern int	waiters_count(Oid dboid);

#endif							/* UNCACHE_WAITERS_H */
