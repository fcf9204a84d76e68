/*
 * incarnation.c
 *	  The incarnation: one life of the server (see incarnation.h).
 *
 * The row is of the table uncache.incarnation and is written with the heap's own
 * functions, as the outbox is.  When the commit that writes it is lost in a crash,
 * so is this incarnation: the next start draws another.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "fence/incarnation.h"
#include "outbox/outbox_open.h"

/* Columns of uncache.incarnation. */
enum
{
	INCARNATION_ID = 1,			/* text */
	INCARNATION_TIMELINE,		/* int4 */
	INCARNATION_SINCE,			/* timestamptz */
	INCARNATION_LINEAGE,		/* text */
};
#define INCARNATION_NCOLUMNS	4

static Oid
table_oid(void)
{
	Oid			schema = get_namespace_oid("uncache", true);

	return OidIsValid(schema) ? get_relname_relid("incarnation", schema) : InvalidOid;
}

/* The row that the snapshot sees, as a copy; NULL without. */
static HeapTuple
find_row(Relation rel, Snapshot snapshot)
{
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL, SO_NONE);
	HeapTuple	tuple = heap_getnext(scan, ForwardScanDirection);

	if (tuple != NULL)
		tuple = heap_copytuple(tuple);
	table_endscan(scan);
	return tuple;
}

static HeapTuple
form_row(Relation rel, TimeLineID timeline)
{
	Datum		values[INCARNATION_NCOLUMNS];
	bool		nulls[INCARNATION_NCOLUMNS] = {false};

	Assert(UncacheShmem->incarnation[0] != '\0' && UncacheShmem->lineage[0] != '\0');
	values[INCARNATION_ID - 1] = CStringGetTextDatum(UncacheShmem->incarnation);
	values[INCARNATION_TIMELINE - 1] = Int32GetDatum((int32) timeline);
	values[INCARNATION_SINCE - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[INCARNATION_LINEAGE - 1] = CStringGetTextDatum(UncacheShmem->lineage);
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

static char *
text_of_row(Relation rel, HeapTuple row, int column)
{
	bool		isnull;
	Datum		value = row_getattr(row, column, RelationGetDescr(rel), &isnull);

	Assert(!isnull);
	return TextDatumGetCString(value);
}

/* Whether a crash lies between this life and the one that was made known here last. */
static IncarnationStart
judge(Relation rel, HeapTuple row, TimeLineID timeline)
{
	bool		isnull;
	Datum		last;

	if (row == NULL)
		return INCARNATION_AFTER_SHUTDOWN;	/* the extension is new */
	if (strcmp(text_of_row(rel, row, INCARNATION_ID), UncacheShmem->incarnation) == 0)
		return INCARNATION_SAME;
	last = row_getattr(row, INCARNATION_TIMELINE, RelationGetDescr(rel), &isnull);
	Assert(!isnull);
	if (strcmp(text_of_row(rel, row, INCARNATION_LINEAGE), UncacheShmem->lineage) != 0 ||
		(TimeLineID) DatumGetInt32(last) != timeline)
		return INCARNATION_AFTER_CRASH;
	return INCARNATION_AFTER_SHUTDOWN;
}

IncarnationStart
incarnation_look(void)
{
	IncarnationStart start = INCARNATION_SAME;
	Relation	rel;

	Assert(ActiveSnapshotSet());
	switch (outbox_open_try(table_oid(), RowExclusiveLock, &rel))
	{
		case OPENING_DONE:
			start = judge(rel, find_row(rel, GetActiveSnapshot()), GetWALInsertionTimeLine());
			relation_close(rel, NoLock);
			break;
		case OPENING_REFUSED:
			return INCARNATION_LOCKED;
		case OPENING_GONE:
			break;
	}
	return start;
}

void
incarnation_adopt(void)
{
	Relation	rel = relation_open(table_oid(), RowExclusiveLock);
	HeapTuple	row = find_row(rel, GetActiveSnapshot());

	Assert(CheckRelationLockedByMe(rel, RowExclusiveLock, true));
	/* Not an update, which logical decoding would show. */
	if (row != NULL)
		simple_heap_delete(rel, &row->t_self);
	heap_insert(rel, form_row(rel, GetWALInsertionTimeLine()), GetCurrentCommandId(true),
				HEAP_INSERT_NO_LOGICAL, NULL);
	relation_close(rel, NoLock);
}

char *
incarnation_seen_by(Snapshot snapshot)
{
	Oid			oid = table_oid();
	Relation	rel;
	HeapTuple	row;
	char	   *id = NULL;

	if (!OidIsValid(oid) || !ConditionalLockRelationOid(oid, AccessShareLock))
		return NULL;
	rel = try_relation_open(oid, NoLock);
	if (rel == NULL)
		return NULL;
	row = find_row(rel, snapshot);
	if (row != NULL)
		id = text_of_row(rel, row, INCARNATION_ID);
	relation_close(rel, AccessShareLock);
	return id;
}
