/*
 * outbox_write.h
 *	  Writing the pending set into the outbox, in the committing transaction.
 */
#ifndef UNCACHE_OUTBOX_WRITE_H
#define UNCACHE_OUTBOX_WRITE_H

#include "postgres.h"
#include "access/transam.h"
#include "storage/block.h"
#include "storage/itemptr.h"

#include "base/compat.h"

typedef struct OutboxItems
{
	struct OutboxItems *next;
	uint32		len;
	char	   *bytes;			/* packed items of one row */
} OutboxItems;

/* Where the pending set of this transaction was written. */
typedef struct OutboxWritten
{
	struct OutboxWritten *next; /* written earlier in the same transaction */
	FullTransactionId xid;
	int			table;
	int32		next_chunk;
	bool		noted;			/* overflow markers stand for some of the keys */
	uint32		nrows;
	uint64		nkeys;
	uint64		key_bytes;		/* of all keys and patterns of this write */
	RelFileNumber file;			/* of the table */
	ItemPointerData tid;		/* of the row, when there is just one */
	char	   *items;			/* its items; in TopTransactionContext */
	uint32		items_len;
	OutboxItems *all_items;		/* of all rows, if asked for; the last row first */
	BlockNumber *blocks;		/* of all rows */
	uint32		nblocks;
	BlockNumber few_blocks[4];	/* where "blocks" begins */
} OutboxWritten;

/* Where the pending set goes, and whether a copy of its items stays in memory. */
typedef enum OutboxMode
{
	OUTBOX_COMMIT,				/* to the current table */
	OUTBOX_COMMIT_KEEP_ITEMS,	/* the same, and keep all items in memory, for doubts */
	OUTBOX_PREPARE,				/* to the side table */
} OutboxMode;

/*
 * Write the pending set, behind what this transaction has written before ("earlier", or
 * NULL).  Returns a description of what was written, in TopTransactionContext, linked to
 * "earlier".  Where the extension was dropped and there is no outbox, it warns and returns
 * just "earlier".  May raise.
 */
extern OutboxWritten *outbox_write(OutboxMode mode, OutboxWritten *earlier);

#endif							/* UNCACHE_OUTBOX_WRITE_H */
