/*
 * worker_wait.h
 *	  How the worker waits between two turns.
 */
#ifndef UNCACHE_IDLE_H
#define UNCACHE_IDLE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem/shmem.h"

extern void worker_wait_init(void);

/*
 * Wait for something to do, until "wake" at the longest (DT_NOEND: no end).
 * "taken" is how many entries of the ring the turn has found.  Leaves what has come
 * in the WaitedLinks.
 */
extern void worker_wait_wait(TimestampTz wake, int taken);

#endif							/* UNCACHE_IDLE_H */
