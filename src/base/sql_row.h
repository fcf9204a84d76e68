/*
 * sql_row.h
 *	  Rows of functions whose SQL declaration may be of another version than this library.
 *
 * The library changes when the server restarts, the declarations with ALTER EXTENSION
 * pg_uncache UPDATE.  In between a view must still work, above all uncache.stat, whose
 * last_error says what to do.  So each version adds columns at the end of what a function
 * returns, and changes and removes none: the columns that both know are filled, a later one
 * is NULL.
 */
#ifndef UNCACHE_SQL_ROW_H
#define UNCACHE_SQL_ROW_H

#include "postgres.h"

#include "access/htup_details.h"
#include "nodes/execnodes.h"
#include "utils/tuplestore.h"

/* A row of the n values that this library knows, as the declaration wants it. */
static inline HeapTuple
sql_row_form(TupleDesc desc, int n, const Datum *values, const bool *nulls)
{
	Datum	   *declared = palloc0(sizeof(Datum) * desc->natts);
	bool	   *is_null = palloc(sizeof(bool) * desc->natts);
	HeapTuple	row;

	for (int i = 0; i < desc->natts; i++)
	{
		is_null[i] = i >= n || nulls[i];
		if (!is_null[i])
			declared[i] = values[i];
	}
	row = heap_form_tuple(desc, declared, is_null);
	pfree(declared);
	pfree(is_null);
	return row;
}

/* Such a row of a set, which is materialized. */
static inline void
sql_row_put(ReturnSetInfo *result, int n, Datum *values, bool *nulls)
{
	HeapTuple	row;

	if (result->setDesc->natts <= n)
	{
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		return;
	}
	row = sql_row_form(result->setDesc, n, values, nulls);
	tuplestore_puttuple(result->setResult, row);
	heap_freetuple(row);
}

#endif							/* UNCACHE_SQL_ROW_H */
