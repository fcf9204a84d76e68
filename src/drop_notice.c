/*
 * drop_notice.c
 *	  What DROP TABLE says about the keys of the table.
 *
 * It deletes none: the table's rules are gone before anybody could ask them.  The
 * owner gets a NOTICE with the command that does it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
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

static bool
may_have_triggers(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_class) GETSTRUCT(tuple))->relhastriggers;
	ReleaseSysCache(tuple);
	return result;
}

static void
notice_dropped_table(Oid relid)
{
	List	   *rules;
	RuleInfo   *info;

	if (!may_have_triggers(relid))
		return;
	rules = rules_of_table(relid);
	if (rules == NIL)
		return;
	info = linitial(rules);
	if (rule_ntemplates(info) <= 0)
		return;
	ereport(NOTICE,
			(errmsg("the keys of table \"%s\" stay in Redis", get_rel_name(relid)),
			 errdetail("DROP TABLE deletes no keys; rule \"%s\" goes with the table.", info->name),
			 errhint("Delete them with SELECT uncache.invalidate_pattern(%s).",
					 quote_literal_cstr(suggest_glob(rule_templates(info)[0])))));
}

static void
on_object_access(ObjectAccessType access, Oid classid, Oid objid, int subid, void *arg)
{
	if (next_object_access)
		next_object_access(access, classid, objid, subid, arg);
	if (access == OAT_DROP && classid == RelationRelationId && subid == 0)
		notice_dropped_table(objid);
}

void
drop_notice_init(void)
{
	next_object_access = object_access_hook;
	object_access_hook = on_object_access;
}
