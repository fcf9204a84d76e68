/*
 * commit_int.h
 *	  Private to commit/: the steps that xact.c takes at the end of a transaction.
 */
#ifndef UNCACHE_COMMIT_INT_H
#define UNCACHE_COMMIT_INT_H

#include "commit/commit.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_write.h"
#include "shmem/shmem.h"

/*
 * Hand these committed rows to the worker: a copy in the ring, or marks on their blocks.
 * "wait": this session wants an answer; it must then call handover_wake().  True if a worker
 * is connected to Redis and will take the rows.  Never raises.
 */
extern bool handover(const OutboxWritten *written, bool wait);

/*
 * Wake the worker for rows handed over with "wait", after the transaction's locks are
 * released and just before the session sleeps.  The signal takes some microseconds; rows
 * that other sessions commit meanwhile share the batch.  Never raises.
 */
extern void handover_wake(DatabaseState *database);

/* Before the commit: allocate what the wait needs.  It may be called more than once. */
extern void commit_wait_prepare(void);

/*
 * True if the commit of the pending set shall wait.  A commit that is configured to wait, but
 * cannot expect an answer in time, is counted in waits_skipped.
 */
extern bool commit_wait_wanted(DatabaseState *database);

/*
 * Wait until the worker has answered for the rows that this session has announced and handed
 * over, but no longer than uncache.wait_timeout.  Only after AFTER_LOCKS; never raises.
 */
extern void commit_wait(void);

/*
 * Raise an ERROR if the pending set and the rows that the transaction has written before
 * ("written", or NULL) have more keys than can be fenced.  Call it before outbox_write().
 */
extern void commit_strict_check_size(const OutboxWritten *written);

/*
 * Before the commit: have the worker delete and fence the keys of these rows, and note the
 * transaction as in doubt.  Raises an ERROR if Redis cannot confirm it, or not in time.
 */
extern void commit_strict_fence(OutboxWritten *written);

/* The transaction was rolled back: have the worker remove its doubts.  Never raises. */
extern void commit_strict_release(void);

/* The transaction has committed: delivering its keys removes the doubts. */
extern void commit_strict_forget(void);

#endif							/* UNCACHE_COMMIT_INT_H */
