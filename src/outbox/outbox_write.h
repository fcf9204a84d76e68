/*
 * outbox_write.h
 *	  The outbox: the tables in which committing transactions leave their
 *	  invalidations, and the truth about what has to be deleted.
 */
#ifndef UNCACHE_OUTBOX_H
#define UNCACHE_OUTBOX_H

#include "postgres.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "storage/block.h"
#include "storage/itemptr.h"

#include "base/compat.h"
#include "shmem/shmem.h"

/* Columns of every outbox table. */
enum OutboxColumn
{
	OUTBOX_XID = 1,				/* xid8: top-level transaction */
	OUTBOX_CHUNK,				/* int4: 0, 1, ... within the transaction */
	OUTBOX_AT,					/* timestamptz: when it was written */
	OUTBOX_ITEMS,				/* bytea: packed items (invalidation.h) */
	OUTBOX_ATTEMPTS,			/* int4: how often Redis refused it */
	OUTBOX_ERROR,				/* text: what Redis said then, or null; outbox_side only */
};
#define OUTBOX_NCOLUMNS		5
#define OUTBOX_SIDE_NCOLUMNS	6

/* More bytes of what Redis said would not fit into a page beside OUTBOX_ROW_ITEMS. */
#define OUTBOX_MAX_ERROR	160

/* Index of the side table, behind the rotating ones. */
#define OUTBOX_SIDE			OUTBOX_TABLES

/* What the worker delivers from memory alone: second deletes. */
#define OUTBOX_MEMORY		(OUTBOX_TABLES + 1)

/* One row is at most one page with one tuple; so are the items in it. */
#define OUTBOX_ROW_ITEMS	7900

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

/*
 * Raise ERRCODE_DATA_CORRUPTED where this can't be a row of an outbox table: without checksums
 * a block can be damaged and look sound.
 */
extern void outbox_check_tuple(HeapTuple tuple);

/* OID of outbox table i (OUTBOX_SIDE too); InvalidOid without the extension. */
extern Oid	outbox_table_oid(int i);
extern bool outbox_exists(void);

#endif							/* UNCACHE_OUTBOX_H */
