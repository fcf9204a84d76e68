/*
 * outbox_truncate.h
 *	  A retired outbox table is emptied in place, in steps.
 */
#ifndef UNCACHE_EMPTYING_H
#define UNCACHE_EMPTYING_H

#include "postgres.h"

#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

typedef enum EmptyingResult
{
	EMPTYING_GOES_ON,			/* call again soon, with the same table */
	EMPTYING_LATER,				/* not now; try again in a while */
	EMPTYING_DONE,				/* the table is empty */
} EmptyingResult;

/* "sink" gets rows that should have been delivered and are not. */
extern void outbox_truncate_init(const OutboxSink *sink);

/* Do one step for a table that is not the current one. */
extern EmptyingResult outbox_truncate_run(int table);

#endif							/* UNCACHE_EMPTYING_H */
