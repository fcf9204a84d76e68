/*
 * commit.h
 *	  The end of a transaction: what other folders call of it.
 */
#ifndef UNCACHE_COMMIT_H
#define UNCACHE_COMMIT_H

#include "postgres.h"

/* Register the callbacks of transactions; once, in _PG_init. */
extern void xact_init(void);

/*
 * Have the worker look into the side table, or ask for a worker: a transaction was
 * prepared, or a prepared one has ended.  Never raises.
 */
extern void handover_side(void);

#endif							/* UNCACHE_COMMIT_H */
