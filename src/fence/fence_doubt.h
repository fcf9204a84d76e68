/*
 * fence_doubt.h
 *	  Transactions in doubt (consistency = strict), in the worker.
 */
#ifndef UNCACHE_FENCE_DOUBT_H
#define UNCACHE_FENCE_DOUBT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem/ring.h"

extern void fence_doubt_init(void);

/* An entry of the ring: RING_DOUBT or RING_RELEASE. */
extern void fence_doubt_take(const RingEntry *entry);

/* Whether a transaction is in doubt that has not been seen to end. */
extern bool fence_doubt_has_any(void);

/* Send, renew and release; returns when to come again, DT_NOEND without doubts. */
extern TimestampTz fence_doubt_run(TimestampTz now);

#endif							/* UNCACHE_FENCE_DOUBT_H */
