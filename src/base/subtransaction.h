/*
 * subtransaction.h
 *	  Work that may raise an ERROR, without ending the transaction.
 */
#ifndef UNCACHE_SUBTRANSACTION_H
#define UNCACHE_SUBTRANSACTION_H

#include "postgres.h"

/*
 * Call work(arg) in a subtransaction, in the caller's memory context.  Returns NULL,
 * or the ERROR that it raised, copied to that context; then what it changed is
 * undone.  The caller decides which errors it must raise again, such as that of a
 * cancelled statement.
 */
extern ErrorData *subtransaction_run(void (*work) (void *arg), void *arg);

/* The same for the worker: the ERROR goes to the log, as a LOG. */
extern void subtransaction_run_or_report(void (*work) (void *arg), void *arg);

#endif							/* UNCACHE_SUBTRANSACTION_H */
