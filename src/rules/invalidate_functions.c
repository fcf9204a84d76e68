/*
 * invalidate_functions.c
 *	  The SQL functions that need no rule: invalidate_keys(), invalidate_pattern(),
 *	  transaction_keys().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/sql_row.h"
#include "pending/pending_set.h"
#include "rules/rules_int.h"
#include "settings/settings.h"
#include "template/key_encoding.h"
#include "template/keypattern.h"

SQL_FUNCTION(uncache_invalidate_keys);
SQL_FUNCTION(uncache_invalidate_pattern);
SQL_FUNCTION(uncache_transaction_keys);

/* Redis compares a glob with every key that it holds, so a glob should be short. */
#define MAX_PATTERN_BYTES	4096

/*
 * --------------------------------------------------------------------------
 * Keys and patterns from any SQL
 * --------------------------------------------------------------------------
 */

/*
 * The prefix and a text, in UTF-8; *len is the length in bytes.  Raises an ERROR, with
 * "what" as its subject, for a result that is too long.  In front of a pattern the prefix
 * is literal text, so characters that are special in a glob are escaped.
 */
static char *
with_prefix(const char *prefix, const char *what, text *value, bool escape_prefix, size_t *len)
{
	StringInfoData key;
	char	   *utf8;

	initStringInfo(&key);
	for (const char *c = prefix; *c; c++)
	{
		if (escape_prefix && glob_is_special(*c))
			appendStringInfoChar(&key, '\\');
		appendStringInfoChar(&key, *c);
	}
	appendBinaryStringInfo(&key, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

	utf8 = key_to_utf8(key.data, key.len);
	*len = utf8 == key.data ? key.len : strlen(utf8);
	Assert(*len > 0);
	if (*len > INVALIDATION_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s is too long", what),
				 errdetail("It has %zu bytes with uncache.key_prefix; %d are allowed.",
						   *len, INVALIDATION_MAX_BYTES)));
	return utf8;
}

Datum
uncache_invalidate_keys(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	Datum	   *keys;
	bool	   *nulls;
	int			nkeys;
	int64		added = 0;

	PreventCommandDuringRecovery("uncache.invalidate_keys()");
	PreventCommandIfParallelMode("uncache.invalidate_keys()");
	if (PG_ARGISNULL(0))
		PG_RETURN_INT64(0);

	array = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls, &nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		size_t		len;
		char	   *key;

		if (nulls[i])
			continue;
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(keys[i])) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a key must not be empty")));
		key = with_prefix(setting_key_prefix, "key", DatumGetTextPP(keys[i]), false, &len);
		if (pending_set_add(INVALIDATION_KEY, InvalidOid, key, len))
			added++;
	}
	PG_RETURN_INT64(added);
}

Datum
uncache_invalidate_pattern(PG_FUNCTION_ARGS)
{
	text	   *pattern;
	size_t		len;
	char	   *glob;

	PreventCommandDuringRecovery("uncache.invalidate_pattern()");
	PreventCommandIfParallelMode("uncache.invalidate_pattern()");
	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();

	pattern = PG_GETARG_TEXT_PP(0);
	if (VARSIZE_ANY_EXHDR(pattern) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pattern must not be empty"),
				 errhint("Use * to delete all keys.")));
	glob = with_prefix(setting_key_prefix, "pattern", pattern, true, &len);
	if (len > MAX_PATTERN_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("pattern is too long"),
				 errdetail("It has %zu bytes with uncache.key_prefix; %d are allowed.",
						   len, MAX_PATTERN_BYTES)));
	pending_set_add(INVALIDATION_GLOB, InvalidOid, glob, len);
	PG_RETURN_VOID();
}

/*
 * --------------------------------------------------------------------------
 * What the running transaction would delete
 * --------------------------------------------------------------------------
 */

text *
invalidate_functions_readable_key(const Invalidation *item)
{
	char	   *copy = pnstrdup(item->bytes, item->len);
	char	   *text_form = copy;
	KeyPattern *pattern;

	switch (item->kind)
	{
		case INVALIDATION_KEYPATTERN:
			pattern = keypattern_parse(item->bytes, item->len);
			if (pattern)
			{
				text_form = pstrdup(keypattern_glob(pattern));
				keypattern_free(pattern);
			}
			break;
		case INVALIDATION_KEY:
		case INVALIDATION_GLOB:
		case INVALIDATION_FRAGMENT: /* exists in the outbox only */
			break;
	}
	return cstring_to_text(key_from_utf8(text_form, strlen(text_form)));
}

Datum
uncache_transaction_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_uncache key",
													  ALLOCSET_SMALL_SIZES);
	PendingReader *reader;
	Invalidation item;

	InitMaterializedSRF(fcinfo, 0);
	reader = pending_log_read_begin();
	while (pending_log_read_next(reader, &item))
	{
		MemoryContext old_context = MemoryContextSwitchTo(row_context);
		Datum		values[3] = {0};
		bool		nulls[3] = {true, true, false};

		if (OidIsValid(item.rule) && rule_describe(item.rule, values))
			nulls[0] = nulls[1] = false;
		values[2] = PointerGetDatum(invalidate_functions_readable_key(&item));
		MemoryContextSwitchTo(old_context);
		sql_row_put(result, lengthof(values), values, nulls);
		MemoryContextReset(row_context);
	}
	pending_log_read_end(reader);
	MemoryContextDelete(row_context);
	return (Datum) 0;
}
