/*
 * rules_view.c
 *	  The function behind the view uncache.rules.
 */
#include "postgres.h"

#include <limits.h>

#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/sql_row.h"
#include "base/subtransaction.h"
#include "rules/rules.h"

/* Columns of uncache.rules. */
enum RulesColumn
{
	RULES_RELATION,
	RULES_TRIGGER,
	RULES_EVENTS,
	RULES_COLUMNS,
	RULES_TEMPLATES,
	RULES_ENABLED,
	RULES_PROBLEM,
	RULES_NCOLUMNS
};

SQL_FUNCTION(uncache_list_rules);

static Datum
text_array(char **texts, int count)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		values[i] = CStringGetTextDatum(texts[i]);
	return PointerGetDatum(construct_array(values, Max(count, 0), TEXTOID, -1,
										   false, TYPALIGN_INT));
}

static Datum
events_of(const RuleInfo *info)
{
	char	   *events[4];
	int			count = 0;

	if (TRIGGER_FOR_INSERT(info->type))
		events[count++] = "INSERT";
	if (TRIGGER_FOR_UPDATE(info->type))
		events[count++] = "UPDATE";
	if (TRIGGER_FOR_DELETE(info->type))
		events[count++] = "DELETE";
	if (TRIGGER_FOR_TRUNCATE(info->type))
		events[count++] = "TRUNCATE";
	return text_array(events, count);
}

typedef struct ColumnList
{
	char	   *literal;
	Datum		names;			/* name[] */
} ColumnList;

static void
read_literal(void *arg)
{
	ColumnList *list = arg;

	list->names = OidInputFunctionCall(F_ARRAY_IN, list->literal, NAMEOID, -1);
}

/* The first argument of invalidate_columns(); NULL if it is no array, which "problem" tells. */
static Datum
columns_in_argument(const RuleInfo *info, bool *isnull)
{
	ColumnList	list = {info->args[0]};
	ErrorData  *edata = subtransaction_run(read_literal, &list);

	*isnull = edata != NULL;
	return list.names;
}

/* The columns whose change makes an UPDATE count; NULL if all do. */
static Datum
columns_of(const RuleInfo *info, bool *isnull)
{
	Datum	   *names = palloc(sizeof(Datum) * Max(info->nattrs, 1));
	int			count = 0;

	if (info->by_columns && info->nargs > 0)
		return columns_in_argument(info, isnull);
	*isnull = info->nattrs == 0;
	for (int i = 0; i < info->nattrs; i++)
	{
		char	   *name = get_attname(info->relation, info->attrs[i], true);

		/* Another session may have dropped the table meanwhile. */
		if (name != NULL)
			names[count++] = DirectFunctionCall1(namein, CStringGetDatum(name));
	}
	return PointerGetDatum(construct_array(names, count, NAMEOID, NAMEDATALEN,
										   false, TYPALIGN_CHAR));
}

static const char *
enabled_name(char enabled)
{
	switch (enabled)
	{
		case TRIGGER_FIRES_ALWAYS:
			return "always";
		case TRIGGER_FIRES_ON_ORIGIN:
			return "origin";
		case TRIGGER_FIRES_ON_REPLICA:
			return "replica";
		default:
			return "disabled";
	}
}

static void
put_rule(ReturnSetInfo *rsinfo, const RuleInfo *info)
{
	Datum		values[RULES_NCOLUMNS];
	bool		nulls[RULES_NCOLUMNS] = {0};
	char	   *problem = rule_problems(info, INT_MAX);

	Assert(!OidIsValid(info->parent));

	values[RULES_RELATION] = ObjectIdGetDatum(info->relation);
	values[RULES_TRIGGER] = DirectFunctionCall1(namein, CStringGetDatum(info->name));
	values[RULES_EVENTS] = events_of(info);
	values[RULES_COLUMNS] = columns_of(info, &nulls[RULES_COLUMNS]);
	values[RULES_TEMPLATES] = text_array(rule_templates(info), rule_ntemplates(info));
	values[RULES_ENABLED] = CStringGetTextDatum(enabled_name(info->enabled));
	nulls[RULES_PROBLEM] = problem == NULL;
	if (problem != NULL)
		values[RULES_PROBLEM] = CStringGetTextDatum(problem);
	sql_row_put(rsinfo, lengthof(values), values, nulls);
}

/* list_rules() returns setof record: one row for each rule that is no clone */
Datum
uncache_list_rules(PG_FUNCTION_ARGS)
{
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, rule_list_of_database())
	{
		RuleInfo   *info = lfirst(cell);

		/* Another session may have dropped the table meanwhile. */
		if (!OidIsValid(info->parent) && get_rel_name(info->relation) != NULL)
			put_rule((ReturnSetInfo *) fcinfo->resultinfo, info);
	}
	return (Datum) 0;
}
