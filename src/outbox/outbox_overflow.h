/*
 * outbox_overflow.h
 *	  Markers in place of keys, while the outbox is over its limit.
 */
#ifndef UNCACHE_OUTBOX_OVERFLOW_H
#define UNCACHE_OUTBOX_OVERFLOW_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem/shmem.h"

/*
 * Whether this transaction should leave markers: the outbox is over
 * uncache.outbox_max_size, and its worker is not connected to Redis.
 */
extern bool outbox_overflow_is_on(void);

/*
 * Make sure that there is a marker with the key patterns of a rule, in the committing
 * transaction.  Returns these patterns, packed; NULL where there can be no marker: then
 * the keys of the rule have to be stored.
 */
extern bytea *outbox_overflow_mark(Oid rule);

/* Whether a marker covers this key.  Never raises. */
extern bool outbox_overflow_covers(const bytea *marker, const char *key, size_t len);

/*
 * For the worker: move markers to where they are delivered.  Returns when to run again,
 * DT_NOEND where there are none.
 */
extern TimestampTz outbox_overflow_run(TimestampTz now);

/* Have the next run look for markers; whether a run would find nothing to do. */
extern void outbox_overflow_request_scan(void);
extern bool outbox_overflow_is_done(void);

/* Say in the log how full the outbox is; returns when to run again. */
extern TimestampTz outbox_overflow_watch_run(TimestampTz now);

#endif							/* UNCACHE_OUTBOX_OVERFLOW_H */
