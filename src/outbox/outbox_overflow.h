/*
 * outbox_overflow.h
 *	  Notes in place of keys, while the outbox is over its limit.
 */
#ifndef UNCACHE_OUTBOXNOTE_H
#define UNCACHE_OUTBOXNOTE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem/shmem.h"

/*
 * Whether this transaction should leave notes: the outbox is over
 * uncache.outbox_max_size, and nobody is delivering.
 */
extern bool outbox_overflow_is_time(void);

/*
 * Make sure that there is a note with the key patterns of a rule, in the committing
 * transaction.  Returns these, packed; NULL where no note can be: the keys of the
 * rule have to be stored.
 */
extern bytea *outbox_overflow_make(Oid rule);

/* Whether a note covers this key.  Never raises. */
extern bool outbox_overflow_covers(const bytea *note, const char *key, size_t len);

/*
 * Move notes to where they are delivered.  Returns when to come again, DT_NOEND
 * when there are none.
 */
extern TimestampTz outbox_overflow_turn(TimestampTz now);
extern void outbox_overflow_look(void);
extern bool outbox_overflow_is_done(void);

/* Say in the log how full the outbox is; returns when to come again. */
extern TimestampTz outbox_overflow_watch_size(TimestampTz now);

#endif							/* UNCACHE_OUTBOXNOTE_H */
