/*
 * outboxnote.h
 *	  Notes in place of keys, while the outbox is over its limit.
 */
#ifndef UNCACHE_OUTBOXNOTE_H
#define UNCACHE_OUTBOXNOTE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem.h"

/*
 * Whether this transaction should leave notes: the outbox is over
 * uncache.outbox_max_size, and nobody is delivering.
 */
extern bool outboxnote_is_time(void);

/*
 * Make sure that a note covers the keys of a rule, in the committing transaction.
 * Returns false where no note can: its keys have to be stored.
 */
extern bool outboxnote_cover(Oid rule);

/* For the worker. */
extern void outboxnote_init(DatabaseSlot *slot);

/*
 * Move notes to where they are delivered.  Returns when to come again, DT_NOEND
 * when there are none.
 */
extern TimestampTz outboxnote_turn(TimestampTz now);
extern void outboxnote_look(void);
extern bool outboxnote_is_done(void);

/* Say in the log how full the outbox is; returns when to come again. */
extern TimestampTz outboxnote_watch_size(TimestampTz now);

#endif							/* UNCACHE_OUTBOXNOTE_H */
