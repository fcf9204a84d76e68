/*
 * backlog.h
 *	  Reading what is committed and not yet delivered, for the views.
 */
#ifndef UNCACHE_BACKLOG_H
#define UNCACHE_BACKLOG_H

#include "postgres.h"
#include "access/transam.h"
#include "datatype/timestamp.h"

/* One undelivered outbox row; a transaction has one or several. */
typedef struct BacklogRow
{
	FullTransactionId xid;		/* top-level transaction */
	TimestampTz at;				/* when it was written */
	bool		is_first;		/* of the transaction's rows */
	int64		keys;			/* keys and patterns in it */
	int32		attempts;		/* how often Redis refused it */
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
 * without the extension.
 */
extern void backlog_visit(BacklogVisit visit, void *arg);

/*
 * The same in sums.  A table is read up to 8192 blocks (64 MB); of a larger one
 * that many blocks, evenly spread, stand for the rest.
 */
extern void backlog_sum(BacklogTotals *totals);

/* Undelivered rows of this database, as backlog_sum() has them. */
extern uint64 backlog_rows(void);

#endif							/* UNCACHE_BACKLOG_H */
