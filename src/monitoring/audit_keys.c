/*
 * audit_keys.c
 *	  uncache.audit_keys(): which keys in Redis no rule can produce, and which have no TTL.
 *
 * The worker brings a sample of keys (question_audit.c).  This file compares each with the
 * key patterns of all rules, as uncache.rules_of_key() does, and groups the keys: those that
 * a rule covers by the glob of its template, others by their text, in which parts that look
 * like a value become "*".  However different the keys are there is a limited number of
 * groups.
 */
#include "postgres.h"

#include "access/relation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/sql_row.h"
#include "base/subtransaction.h"
#include "rules/rule_cache.h"
#include "rules/rule_catalog.h"
#include "template/key_encoding.h"
#include "template/keypattern.h"
#include "worker/question.h"

SQL_FUNCTION(uncache_audit_keys);

#define AUDIT_COLUMNS	5

/*
 * Beyond this many groups of keys that no rule covers a new one is named by the first part of its
 * keys; then by "*".
 */
#define FINE_GROUPS		100
#define MOST_GROUPS		200

/* A part without a digit that is longer than this looks like a value, too. */
#define WORD_BYTES		24

/* A key of the sample; "bytes" is not null-terminated. */
typedef struct SampledKey
{
	AuditedKey	head;
	const char *bytes;
} SampledKey;

/* The key pattern of a template. */
typedef struct RulePattern
{
	struct RulePattern *next;
	KeyPattern *pattern;		/* of malloc(), freed with the memory context */
	MemoryContextCallback free;
} RulePattern;

typedef struct KeyGroup
{
	char	   *pattern;
	bool		covered;
	int64		keys;
	int64		without_ttl;
	bool		unknown_ttl;	/* of some key */
	char	   *example;
} KeyGroup;

typedef struct Audit
{
	RulePattern *patterns;
	List	   *groups;			/* KeyGroup */
	int			nuncovered;		/* of these, that no rule covers */
} Audit;

/*
 * --------------------------------------------------------------------------
 * Rules
 * --------------------------------------------------------------------------
 */

static void
free_pattern(void *arg)
{
	keypattern_free(arg);
}

static void
add_pattern(Audit *audit, const char *text)
{
	RulePattern *added = palloc0(sizeof(RulePattern));

	added->pattern = keypattern_parse(text, strlen(text));
	if (added->pattern == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	added->free.func = free_pattern;
	added->free.arg = added->pattern;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &added->free);
	added->next = audit->patterns;
	audit->patterns = added;
}

typedef struct RuleLook
{
	const RuleInfo *info;
	Audit	   *audit;
} RuleLook;

/* Called in a subtransaction, in a memory context that lives as long as the function. */
static void
look_at_rule(void *arg)
{
	RuleLook   *look = arg;
	Relation	rel = try_relation_open(look->info->relation, AccessShareLock);
	Rule	   *rule;

	if (rel == NULL)
		return;
	rule = rule_inspect(rel, look->info);
	for (int i = 0; i < rule->ntemplates; i++)
		add_pattern(look->audit, template_full_keypattern(rule->templates[i]));
	rule_discard(rule);
	relation_close(rel, AccessShareLock);
}

static void
collect_patterns(Audit *audit)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
	{
		RuleLook	look = {lfirst(cell), audit};
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(look.info->parent))
			continue;
		error = subtransaction_run(look_at_rule, &look);
		if (error == NULL)
			continue;
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
			ReThrowError(error);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("rule \"%s\" is broken, and covers no key: %s", look.info->name,
						error->message),
				 errhint("The view uncache.rules shows what is wrong with a rule.")));
	}
}

/* The pattern that covers a key; NULL: no rule can produce it. */
static const KeyPattern *
covering_pattern(const Audit *audit, const SampledKey *key)
{
	if (!key->head.whole)
		return NULL;
	for (RulePattern *p = audit->patterns; p != NULL; p = p->next)
	{
		if (keypattern_matches(p->pattern, key->bytes, key->head.len))
			return p->pattern;
	}
	return NULL;
}

/*
 * --------------------------------------------------------------------------
 * Groups
 * --------------------------------------------------------------------------
 */

static bool
is_part_of_word(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '-' || (c & 0x80) != 0;
}

/* "v2" is a version, not a value. */
static bool
looks_like_value(const char *word, size_t len)
{
	bool		has_digit = false;

	for (size_t i = 0; i < len; i++)
		has_digit |= isdigit((unsigned char) word[i]) != 0;
	if (len >= 2 && len <= 3 && word[0] == 'v' && strspn(word + 1, "0123456789") >= len - 1)
		return false;
	return has_digit || len > WORD_BYTES;
}

static void
append_literal(StringInfo to, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (glob_is_special(bytes[i]))
			appendStringInfoChar(to, '\\');
		/* In a glob any character fits "?". */
		appendStringInfoChar(to, bytes[i] == '\0' ? '?' : bytes[i]);
	}
}

/* The text of a key with "*" for values; "coarse": for all behind its first part. */
static char *
generalize(const SampledKey *key, bool coarse)
{
	const char *next = key->bytes;
	const char *end = key->bytes + key->head.len;
	StringInfoData text;

	initStringInfo(&text);
	while (next < end)
	{
		size_t		len = 0;

		while (next + len < end && is_part_of_word(next[len]))
			len++;
		if (len > 0 && looks_like_value(next, len))
			appendStringInfoChar(&text, '*');
		else
			append_literal(&text, next, Max(len, 1));
		next += Max(len, 1);
		if (coarse && len == 0)
			break;
	}
	if ((next < end || !key->head.whole) && (text.len == 0 || text.data[text.len - 1] != '*'))
		appendStringInfoChar(&text, '*');
	return text.data;
}

/* Bytes of Redis as text of this database; what it can't hold as \x and two digits. */
static char *
readable(const char *bytes, size_t len)
{
	StringInfoData text;

	if (memchr(bytes, '\0', len) == NULL &&
		(GetDatabaseEncoding() == PG_SQL_ASCII || GetDatabaseEncoding() == PG_UTF8) &&
		pg_encoding_verifymbstr(GetDatabaseEncoding(), bytes, len) == len)
		return pnstrdup(bytes, len);
	initStringInfo(&text);
	for (size_t i = 0; i < len; i++)
	{
		if (bytes[i] >= ' ' && bytes[i] <= '~')
			appendStringInfoChar(&text, bytes[i]);
		else
			appendStringInfo(&text, "\\x%02x", (unsigned char) bytes[i]);
	}
	return text.data;
}

static KeyGroup *
find_group(Audit *audit, const char *pattern, bool covered)
{
	ListCell   *cell;

	foreach(cell, audit->groups)
	{
		KeyGroup   *group = lfirst(cell);

		if (group->covered == covered && strcmp(group->pattern, pattern) == 0)
			return group;
	}
	return NULL;
}

static KeyGroup *
make_group(Audit *audit, const char *pattern, bool covered)
{
	KeyGroup   *group = find_group(audit, pattern, covered);

	if (group != NULL)
		return group;
	group = palloc0(sizeof(KeyGroup));
	group->pattern = pstrdup(pattern);
	group->covered = covered;
	audit->nuncovered += !covered;
	audit->groups = lappend(audit->groups, group);
	return group;
}

static KeyGroup *
group_of(Audit *audit, const SampledKey *key)
{
	const KeyPattern *covering = covering_pattern(audit, key);
	KeyGroup   *group;
	char	   *pattern;

	if (covering != NULL)
		return make_group(audit, keypattern_glob(covering), true);
	pattern = generalize(key, false);
	group = find_group(audit, pattern, false);
	if (group != NULL)
		return group;
	if (audit->nuncovered >= MOST_GROUPS)
		pattern = "*";
	else if (audit->nuncovered >= FINE_GROUPS)
		pattern = generalize(key, true);
	return make_group(audit, pattern, false);
}

static void
count_key(Audit *audit, const SampledKey *key)
{
	KeyGroup   *group = group_of(audit, key);

	group->keys++;
	group->without_ttl += key->head.ttl == 'f';
	group->unknown_ttl |= key->head.ttl == '?';
	if (group->example == NULL)
		group->example = readable(key->bytes, key->head.len);
}

/*
 * --------------------------------------------------------------------------
 * The sample, and the result
 * --------------------------------------------------------------------------
 */

static int
compare_keys(const void *a, const void *b)
{
	const SampledKey *x = a;
	const SampledKey *y = b;
	int			result = memcmp(x->bytes, y->bytes, Min(x->head.len, y->head.len));

	return result != 0 ? result : (x->head.len > y->head.len) - (x->head.len < y->head.len);
}

/* Where nothing, or not all, could be looked at, the rows alone would not show it. */
static void
tell_what_is_missing(const StringInfo answer)
{
	AuditSummary summary;

	if (answer->len < sizeof(AuditSummary))
		elog(ERROR, "the worker's answer ends within its summary");
	memcpy(&summary, answer->data, sizeof(AuditSummary));
	if (summary.answered == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("uncache.audit_keys() could not look at the keys of any Redis server"),
				 errhint("See state and last_error in uncache.stat, and uncache.check_redis(): "
						 "Redis must be reachable, uncache.delivery on, and SCAN permitted.")));
	if (summary.complete < summary.nodes)
		ereport(WARNING,
				(errmsg("uncache.audit_keys() could look at the keys of %u of %u Redis servers",
						summary.complete, summary.nodes),
				 errdetail("Keys of the others are missing, or a part of them."),
				 errhint("See last_error in uncache.stat, and uncache.check_redis().")));
}

/* Take the next key off an answer; returns the bytes of it. */
static size_t
read_key(SampledKey *key, const char *from, size_t left)
{
	if (left < sizeof(AuditedKey))
		elog(ERROR, "the worker's answer ends within a key");
	memcpy(&key->head, from, sizeof(AuditedKey));
	key->bytes = from + sizeof(AuditedKey);
	if (key->head.len > left - sizeof(AuditedKey))
		elog(ERROR, "the worker's answer ends within a key");
	return sizeof(AuditedKey) + key->head.len;
}

/* Count each key once: SCAN may give one twice, and several targets hold the same. */
static void
count_sample(Audit *audit, const StringInfo answer)
{
	SampledKey *sample = palloc(sizeof(SampledKey) * (answer->len / sizeof(AuditedKey) + 1));
	int			n = 0;

	for (int at = sizeof(AuditSummary); at < answer->len; n++)
		at += read_key(&sample[n], answer->data + at, answer->len - at);
	qsort(sample, n, sizeof(SampledKey), compare_keys);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == 0 || compare_keys(&sample[i - 1], &sample[i]) != 0)
			count_key(audit, &sample[i]);
	}
}

static int
compare_groups(const ListCell *a, const ListCell *b)
{
	const KeyGroup *x = lfirst(a);
	const KeyGroup *y = lfirst(b);

	if (x->keys != y->keys)
		return x->keys > y->keys ? -1 : 1;
	return strcmp(x->pattern, y->pattern);
}

static void
put_group(ReturnSetInfo *result, const KeyGroup *group)
{
	Datum		values[AUDIT_COLUMNS];
	bool		nulls[AUDIT_COLUMNS] = {false};

	values[0] = CStringGetTextDatum(readable(group->pattern, strlen(group->pattern)));
	values[1] = Int64GetDatum(group->keys);
	values[2] = BoolGetDatum(group->covered);
	values[3] = Int64GetDatum(group->without_ttl);
	nulls[3] = group->unknown_ttl;
	values[4] = CStringGetTextDatum(group->example);
	sql_row_put(result, lengthof(values), values, nulls);
}

/*
 * audit_keys(samples int) returns table (key_pattern text, keys bigint, covered boolean,
 * without_ttl bigint, example text)
 */
Datum
uncache_audit_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Audit		audit = {.patterns = NULL};
	StringInfoData answer;
	int32		samples;
	ListCell   *cell;

	samples = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);
	if (samples < 1 || samples > AUDIT_MOST_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument 1 of uncache.audit_keys() must be between 1 and %d",
						AUDIT_MOST_KEYS)));
	InitMaterializedSRF(fcinfo, 0);
	initStringInfo(&answer);
	question_ask("uncache.audit_keys()", QUESTION_AUDIT, (char *) &samples, sizeof(samples),
				 &answer);
	tell_what_is_missing(&answer);
	collect_patterns(&audit);
	count_sample(&audit, &answer);
	list_sort(audit.groups, compare_groups);
	foreach(cell, audit.groups)
		put_group(result, lfirst(cell));
	return (Datum) 0;
}
