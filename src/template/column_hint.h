/*
 * column_hint.h
 *	  Names of columns that users write, and misspell.
 */
#ifndef UNCACHE_COLUMN_H
#define UNCACHE_COLUMN_H

#include "postgres.h"
#include "utils/rel.h"

/* Whether a table has a column of exactly this name; not a system column. */
extern bool column_hint_exists(Relation rel, const char *name);

/*
 * For ereport(): a hint at the column whose name is most like this one; where there
 * is none such "otherwise", or no hint if that is NULL.  "in_sql": the name stands in
 * an SQL expression, where some have to be quoted.
 */
extern int	column_hint(Relation rel, const char *name, bool in_sql, const char *otherwise);

#endif							/* UNCACHE_COLUMN_H */
