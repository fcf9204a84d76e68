/*
 * column_hint.c
 *	  Hints for misspelt names of columns.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/varlena.h"

#include "template/template.h"

/*
 * Most single-character changes between a misspelt name and the hint's: more would suggest
 * names that have nothing to do with it.  PostgreSQL has the same limit.
 */
#define MAX_SUGGESTION_DISTANCE	3

/* The column whose name is most similar to "name", or NULL. */
static const char *
similar_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char *best = NULL;
	int			best_distance = MAX_SUGGESTION_DISTANCE + 1;
	int			len = strlen(name);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int			distance;
		int			att_len;

		if (att->attisdropped)
			continue;
		if (pg_strcasecmp(NameStr(att->attname), name) == 0)
			return NameStr(att->attname);
		att_len = strlen(NameStr(att->attname));
		distance = varstr_levenshtein_less_equal(name, len,
												 NameStr(att->attname), att_len,
												 1, 1, 1,
												 best_distance, true);

		/* Names of which more than half would have to change are not similar. */
		if (distance < best_distance && distance <= Max(len, att_len) / 2)
		{
			best_distance = distance;
			best = NameStr(att->attname);
		}
	}
	return best;
}

int
column_hint(Relation rel, const char *name, bool in_sql, const char *otherwise)
{
	const char *similar = similar_column(rel, name);

	Assert(name != NULL);
	if (similar == NULL)
		return otherwise ? errhint("%s", otherwise) : 0;
	if (!in_sql || strcmp(quote_identifier(similar), similar) == 0)
		return errhint("Perhaps you meant \"%s\".", similar);
	return errhint("Perhaps you meant \"%s\", which is written in double quotes.", similar);
}

bool
column_hint_exists(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return true;
	}
	return false;
}
