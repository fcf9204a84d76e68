/*
 * rule_guard.c
 *	  Refusing a command that has broken a rule, or dropping the rule.
 *
 * Called when the command is done, but can still fail.  A clone breaks with the
 * rule that it is a clone of, so it is not looked at.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/lsyscache.h"

#include "rule_check.h"
#include "rule_guard.h"

static void
refuse_command(const RuleInfo *info, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("rule \"%s\" on table \"%s\" would no longer work",
					info->name, get_rel_name(info->relation)),
			 errdetail("%s", problem),
			 errhint("Drop the rule first (uncache.detach() or DROP TRIGGER) and make it anew afterwards; a DROP with CASCADE drops it, too.")));
}

static void
drop_rule(const RuleInfo *info, const char *problem)
{
	ObjectAddress address;

	ereport(NOTICE,
			(errmsg("drop cascades to rule \"%s\" on table \"%s\"",
					info->name, get_rel_name(info->relation)),
			 errdetail("%s", problem)));
	ObjectAddressSet(address, TriggerRelationId, info->trigger);
	performDeletion(&address, DROP_CASCADE, 0);
	CommandCounterIncrement();
}

/* A clone breaks with its parent; a disabled rule may stay broken. */
static void
guard_rule(const RuleInfo *info, bool cascade)
{
	char	   *problem;

	if (OidIsValid(info->parent) || info->enabled == TRIGGER_DISABLED)
		return;
	problem = rule_compile_problem(info, true);
	if (problem == NULL)
		return;
	if (cascade)
		drop_rule(info, problem);
	else
		refuse_command(info, problem);
}

/* Those of a table, and of all that inherit its columns. */
static List *
rules_of_family(Oid relid)
{
	List	   *result = NIL;
	ListCell   *cell;

	if (!has_subclass(relid))
		return rules_of_table(relid);
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
		result = list_concat(result, rules_of_table(lfirst_oid(cell)));
	return result;
}

bool
rule_guard_table(Oid relid, bool cascade)
{
	List	   *rules = rules_of_family(relid);
	ListCell   *cell;

	foreach(cell, rules)
		guard_rule(lfirst(cell), cascade);
	return rules != NIL;
}

/* Whether any template has more in its braces than names of columns. */
static bool
has_expressions(const RuleInfo *info)
{
	for (int i = 0; i < rule_ntemplates(info); i++)
	{
		bool		inside = false;

		for (const char *p = rule_templates(info)[i]; *p; p++)
		{
			if (*p == '{' || *p == '}')
				inside = *p == '{';
			else if (inside && strchr("(:.|+-*/<>=~!@#%^&?[", *p) != NULL)
				return true;
		}
	}
	return false;
}

/* Something that any expression may use has changed. */
void
rule_guard_expressions(const char *function, bool cascade)
{
	ListCell   *cell;

	foreach(cell, rules_of_database())
	{
		RuleInfo   *info = lfirst(cell);
		bool		concerned = has_expressions(info);

		/* Of a replaced function the name is known; most rules do not have it. */
		if (concerned && function != NULL)
		{
			concerned = false;
			for (int i = 0; i < info->nargs; i++)
				concerned |= strstr(info->args[i], function) != NULL;
		}
		if (concerned)
			guard_rule(info, cascade);
	}
}

/* The first template that uses a column, counted from 1; 0 for none. */
static int
template_with_column(const RuleInfo *info, const char *name)
{
	AttrNumber	column = get_attnum(info->relation, name);
	Relation	rel = relation_open(info->relation, AccessShareLock);
	Rule	   *rule = rule_inspect(rel, info);
	int			found = 0;

	for (int i = rule->ntemplates; i > 0; i--)
	{
		Template   *template = rule->templates[i - 1];

		if (template->ncolumns < 0)
			found = i;
		for (int c = 0; c < template->ncolumns; c++)
		{
			if (template->columns[c] == column)
				found = i;
		}
	}
	rule_discard(rule);
	relation_close(rel, NoLock);
	return found;
}

/* A new type means new texts, so other keys for the same rows. */
void
rule_guard_type(Oid relid, const char *column)
{
	ListCell   *cell;

	foreach(cell, rules_of_family(relid))
	{
		RuleInfo   *info = lfirst(cell);
		int			template;

		if (OidIsValid(info->parent) || info->enabled == TRIGGER_DISABLED)
			continue;
		template = template_with_column(info, column);
		if (template > 0)
			refuse_command(info,
						   psprintf("Template \"%s\" of table \"%s\" uses column \"%s\", whose type is to be changed.",
									rule_templates(info)[template - 1],
									get_rel_name(info->relation), column));
	}
}
