/*
 * ddl_guard.c
 *	  Refusing a command that has broken a rule, or dropping the rule.
 *
 * Called when the command is done, but can still fail.  A clone breaks with the
 * rule that it is a clone of, so it is not looked at.
 *
 * A rule that does not work is not always the fault of the command: only rules
 * that name what was changed are looked at, and only for the want of something
 * that they name is one dropped.  So nobody can get rid of, or be held up by, what
 * is somebody else's.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "rules/rule_cache.h"
#include "rules/rules_int.h"

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

/* Errors that come of an object that is not there any more. */
static bool
is_missing_object(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_UNDEFINED_COLUMN ||
		sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
		sqlerrcode == ERRCODE_UNDEFINED_OBJECT ||
		sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		sqlerrcode == ERRCODE_INVALID_SCHEMA_NAME;
}

/*
 * A clone breaks with its parent; a disabled rule may stay broken.  "only" limits
 * this to rules that fail with that error, unless it is 0.
 */
static void
guard_rule(const RuleInfo *info, bool cascade, int only)
{
	char	   *problem;
	int			sqlerrcode;

	if (OidIsValid(info->parent) || info->enabled == TRIGGER_DISABLED)
		return;
	problem = rule_compile_problem(info, &sqlerrcode);
	if (problem == NULL || (only != 0 && sqlerrcode != only))
		return;
	if (cascade && is_missing_object(sqlerrcode))
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
		return rule_list_of_table(relid);
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
		result = list_concat(result, rule_list_of_table(lfirst_oid(cell)));
	return result;
}

bool
ddl_guard_table(Oid relid)
{
	List	   *rules = rules_of_family(relid);
	ListCell   *cell;

	foreach(cell, rules)
		guard_rule(lfirst(cell), false, 0);
	return rules != NIL;
}

/*
 * --------------------------------------------------------------------------
 * What a rule names
 * --------------------------------------------------------------------------
 */

static bool
is_word(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/*
 * Whether a text may name an object.  Where a name could be written in another
 * way, the answer is yes.
 */
static bool
text_names(const char *text, const char *name)
{
	size_t		len = strlen(name);

	if (strchr(name, '"') != NULL || strstr(text, "U&") != NULL || strstr(text, "u&") != NULL)
		return true;
	for (const char *p = text; *p; p++)
	{
		if (pg_strncasecmp(p, name, len) == 0 &&
			!(is_word(name[0]) && p > text && is_word(p[-1])) &&
			!(is_word(name[len - 1]) && is_word(p[len])))
			return true;
	}
	return false;
}

static bool
rule_names(const RuleInfo *info, const ObjectName *object)
{
	for (int i = 0; i < info->nargs; i++)
	{
		if (text_names(info->args[i], object->name) &&
			(object->schema == NULL || strcmp(object->schema, "pg_catalog") == 0 ||
			 text_names(info->args[i], object->schema)))
			return true;
	}
	return false;
}

void
ddl_guard_column(Oid relid, const char *column, bool cascade)
{
	ObjectName	name = {NULL, column};
	ListCell   *cell;

	foreach(cell, rules_of_family(relid))
	{
		if (rule_names(lfirst(cell), &name))
			guard_rule(lfirst(cell), cascade, 0);
	}
}

/*
 * Objects that are not on the search_path of templates are written with their
 * schema, so by their names it is known which rules they may concern.
 */
void
ddl_guard_objects(List *names, bool cascade)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
	{
		RuleInfo   *info = lfirst(cell);
		ListCell   *name;

		foreach(name, names)
		{
			if (!rule_names(info, lfirst(name)))
				continue;
			guard_rule(info, cascade, 0);
			break;
		}
	}
}

/* A cast has no name, so no rule is dropped for its sake. */
void
ddl_guard_casts(void)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
		guard_rule(lfirst(cell), false, ERRCODE_CANNOT_COERCE);
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
static void
guard_type(const RuleInfo *info, const char *column)
{
	int			template;

	if (OidIsValid(info->parent) || info->enabled == TRIGGER_DISABLED)
		return;
	template = template_with_column(info, column);
	if (template > 0)
		refuse_command(info,
					   psprintf("Template \"%s\" of table \"%s\" uses column \"%s\", whose type is to be changed.",
								rule_templates(info)[template - 1],
								get_rel_name(info->relation), column));
}

void
ddl_guard_type(Oid relid, const char *column)
{
	ListCell   *cell;

	foreach(cell, rules_of_family(relid))
		guard_type(lfirst(cell), column);
}

/* Whether a table was made with CREATE TABLE ... OF this type. */
static bool
is_of_type(Oid relid, Oid type)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_class) GETSTRUCT(tuple))->reloftype == type;
	ReleaseSysCache(tuple);
	return result;
}

void
ddl_guard_attribute_type(Oid type, const char *attribute)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
	{
		RuleInfo   *info = lfirst(cell);

		if (is_of_type(info->relation, type))
			guard_type(info, attribute);
	}
}
