/*
 * row_change.h
 *	  What an UPDATE has changed.
 */
#ifndef UNCACHE_ROW_CHANGE_H
#define UNCACHE_ROW_CHANGE_H

#include "postgres.h"
#include "access/attnum.h"
#include "access/htup.h"
#include "executor/tuptable.h"

/* Whether both versions of a row are the same to whoever reads it. */
extern bool row_is_same(HeapTuple oldtuple, HeapTuple newtuple,
						TupleTableSlot *oldslot, TupleTableSlot *newslot);

/*
 * Whether one of these columns differs.  Columns are compared as they are
 * stored, but for compression and TOAST: 1.0 and 1.00 differ.
 */
extern bool columns_differ(TupleTableSlot *oldslot, TupleTableSlot *newslot,
						   const AttrNumber *columns, int ncolumns);

#endif							/* UNCACHE_ROW_CHANGE_H */
