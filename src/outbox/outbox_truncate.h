/*
 * outbox_truncate.h
 *	  A retired outbox table is truncated in place, in steps.
 */
#ifndef UNCACHE_OUTBOX_TRUNCATE_H
#define UNCACHE_OUTBOX_TRUNCATE_H

#include "postgres.h"

#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

typedef enum TruncateResult
{
	TRUNCATE_GOES_ON,			/* call again soon, with the same table */
	TRUNCATE_LATER,				/* not now; try again in a while */
	TRUNCATE_DONE,				/* the table is empty */
} TruncateResult;

/* "sink" gets rows that should have been delivered and are not. */
extern void outbox_truncate_init(const OutboxSink *sink);

/* Do one step for a table that is not the current one. */
extern TruncateResult outbox_truncate_run(int table);

#endif							/* UNCACHE_OUTBOX_TRUNCATE_H */
