/*
 * worker_yield.h
 *	  A worker with nothing to do makes room for a database that is written.
 */
#ifndef UNCACHE_YIELD_H
#define UNCACHE_YIELD_H

#include "postgres.h"

#include "shmem/shmem.h"

/*
 * How long a worker must have been idle.  A worker that comes back sends the last
 * redeliver_window again, so databases must not take turns more often than this; and
 * whoever has to wait for a turn waits for about as long.
 */
#define YIELD_IDLE_MS	10000

extern void worker_yield_init(void);

/*
 * At the end of a turn: note since when nothing came.  Where the launcher has asked for
 * the slot, and everything that is committed is delivered, give it up and end.
 */
extern void worker_yield_turn(TimestampTz now);

#endif							/* UNCACHE_YIELD_H */
