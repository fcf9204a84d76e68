/*
 * rules_of_key.c
 *	  uncache.rules_of_key(): the rules that can produce a key.
 *
 * The key is compared with the key pattern of each template (keypattern.h), prefix
 * included, as TRUNCATE compares the keys that it finds; here also with the patterns of
 * templates that are too short for TRUNCATE.  No function of a template is run.  A broken
 * rule produces no key; a WARNING says so, since a test that expects the rule would
 * otherwise look for the fault in the template.
 */
#include "postgres.h"

#include "access/relation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/invalidation.h"
#include "base/sql_row.h"
#include "base/subtransaction.h"
#include "rules/rule_cache.h"
#include "template/key_encoding.h"
#include "template/keypattern.h"

/* Columns of the result. */
enum KeyRulesColumn
{
	KEY_RULES_RELATION,
	KEY_RULES_TRIGGER,
	KEY_RULES_TEMPLATE,
	KEY_RULES_NCOLUMNS
};

/* The arguments of check_rule(). */
typedef struct KeyCheck
{
	const RuleInfo *info;
	const char *key;			/* in UTF-8 */
	ReturnSetInfo *rsinfo;
} KeyCheck;

SQL_FUNCTION(uncache_rules_of_key);

static bool
can_produce(const Template *template, const char *key)
{
	char	   *text = template_full_keypattern(template);
	KeyPattern *pattern = keypattern_parse(text, strlen(text));
	bool		result;

	if (pattern == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed to read the key pattern of template \"%s\".",
						   template_shown(template->text))));
	result = keypattern_matches(pattern, key, strlen(key));
	keypattern_free(pattern);
	pfree(text);
	return result;
}

static void
put_template(const KeyCheck *check, const Template *template)
{
	Datum		values[KEY_RULES_NCOLUMNS];
	bool		nulls[KEY_RULES_NCOLUMNS] = {false};

	values[KEY_RULES_RELATION] = ObjectIdGetDatum(check->info->relation);
	values[KEY_RULES_TRIGGER] = DirectFunctionCall1(namein, CStringGetDatum(check->info->name));
	values[KEY_RULES_TEMPLATE] = CStringGetTextDatum(template->text);
	sql_row_put(check->rsinfo, lengthof(values), values, nulls);
}

/* Called in a subtransaction.  Another session may have dropped the table meanwhile. */
static void
check_rule(void *arg)
{
	const KeyCheck *check = arg;
	Relation	rel = try_relation_open(check->info->relation, AccessShareLock);
	Rule	   *rule;

	if (rel == NULL)
		return;
	rule = rule_inspect(rel, check->info);
	for (int i = 0; i < rule->ntemplates; i++)
	{
		if (can_produce(rule->templates[i], check->key))
			put_template(check, rule->templates[i]);
	}
	rule_discard(rule);

	/* A session that has called this must not block DDL until its transaction ends. */
	relation_close(rel, AccessShareLock);
}

static void
check_or_warn(KeyCheck *check)
{
	ErrorData  *edata = subtransaction_run(check_rule, check);

	if (edata == NULL)
		return;
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
		ReThrowError(edata);
	ereport(WARNING,
			(errcode(edata->sqlerrcode),
			 errmsg("rule \"%s\" on table \"%s\" could not be checked: %s", check->info->name,
					get_rel_name(check->info->relation), edata->message),
			 edata->detail ? errdetail_internal("%s", edata->detail) : 0,
			 errhint("The view uncache.rules shows what is wrong with a rule.")));
	FreeErrorData(edata);
}

/* rules_of_key(key text) returns setof record: one row for each template; strict */
Datum
uncache_rules_of_key(PG_FUNCTION_ARGS)
{
	char	   *key = text_to_cstring(PG_GETARG_TEXT_PP(0));
	KeyCheck	check = {.key = key_to_utf8(key, strlen(key))};
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	check.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	foreach(cell, rule_list_of_database())
	{
		CHECK_FOR_INTERRUPTS();
		check.info = lfirst(cell);
		if (!OidIsValid(check.info->parent))
			check_or_warn(&check);
	}
	return (Datum) 0;
}
