/*
 * drop_notice.c
 *	  What DROP TABLE says about the keys of the table.
 *
 * It deletes none, but gives a NOTICE with the command that does.  When the event
 * trigger for the command runs, the table's rules are gone; so a hook remembers
 * each rule in the moment in which it is dropped.
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/objectaccess.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "drop_notice.h"
#include "keypattern.h"
#include "rule_catalog.h"

static object_access_hook_type next_object_access = NULL;

/* Behind the expression that begins here; quotes may hide its end. */
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
 * A glob for the keys of a template, near enough for a hint; NULL where it would
 * take the keys of others, as with template_keypattern().  The table is going away,
 * so the template is not compiled.
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

/* The command that deletes the keys of a rule; NULL where none of them can be found. */
static char *
suggest_command(const RuleInfo *info)
{
	StringInfoData command;

	initStringInfo(&command);
	for (int i = 0; i < rule_ntemplates(info); i++)
	{
		char	   *glob = suggest_glob(rule_templates(info)[i]);

		if (glob != NULL)
			appendStringInfo(&command, "%s uncache.invalidate_pattern(%s)",
							 command.len == 0 ? "SELECT" : ",", quote_literal_cstr(glob));
	}
	return command.len == 0 ? NULL : command.data;
}

/* A rule that is gone, and may have gone with its table. */
typedef struct DroppedRule
{
	Oid			relation;
	Oid			parent_relation;	/* of a clone */
	char	   *table;
	char	   *command;		/* that deletes its keys, or NULL */
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
	rule->command = suggest_command(info);
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
				 rule->command != NULL ? errhint("Delete them with %s.", rule->command) :
				 errhint("Delete them with uncache.invalidate_keys(): no template began with literal text by which they could be found.")));
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
