/*
 * handover.h
 *	  Telling the worker what a transaction has left in the outbox.
 */
#ifndef UNCACHE_HANDOVER_H
#define UNCACHE_HANDOVER_H

#include "outbox/outbox_write.h"

/*
 * Hand over these rows, which are committed: into the ring, or as marks on their
 * blocks.  "wait": this session would like an answer.  Returns whether there is a
 * worker; who waits has to wake it yet.  Never raises.
 */
extern bool handover(const OutboxWritten *written, bool wait);

/*
 * Wake the worker for what was handed over with "wait", when the locks of the
 * transaction are gone and its session is about to sleep: the signal takes some
 * microseconds, in which others commit that share the command then.  Never raises.
 */
extern void handover_wake(DatabaseState *database);

/*
 * Have the worker look into the side table, or ask for a worker: a transaction was
 * prepared, or a prepared one has ended.  Never raises.
 */
extern void handover_side(void);

#endif							/* UNCACHE_HANDOVER_H */
