/*
 * outbox_row.h
 *	  A row of the outbox as its readers hand it on, and to what they hand it.
 */
#ifndef UNCACHE_OUTBOX_ROW_H
#define UNCACHE_OUTBOX_ROW_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

typedef struct OutboxRow
{
	uint64		xid;
	int32		chunk;
	int			table;			/* OUTBOX_SIDE and OUTBOX_MEMORY too */
	ItemPointerData tid;
	int32		attempts;		/* how often Redis has refused it so far */
	TimestampTz at;				/* since when it is to be delivered */
	int			waiter;			/* ProcNumber, or -1 */
	bool		again;			/* may have been delivered before */
	bool		is_resend;		/* was sent before: goes to nodes with needs_resend only */
	bool		answered;		/* its waiter was told that it is delivered */
	const char *items;
	uint32		len;
} OutboxRow;

/*
 * Where the readers of the outbox put the rows that are due.  The delivery is above the
 * outbox in the order of the folders, so the worker gives its functions to the readers.
 */
typedef struct OutboxSink
{
	bool		(*has_room) (void); /* whether more should be taken now */
	void		(*take) (const OutboxRow *row); /* copies the items, and sets the row's state */
} OutboxSink;

#endif							/* UNCACHE_OUTBOX_ROW_H */
