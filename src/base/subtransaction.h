/*
 * subtransaction.h
 *	  Doing what may fail without failing.
 */
#ifndef UNCACHE_ATTEMPT_H
#define UNCACHE_ATTEMPT_H

#include "postgres.h"

/*
 * Call work(arg) in a subtransaction, in the caller's memory context.  Returns NULL,
 * or the ERROR that it raised, copied to that context; then what it changed is
 * undone.  The caller decides which he must raise again, such as a
 * cancelled statement.
 */
extern ErrorData *subtransaction_run(void (*work) (void *arg), void *arg);

/* The same for the worker: what was raised goes to the log, as a LOG. */
extern void subtransaction_run_or_report(void (*work) (void *arg), void *arg);

#endif							/* UNCACHE_ATTEMPT_H */
