/*
 * row_change.c
 *	  What an UPDATE has changed.
 *
 * Values are compared byte by byte and not with the type's "=", which takes
 * texts that differ for equal (citext, numeric).  A value that is stored in
 * another way only, compressed or in the TOAST table, is the same.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "utils/datum.h"

#include "rules/row_change.h"

/*
 * Whether two values of variable length are stored alike.  Of what is in the TOAST
 * table only the pointers are looked at: nothing is fetched for a column that the
 * UPDATE has not touched.
 */
static inline bool
stored_alike(Datum oldvalue, Datum newvalue)
{
	Pointer		old = DatumGetPointer(oldvalue);
	Pointer		new = DatumGetPointer(newvalue);
	Size		size = VARSIZE_ANY(old);

	return size == VARSIZE_ANY(new) && memcmp(old, new, size) == 0;
}

static inline bool
column_differs(TupleTableSlot *oldslot, TupleTableSlot *newslot, AttrNumber column)
{
	Form_pg_attribute att;
	Datum		oldvalue;
	Datum		newvalue;
	bool		oldnull;
	bool		newnull;

	if (column == TableOidAttributeNumber)
		return false;			/* a row that moves is deleted and inserted */
	oldvalue = slot_getattr(oldslot, column, &oldnull);
	newvalue = slot_getattr(newslot, column, &newnull);
	if (oldnull || newnull)
		return oldnull != newnull;

	att = TupleDescAttr(oldslot->tts_tupleDescriptor, column - 1);
	if (att->attbyval)
		return oldvalue != newvalue;
	if (att->attlen == -1 && stored_alike(oldvalue, newvalue))
		return false;
	return !datum_image_eq(oldvalue, newvalue, false, att->attlen);
}

bool
columns_differ(TupleTableSlot *oldslot, TupleTableSlot *newslot,
			   const AttrNumber *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		if (column_differs(oldslot, newslot, columns[i]))
			return true;
	}
	return false;
}

/* All of the tuple but for its transactional head. */
static inline bool
same_bytes(HeapTuple oldtuple, HeapTuple newtuple)
{
	HeapTupleHeader old = oldtuple->t_data;
	HeapTupleHeader new = newtuple->t_data;

	return oldtuple->t_len == newtuple->t_len &&
		old->t_hoff == new->t_hoff &&
		HeapTupleHeaderGetNatts(old) == HeapTupleHeaderGetNatts(new) &&
		(old->t_infomask & ~HEAP_XACT_MASK) == (new->t_infomask & ~HEAP_XACT_MASK) &&
		memcmp((char *) old + SizeofHeapTupleHeader,
			   (char *) new + SizeofHeapTupleHeader,
			   oldtuple->t_len - SizeofHeapTupleHeader) == 0;
}

/* Whether any column differs among those whose values are of fixed length, or not. */
static inline bool
any_differs(TupleTableSlot *oldslot, TupleTableSlot *newslot, bool fixed_length)
{
	TupleDesc	desc = oldslot->tts_tupleDescriptor;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && (att->attlen > 0) == fixed_length &&
			column_differs(oldslot, newslot, i + 1))
			return true;
	}
	return false;
}

bool
row_is_same(HeapTuple oldtuple, HeapTuple newtuple,
			TupleTableSlot *oldslot, TupleTableSlot *newslot)
{
	if (same_bytes(oldtuple, newtuple))
		return true;

	/* What may have to be fetched from the TOAST table comes last. */
	return !any_differs(oldslot, newslot, true) &&
		!any_differs(oldslot, newslot, false);
}
