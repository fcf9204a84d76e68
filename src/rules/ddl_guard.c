/*
 * ddl_guard.c
 *	  Refusing a command that has broken a rule, or dropping the rule.
 *
 * The event triggers call this when a command has done its work but can still fail.
 *
 * The command need not be what has broken a rule.  So only rules whose text has the
 * name of the changed object are looked at, and a rule is dropped only if it fails
 * because an object is missing: a user can neither drop a rule of another user by an
 * unrelated DROP, nor be stopped by a rule that was broken before.
 *
 * Two kinds of triggers are passed over: a clone, which breaks and recovers with its
 * parent, and a disabled one, which may stay broken until it is enabled.
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
			 errhint("Drop the rule first (uncache.detach() or DROP TRIGGER) and make it anew "
					 "afterwards; a DROP with CASCADE drops it, too.")));
}

static void
drop_rule(const RuleInfo *info, const char *problem)
{
	ObjectAddress address;

	Assert(!OidIsValid(info->parent));
	ereport(NOTICE,
			(errmsg("drop cascades to rule \"%s\" on table \"%s\"",
					info->name, get_rel_name(info->relation)),
			 errdetail("%s", problem)));
	ObjectAddressSet(address, TriggerRelationId, info->trigger);
	performDeletion(&address, DROP_CASCADE, 0);
	CommandCounterIncrement();
}

/* Whether an error says that an object does not exist. */
static bool
is_missing_object(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_UNDEFINED_COLUMN ||
		sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
		sqlerrcode == ERRCODE_UNDEFINED_OBJECT ||
		sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		sqlerrcode == ERRCODE_INVALID_SCHEMA_NAME;
}

static bool
is_guarded(const RuleInfo *info)
{
	return !OidIsValid(info->parent) && info->enabled != TRIGGER_DISABLED;
}

/* "only", unless it is 0, limits this to rules that fail with that SQLSTATE. */
static void
guard_rule(const RuleInfo *info, bool cascade, int only)
{
	char	   *problem;
	int			sqlerrcode;

	if (!is_guarded(info))
		return;
	problem = rule_compile_problem(info, &sqlerrcode);
	if (problem == NULL || (only != 0 && sqlerrcode != only))
		return;
	if (cascade && is_missing_object(sqlerrcode))
		drop_rule(info, problem);
	else
		refuse_command(info, problem);
}

/* The rules of a table, and of the tables that inherit its columns. */
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
 * The names in a rule's text
 * --------------------------------------------------------------------------
 */

static bool
is_word(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/*
 * Whether a text may have the name of an object: true also where the text could
 * write the name in another way (doubled quotes, U& escapes).
 */
static bool
text_names(const char *text, const char *name)
{
	size_t		len = strlen(name);

	Assert(len > 0);
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
 * The search_path of templates is pg_catalog, so a template has to write the schema of
 * any other object: its schema and name tell which rules it may concern.
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

/*
 * A cast has no name that would connect it with a rule, so the rule is never dropped: the
 * command fails, also with CASCADE.
 */
void
ddl_guard_casts(void)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
		guard_rule(lfirst(cell), false, ERRCODE_CANNOT_COERCE);
}

/* The number of the first template that uses a column, from 1; 0 if none does. */
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
	Assert(found <= rule_ntemplates(info));
	return found;
}

/* With another type the same rows may give other texts, so other keys. */
static void
guard_type(const RuleInfo *info, const char *column)
{
	int			template;

	if (!is_guarded(info))
		return;
	template = template_with_column(info, column);
	if (template > 0)
		refuse_command(info,
					   psprintf("Template \"%s\" of table \"%s\" uses column \"%s\", whose type is "
								"to be changed.",
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
