/*
 * commit_strict.h
 *	  consistency = strict, in the committing backend.
 */
#ifndef UNCACHE_STRICT_H
#define UNCACHE_STRICT_H

#include "outbox/outbox_write.h"

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

#endif							/* UNCACHE_STRICT_H */
