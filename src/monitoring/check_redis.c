/*
 * check_redis.c
 *	  uncache.check_redis(): what works at the Redis that is configured.
 *
 * The worker asks Redis (question_check.c).  This file tells it which keys the rules make,
 * since an ACL may forbid some of them, and makes rows of the answer.  Tables with rules that
 * are locked by other sessions are left out, so that the function answers at night, too.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/log_text.h"
#include "base/sql_row.h"
#include "base/subtransaction.h"
#include "rules/rule_cache.h"
#include "rules/rule_catalog.h"
#include "template/keypattern.h"
#include "worker/question.h"

SQL_FUNCTION(uncache_check_redis);

#define CHECK_COLUMNS	3

/* The patterns of the rules, each once. */
typedef struct Patterns
{
	StringInfoData question;
	List	   *shown;			/* char * */
	int			left_out;
} Patterns;

/*
 * A key that a key pattern (keypattern.h) covers, as far as an ACL may look at it: each class
 * in braces stands for "1", one of fixed texts for the first of them.
 */
static char *
sample_key(const char *pattern)
{
	StringInfoData key;

	initStringInfo(&key);
	for (const char *c = pattern; *c; c++)
	{
		if ((*c == '{' || *c == '}') && c[1] == *c)
			appendStringInfoChar(&key, *c++);
		else if (*c != '{')
			appendStringInfoChar(&key, *c);
		else
		{
			const char *class = c + 1;

			if (class[0] == '=')
				appendBinaryStringInfo(&key, class + 1, strcspn(class + 1, "|}\\"));
			else
				appendStringInfoChar(&key, '1');
			while (*c && *c != '}')
				c += *c == '\\' && c[1] ? 2 : 1;
			if (*c == '\0')
				break;
		}
	}
	return key.data;
}

static void
add_pattern(Patterns *patterns, const char *text)
{
	KeyPattern *pattern = keypattern_parse(text, strlen(text));
	char	   *shown;
	char	   *key;
	ListCell   *cell;

	if (pattern == NULL)
		return;
	shown = pstrdup(keypattern_glob(pattern));
	keypattern_free(pattern);
	foreach(cell, patterns->shown)
	{
		if (strcmp(lfirst(cell), shown) == 0)
			return;
	}
	patterns->shown = lappend(patterns->shown, shown);
	key = sample_key(text);
	if (list_length(patterns->shown) > CHECK_MOST_PATTERNS ||
		patterns->question.len + strlen(shown) + strlen(key) + 2 > QUESTION_BYTES)
	{
		patterns->left_out++;
		return;
	}
	appendBinaryStringInfo(&patterns->question, shown, strlen(shown) + 1);
	appendBinaryStringInfo(&patterns->question, key, strlen(key) + 1);
}

typedef struct RuleLook
{
	const RuleInfo *info;
	Patterns   *patterns;
} RuleLook;

/* Called in a subtransaction; what it allocates stays. */
static void
look_at_rule(void *arg)
{
	RuleLook   *look = arg;
	Oid			relid = look->info->relation;
	Relation	rel = ConditionalLockRelationOid(relid, AccessShareLock) ?
		try_relation_open(relid, NoLock) : NULL;
	Rule	   *rule;

	if (rel == NULL)
		return;
	rule = rule_inspect(rel, look->info);
	for (int i = 0; i < rule->ntemplates; i++)
		add_pattern(look->patterns, template_full_keypattern(rule->templates[i]));
	rule_discard(rule);
	/* A session that has called this must not block DDL until its transaction ends. */
	relation_close(rel, AccessShareLock);
}

/* A rule that is broken makes no keys; uncache.rules shows it. */
static void
collect_patterns(Patterns *patterns)
{
	ListCell   *cell;

	memset(patterns, 0, sizeof(Patterns));
	initStringInfo(&patterns->question);
	foreach(cell, rule_list_of_database())
	{
		RuleLook	look = {lfirst(cell), patterns};
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(look.info->parent))
			continue;
		error = subtransaction_run(look_at_rule, &look);
		if (error != NULL &&
			ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
	}
}

static void
put_check(ReturnSetInfo *result, const char *check, const char *ok, const char *detail)
{
	Datum		values[CHECK_COLUMNS];
	bool		nulls[CHECK_COLUMNS] = {false};

	values[0] = CStringGetTextDatum(check);
	values[1] = BoolGetDatum(ok[0] == 't');
	nulls[1] = ok[0] == '\0';
	values[2] = CStringGetTextDatum(detail);
	sql_row_put(result, lengthof(values), values, nulls);
}

/* Append a character of UTF-8 in this database's encoding; "?" for one that it lacks. */
static void
append_converted(StringInfo to, Oid proc, const char *character, int len)
{
	unsigned char *source = (unsigned char *) unconstify(char *, character);
	unsigned char bytes[MAX_MULTIBYTE_CHAR_LEN * MAX_CONVERSION_GROWTH + 1];

	if (len == 1)
		appendStringInfoChar(to, *character);
	else if (pg_do_encoding_conversion_buf(proc, PG_UTF8, GetDatabaseEncoding(), source, len,
										   bytes, sizeof(bytes), true) == len)
		appendStringInfoString(to, (char *) bytes);
	else
		appendStringInfoChar(to, '?');
}

/*
 * Text of an answer in this database's encoding.  Patterns of rules, the stream's name and words
 * of Redis are in UTF-8, last_error is in the database's encoding: what is not valid UTF-8 counts
 * as the latter.  Bytes that make no character become "?", since an ERROR would hide the rest.
 */
static char *
readable(const char *text)
{
	int			len = strlen(text);
	Oid			proc = FindDefaultConversionProc(PG_UTF8, GetDatabaseEncoding());
	StringInfoData converted;

	initStringInfo(&converted);
	if (!OidIsValid(proc) || pg_encoding_verifymbstr(PG_UTF8, text, len) != len)
	{
		enlargeStringInfo(&converted, len + 1);
		log_text_copy(converted.data, len + 1, text);
		return converted.data;
	}
	while (*text)
	{
		len = pg_encoding_mblen(PG_UTF8, text);
		append_converted(&converted, proc, text, len);
		text += len;
	}
	return converted.data;
}

/* Take the next text off an answer. */
static const char *
next_text(const char **next, const char *end)
{
	const char *text = *next;

	if (text >= end || memchr(text, '\0', end - text) == NULL)
		elog(ERROR, "the worker's answer ends within a check");
	*next = text + strlen(text) + 1;
	return text;
}

static void
put_answer(ReturnSetInfo *result, const StringInfo answer)
{
	const char *next = answer->data;
	const char *end = answer->data + answer->len;

	while (next < end)
	{
		const char *check = next_text(&next, end);
		const char *ok = next_text(&next, end);
		const char *detail = next_text(&next, end);

		put_check(result, readable(check), ok, readable(detail));
	}
}

/* check_redis() returns table (check text, ok boolean, detail text) */
Datum
uncache_check_redis(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StringInfoData answer;
	Patterns	patterns;

	InitMaterializedSRF(fcinfo, 0);
	initStringInfo(&answer);
	collect_patterns(&patterns);
	question_ask("uncache.check_redis()", QUESTION_CHECK, patterns.question.data,
				 patterns.question.len, &answer);
	put_answer(result, &answer);
	if (patterns.left_out > 0)
		put_check(result, "right: UNLINK", "",
				  psprintf("%d more patterns of rules are not checked", patterns.left_out));
	return (Datum) 0;
}
