/*
 * commit.h
 *	  The end of a transaction: the functions that other folders call.
 */
#ifndef UNCACHE_COMMIT_H
#define UNCACHE_COMMIT_H

#include "postgres.h"

/* Register the transaction callbacks; _PG_init() calls it once. */
extern void xact_init(void);

/*
 * A transaction was prepared, or a prepared one has ended: have the worker read the side
 * table, or ask the launcher for a worker.  Never raises.
 */
extern void handover_side(void);

#endif							/* UNCACHE_COMMIT_H */
