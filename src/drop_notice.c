/*
 * drop_notice.c
 *	  What DROP TABLE says about the keys of the table.
 *
 * It deletes none, but gives a NOTICE with the command that does.  When the event
 * trigger for the command runs, the table's rules are gone; so a hook remembers
 * each rule in the moment in which it is dropped.
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "drop_notice.h"
#include "rule_catalog.h"

static object_access_hook_type next_object_access = NULL;

/* A glob for the keys of a template, near enough for a hint. */
static char *
suggest_glob(const char *template)
{
	StringInfoData glob;

	initStringInfo(&glob);
	for (const char *p = template; *p; p++)
	{
		if ((*p == '{' || *p == '}') && p[1] == *p)
			appendStringInfoChar(&glob, *p++);
		else if (*p == '{')
		{
			appendStringInfoChar(&glob, '*');
			p += strcspn(p, "}");
			if (*p == '\0')
				break;
		}
		else
			appendStringInfoChar(&glob, *p);
	}
	return glob.data;
}

/* A rule that is gone, and may have gone with its table. */
typedef struct DroppedRule
{
	Oid			relation;
	Oid			parent_relation;	/* of a clone */
	char	   *table;
	char	   *glob;
} DroppedRule;

/* Of this transaction, since the last look; in TopTransactionContext. */
static List *dropped = NIL;

static void
forget(void *arg)
{
	dropped = NIL;
}

static void
remember(const RuleInfo *info)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	DroppedRule *rule = palloc0(sizeof(DroppedRule));

	if (dropped == NIL)
	{
		MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

		callback->func = forget;
		MemoryContextRegisterResetCallback(TopTransactionContext, callback);
	}
	rule->relation = info->relation;
	if (OidIsValid(info->parent))
		(void) rule_topmost(info->parent, &rule->parent_relation);
	rule->table = get_rel_name(info->relation);
	rule->glob = suggest_glob(rule_templates(info)[0]);
	dropped = lappend(dropped, rule);
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

	/* The table is still there; whether it will go too shows later. */
	info = rule_by_trigger(objid);
	if (info != NULL && rule_ntemplates(info) > 0 && TRIGGER_FOR_ROW(info->type))
		remember(info);
}

static bool
table_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

static void
notice_dropped(const DroppedRule *rule)
{
	if (OidIsValid(rule->parent_relation))
		ereport(NOTICE,
				(errmsg("the keys of partition \"%s\" stay in Redis", rule->table),
				 errdetail("DROP TABLE deletes no keys."),
				 errhint("Delete them with SELECT uncache.invalidate_table(%s).",
						 quote_literal_cstr(quote_identifier(get_rel_name(rule->parent_relation))))));
	else
		ereport(NOTICE,
				(errmsg("the keys of table \"%s\" stay in Redis", rule->table),
				 errdetail("DROP TABLE deletes no keys."),
				 errhint("Delete them with SELECT uncache.invalidate_pattern(%s).",
						 quote_literal_cstr(rule->glob))));
}

void
drop_notice_emit(void)
{
	ListCell   *cell;

	foreach(cell, dropped)
	{
		DroppedRule *rule = lfirst(cell);

		/* Of a partitioned table that goes as a whole one NOTICE is enough. */
		if (table_exists(rule->relation) ||
			(OidIsValid(rule->parent_relation) && !table_exists(rule->parent_relation)))
			continue;
		notice_dropped(rule);
	}
	dropped = NIL;
}

void
drop_notice_init(void)
{
	next_object_access = object_access_hook;
	object_access_hook = on_object_access;
}
