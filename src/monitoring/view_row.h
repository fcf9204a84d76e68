/*
 * view_row.h
 *	  A row of a view that is being put together, column after column.
 */
#ifndef UNCACHE_VIEW_ROW_H
#define UNCACHE_VIEW_ROW_H

#include "postgres.h"

#include <math.h>

#include "port/atomics.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* More columns than any of the views has. */
#define VIEW_ROW_COLUMNS	60

typedef struct ViewRow
{
	Datum		values[VIEW_ROW_COLUMNS];
	bool		nulls[VIEW_ROW_COLUMNS];
	int			n;				/* columns put so far; 0 in a new row */
} ViewRow;

static inline void
view_row_put(ViewRow *row, Datum value)
{
	Assert(row->n < VIEW_ROW_COLUMNS);
	row->nulls[row->n] = false;
	row->values[row->n++] = value;
}

static inline void
view_row_null(ViewRow *row)
{
	Assert(row->n < VIEW_ROW_COLUMNS);
	row->values[row->n] = (Datum) 0;
	row->nulls[row->n++] = true;
}

/* An empty text shows as NULL. */
static inline void
view_row_text(ViewRow *row, const char *text)
{
	if (text == NULL || text[0] == '\0')
		view_row_null(row);
	else
		view_row_put(row, CStringGetTextDatum(text));
}

/* 0 shows as NULL. */
static inline void
view_row_time(ViewRow *row, TimestampTz at)
{
	if (at == 0)
		view_row_null(row);
	else
		view_row_put(row, TimestampTzGetDatum(at));
}

static inline void
view_row_count(ViewRow *row, pg_atomic_uint64 *counter)
{
	view_row_put(row, Int64GetDatum((int64) pg_atomic_read_u64(counter)));
}

/* Takes microseconds, shows milliseconds; below 0 means unknown, and shows NULL. */
static inline void
view_row_latency(ViewRow *row, double us)
{
	if (us < 0)
		view_row_null(row);
	else
		view_row_put(row, Float8GetDatum(rint(us) / 1000.0));
}

#endif							/* UNCACHE_VIEW_ROW_H */
