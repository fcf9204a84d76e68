/*
 * outbox_rotate.h
 *	  The outbox tables take turns, and are emptied in place.
 */
#ifndef UNCACHE_ROTATION_H
#define UNCACHE_ROTATION_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

/* "sink" gets rows that should have been delivered and are not. */
extern void outbox_rotate_init(const OutboxSink *sink);

/* Do what is due; returns when to come again, DT_NOEND while all is empty. */
extern TimestampTz outbox_rotate_run(TimestampTz now);

/*
 * For uncache.discard_backlog(): let another table be the current one, if one is empty, so
 * that nothing is added to what is discarded; then have all that is there emptied without
 * waiting for the window.
 */
extern void outbox_rotate_retire(void);
extern void outbox_rotate_discard(void);

#endif							/* UNCACHE_ROTATION_H */
