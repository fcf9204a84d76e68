/*
 * commit_wait.h
 *	  The wait of a COMMIT for the answer of Redis.
 */
#ifndef UNCACHE_COMMITWAIT_H
#define UNCACHE_COMMITWAIT_H

#include "shmem/shmem.h"

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

#endif							/* UNCACHE_COMMITWAIT_H */
