/*
 * drop_notice.c
 *	  What DROP TABLE says about the keys of the table.
 *
 * DROP TABLE deletes no keys; a NOTICE for each table has the command that deletes them.
 * When the event trigger sql_drop runs, the table's rules are gone already.  So an
 * object access hook remembers each rule at the moment it is dropped, and the event
 * trigger then gives the NOTICE for the tables that are gone too.
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "rules/rules_int.h"
#include "template/keypattern.h"

static object_access_hook_type next_object_access = NULL;

/*
 * "p" is the first character of an expression: return the position behind its closing
 * brace.  A brace inside quotes does not close it.
 */
static const char *
skip_expression(const char *p)
{
	char		quote = '\0';

	for (; *p && (*p != '}' || quote); p++)
	{
		if (quote ? *p == quote : (*p == '\'' || *p == '"'))
			quote = quote ? '\0' : *p;
	}
	return *p ? p + 1 : p;
}

/*
 * A glob for the keys of a template, near enough for a hint.  NULL if it would also
 * match keys of other templates, by the same test as template_keypattern() has (two
 * letters or digits in front).  Works on the text alone: while the table is being
 * dropped, a template cannot be compiled.
 */
static char *
suggest_glob(const char *template)
{
	StringInfoData glob;
	bool		at_head = true;
	int			letters = 0;

	initStringInfo(&glob);
	for (const char *p = template; *p;)
	{
		bool		doubled = (*p == '{' || *p == '}') && p[1] == *p;
		int			len;

		if (*p == '{' && !doubled)
		{
			appendStringInfoChar(&glob, '*');
			p = skip_expression(p + 1);
			at_head = false;
			continue;
		}
		if (doubled)
			p++;
		if (at_head && (IS_HIGHBIT_SET(*p) || isalnum((unsigned char) *p)))
			letters++;
		if (glob_is_special(*p))
			appendStringInfoChar(&glob, '\\');
		len = pg_mblen(p);
		appendBinaryStringInfo(&glob, p, len);
		p += len;
	}
	return letters >= 2 ? glob.data : NULL;
}

/* A table of which a rule was dropped.  Whether the table is dropped too shows later. */
typedef struct DroppedTable
{
	Oid			relation;
	Oid			parent_relation;	/* where the rules were clones, or InvalidOid */
	char	   *name;
	List	   *globs;			/* char *, one for each pattern of keys, all different */
} DroppedTable;

/*
 * DroppedTable, since the last drop_notice_emit() of this transaction; in
 * TopTransactionContext, whose reset empties the list.
 */
static List *dropped = NIL;

static void
forget(void *arg)
{
	dropped = NIL;
}

static DroppedTable *
remember_table(Oid relation, Oid parent_relation)
{
	DroppedTable *table;
	ListCell   *cell;

	foreach(cell, dropped)
	{
		table = lfirst(cell);
		if (table->relation == relation && table->parent_relation == parent_relation)
			return table;
	}
	if (dropped == NIL)
	{
		MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

		callback->func = forget;
		MemoryContextRegisterResetCallback(TopTransactionContext, callback);
	}
	table = palloc0(sizeof(DroppedTable));
	table->relation = relation;
	table->parent_relation = parent_relation;
	table->name = get_rel_name(relation);
	dropped = lappend(dropped, table);
	return table;
}

static void
remember_glob(DroppedTable *table, char *glob)
{
	ListCell   *cell;

	foreach(cell, table->globs)
	{
		if (strcmp(lfirst(cell), glob) == 0)
			return;
	}
	table->globs = lappend(table->globs, glob);
}

static void
remember(const RuleInfo *info)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Oid			parent_relation = InvalidOid;
	DroppedTable *table;

	Assert(TRIGGER_FOR_ROW(info->type) && rule_ntemplates(info) > 0);
	if (OidIsValid(info->parent))
		(void) rule_topmost(info->parent, &parent_relation);
	table = remember_table(info->relation, parent_relation);
	for (int i = 0; i < rule_ntemplates(info); i++)
	{
		char	   *glob = suggest_glob(rule_templates(info)[i]);

		if (glob != NULL)
			remember_glob(table, glob);
	}
	MemoryContextSwitchTo(old);
}

static void
on_object_access(ObjectAccessType access, Oid classid, Oid objid, int subid, void *arg)
{
	RuleInfo   *info;

	if (next_object_access)
		next_object_access(access, classid, objid, subid, arg);
	if (access != OAT_DROP || classid != TriggerRelationId ||
		!OidIsValid(rule_function(false)))
		return;

	info = rule_by_trigger(objid);
	Assert(info == NULL || info->trigger == objid);
	if (info != NULL && rule_ntemplates(info) > 0 && TRIGGER_FOR_ROW(info->type))
		remember(info);
}

static bool
table_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/* The command that deletes a table's keys; NULL if no pattern can find them. */
static char *
suggest_command(const DroppedTable *table)
{
	StringInfoData command;
	ListCell   *cell;

	if (table->globs == NIL)
		return NULL;
	initStringInfo(&command);
	foreach(cell, table->globs)
		appendStringInfo(&command, "%s uncache.invalidate_pattern(%s)",
						 command.len == 0 ? "SELECT" : ",", quote_literal_cstr(lfirst(cell)));
	return command.data;
}

/* The name of a table, with its schema if the session's search_path does not find it. */
static char *
relation_in_sql(Oid relid)
{
	char	   *schema = RelationIsVisible(relid) ? NULL :
		get_namespace_name(get_rel_namespace(relid));

	return quote_qualified_identifier(schema, get_rel_name(relid));
}

static void
notice_dropped(const DroppedTable *table)
{
	char	   *command = suggest_command(table);

	if (OidIsValid(table->parent_relation))
		ereport(NOTICE,
				(errmsg("the keys of partition \"%s\" stay in Redis", table->name),
				 errdetail("DROP TABLE deletes no keys."),
				 errhint("Delete them with SELECT uncache.invalidate_table(%s).",
						 quote_literal_cstr(relation_in_sql(table->parent_relation)))));
	else
		ereport(NOTICE,
				(errmsg("the keys of table \"%s\" stay in Redis", table->name),
				 errdetail("DROP TABLE deletes no keys."),
				 command != NULL ? errhint("Delete them with %s.", command) :
				 errhint("Delete them with uncache.invalidate_keys(): no template began with "
						 "literal text by which they could be found.")));
}

void
drop_notice_emit(void)
{
	ListCell   *cell;

	foreach(cell, dropped)
	{
		DroppedTable *table = lfirst(cell);

		/* If a partitioned table is gone as a whole, its own NOTICE is enough. */
		if (table_exists(table->relation) ||
			(OidIsValid(table->parent_relation) && !table_exists(table->parent_relation)))
			continue;
		notice_dropped(table);
	}
	dropped = NIL;
}

void
drop_notice_init(void)
{
	next_object_access = object_access_hook;
	object_access_hook = on_object_access;
}
