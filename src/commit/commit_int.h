/*
 * commit_int.h
 *	  What the files of commit/ share.
 */
#ifndef UNCACHE_COMMIT_INT_H
#define UNCACHE_COMMIT_INT_H

#include "commit/commit.h"
#include "outbox/outbox_write.h"
#include "shmem/shmem.h"

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

/* What allocates, before the commit: once is enough, more do no harm. */
extern void commit_wait_prepare(void);

/*
 * Whether the commit of the pending set is one that waits.  One that would like to,
 * and does not because there is no use in it, is counted.
 */
extern bool commit_wait_wanted(DatabaseState *database);

/*
 * Wait until the worker has answered for what this session has announced and handed
 * over, at the longest uncache.wait_timeout.  After AFTER_LOCKS only; never raises.
 */
extern void commit_wait(void);

/*
 * Raise an ERROR where the pending set, with what the transaction has written before
 * ("written", or NULL), has more keys than can be fenced.  For before they are written.
 */
extern void commit_strict_check_size(const OutboxWritten *written);

/*
 * Before the commit: have the keys of these rows deleted and fenced, with the
 * transaction in doubt.  Raises an ERROR where Redis has not confirmed it in time,
 * or can't.
 */
extern void commit_strict_fence(OutboxWritten *written);

/* The transaction was rolled back: have its doubts taken out.  Never raises. */
extern void commit_strict_release(void);

/* The transaction has committed: what is delivered takes the doubts out. */
extern void commit_strict_forget(void);

#endif							/* UNCACHE_COMMIT_INT_H */
