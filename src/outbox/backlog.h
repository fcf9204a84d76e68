/*
 * backlog.h
 *	  Reading what is committed and not yet delivered, for the views.
 */
#ifndef UNCACHE_BACKLOG_H
#define UNCACHE_BACKLOG_H

#include "postgres.h"
#include "access/transam.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* One undelivered outbox row; a transaction has one or several. */
typedef struct BacklogRow
{
	FullTransactionId xid;		/* top-level transaction */
	TimestampTz at;				/* when it was written */
	int32		chunk;			/* 0: the first of the transaction's rows */
	int32		attempts;		/* how often Redis refused it */
	int			table;			/* of the outbox, and ... */
	ItemPointerData tid;		/* ... where in it */
	double		blocks;			/* for how many blocks its block stands: 1 if all are read */
	const char *items;			/* packed; valid within the call, as all pointers */
	uint32		len;
	const text *error;			/* what Redis said; NULL: nothing, or not known */
} BacklogRow;

typedef struct BacklogTotals
{
	double		rows;			/* undelivered; an estimate for huge tables */
	TimestampTz oldest_at;		/* of these; 0: there are none */
	int64		bytes;			/* size of the outbox tables on disk */
} BacklogTotals;

typedef void (*BacklogVisit) (const BacklogRow *row, void *arg);

/*
 * Call "visit" for every undelivered row of this database, in no order.  The
 * rows are those that are committed when their page is read, whatever snapshot
 * the caller has.  No lock on the outbox is left behind.  Nothing is visited
 * without the extension.  A block that can't be read is left out, with a WARNING.
 */
extern void backlog_visit(BacklogVisit visit, void *arg);

/*
 * The same for a bounded number of blocks: a table of up to 1024 (8 MB) is read as a whole,
 * of a larger one 256, evenly spread.
 */
extern void backlog_visit_some(BacklogVisit visit, void *arg);

/* How many keys and patterns are in packed items, up to the first that is damaged. */
extern int64 backlog_count_keys(const char *items, uint32 len);

/*
 * The same in sums, without a WARNING: uncache.stat shows the worker's last_error.  Of a
 * table of more than 8192 blocks (64 MB) it reads that many, evenly spread, and takes the
 * rest to be alike.
 */
extern void backlog_sum(BacklogTotals *totals);

/*
 * For the worker, in a transaction: the same without waiting for a lock (a table that is
 * locked is left out), and from 256 blocks of a larger table, the oldest one among them.
 */
extern void backlog_sum_quickly(BacklogTotals *totals);

/* Undelivered rows of this database, as backlog_sum() has them. */
extern uint64 backlog_rows(void);

#endif							/* UNCACHE_BACKLOG_H */
