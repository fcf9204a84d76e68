/*
 * outbox_rotate.h
 *	  The outbox tables take turns, and are truncated in place.
 */
#ifndef UNCACHE_OUTBOX_ROTATE_H
#define UNCACHE_OUTBOX_ROTATE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

/* "sink" gets rows that should have been delivered and are not. */
extern void outbox_rotate_init(const OutboxSink *sink);

/* Do what is due; returns when to run again, DT_NOEND while all tables are empty. */
extern TimestampTz outbox_rotate_run(TimestampTz now);

/*
 * For uncache.discard_backlog(): make another table the current one, if one is empty, so
 * that no row is added to those that are discarded; then have all tables that are in use
 * truncated without waiting for the window.
 */
extern void outbox_rotate_retire(void);
extern void outbox_rotate_discard(void);

#endif							/* UNCACHE_OUTBOX_ROTATE_H */
