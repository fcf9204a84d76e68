/*
 * outbox_tables.h
 *	  The tables of the outbox: their names, their OIDs, and what a row looks like.
 */
#ifndef UNCACHE_OUTBOX_TABLES_H
#define UNCACHE_OUTBOX_TABLES_H

#include "postgres.h"
#include "access/htup_details.h"

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

/* Bytes of what Redis said: more would not fit into a page beside OUTBOX_ROW_ITEMS. */
#define OUTBOX_MAX_ERROR	160

/* Index of the side table, behind the rotating ones. */
#define OUTBOX_SIDE			OUTBOX_TABLES

/* Number in place of a table's for deliveries that no row stands for: second deletes. */
#define OUTBOX_MEMORY		(OUTBOX_TABLES + 1)

/* Bytes of items in a row: a row has to fit into a page. */
#define OUTBOX_ROW_ITEMS	7900

#define OUTBOX_SCHEMA		"uncache"

/* Name of outbox table i (OUTBOX_SIDE too), and its OID; InvalidOid without the extension. */
extern const char *outbox_table_name(int i);
extern Oid	outbox_table_oid(int i);
extern bool outbox_exists(void);

/*
 * Raise ERRCODE_DATA_CORRUPTED where this can't be a row of an outbox table: without
 * checksums a block can be damaged and look sound.
 */
extern void outbox_check_tuple(HeapTuple tuple);

#endif							/* UNCACHE_OUTBOX_TABLES_H */
