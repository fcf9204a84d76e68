/*
 * outbox_write.h
 *	  The outbox: the tables in which committing transactions leave their
 *	  invalidations, and the truth about what has to be deleted.
 */
#ifndef UNCACHE_OUTBOX_H
#define UNCACHE_OUTBOX_H

#include "postgres.h"
#include "access/transam.h"
#include "storage/block.h"
#include "storage/itemptr.h"

#include "base/compat.h"

/* Where the pending set of this transaction was written. */
typedef struct OutboxItems
{
	struct OutboxItems *next;
	uint32		len;
	char	   *bytes;			/* packed items of one row */
} OutboxItems;

typedef struct OutboxWritten
{
	struct OutboxWritten *next; /* written earlier in the same transaction */
	FullTransactionId xid;
	int			table;
	int32		next_chunk;
	bool		noted;			/* notes stand for some of the keys */
	uint32		nrows;
	uint64		nkeys;
	uint64		key_bytes;		/* of keys and patterns that this write was given */
	RelFileNumber file;			/* the table's */
	ItemPointerData tid;		/* of the row, when there is just one */
	char	   *items;			/* its items; in TopTransactionContext */
	uint32		items_len;
	OutboxItems *all_items;		/* of all rows, if asked for; the last row first */
	BlockNumber *blocks;		/* of all rows */
	uint32		nblocks;
	BlockNumber few_blocks[4];	/* where "blocks" begins */
} OutboxWritten;

/* Where the pending set goes, and what of it stays in memory. */
typedef enum OutboxMode
{
	OUTBOX_COMMIT,				/* to the current table */
	OUTBOX_COMMIT_KEEP_ITEMS,	/* likewise, and keep all items in memory, for doubts */
	OUTBOX_PREPARE,				/* to the side table */
} OutboxMode;

/*
 * Write the pending set, behind what this transaction has written before
 * ("earlier", or NULL).  Returns what was written, in TopTransactionContext,
 * linked to "earlier"; or just "earlier", having warned, where the extension is
 * being dropped and there is no outbox.  May raise; nothing has happened then.
 */
extern OutboxWritten *outbox_write(OutboxMode mode, OutboxWritten *earlier);

#endif							/* UNCACHE_OUTBOX_H */
