/*
 * rule_catalog.c
 *	  Rules as the catalogs have them: triggers that call a function of pg_uncache.
 *
 * pg_trigger has no index on the function.  But every trigger depends on its function,
 * and pg_depend has an index on what is depended on: so one look there tells whether a
 * database has any rule.
 */
#include "postgres.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "rules/rule_catalog.h"

Oid
rule_function(bool by_columns)
{
	Oid			schema = get_namespace_oid("uncache", true);
	oidvector  *no_arguments;

	if (!OidIsValid(schema))
		return InvalidOid;
	no_arguments = buildoidvector(NULL, 0);
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(by_columns ? "invalidate_columns" : "invalidate"),
						   PointerGetDatum(no_arguments),
						   ObjectIdGetDatum(schema));
}

/* tgargs holds the arguments one after the other, each with a null byte behind it. */
static void
read_arguments(RuleInfo *info, HeapTuple tuple, Relation catalog)
{
	bool		isnull;
	Datum		value = row_getattr(tuple, Anum_pg_trigger_tgargs,
									RelationGetDescr(catalog), &isnull);
	char	   *p;

	if (info->nargs == 0 || isnull)
		return;
	p = VARDATA_ANY(DatumGetByteaPCopy(value));
	info->args = palloc(sizeof(char *) * info->nargs);
	for (int i = 0; i < info->nargs; i++)
	{
		info->args[i] = pstrdup(p);
		p += strlen(p) + 1;
	}
}

/* The rule of a row of pg_trigger; NULL if the trigger calls another function. */
static RuleInfo *
read_rule(HeapTuple tuple, Relation catalog)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	Oid			by_columns = rule_function(true);
	RuleInfo   *info;
	Datum		qual;
	bool		isnull;

	if (!OidIsValid(form->tgfoid) ||
		(form->tgfoid != by_columns && form->tgfoid != rule_function(false)))
		return NULL;

	info = palloc0(sizeof(RuleInfo));
	info->trigger = form->oid;
	info->parent = form->tgparentid;
	info->relation = form->tgrelid;
	info->function = form->tgfoid;
	info->name = pstrdup(NameStr(form->tgname));
	info->type = form->tgtype;
	info->enabled = form->tgenabled;
	info->by_columns = form->tgfoid == by_columns;
	info->nargs = form->tgnargs;
	read_arguments(info, tuple, catalog);
	info->nattrs = form->tgattr.dim1;
	info->attrs = palloc(sizeof(int16) * (info->nattrs + 1));
	memcpy(info->attrs, form->tgattr.values, sizeof(int16) * info->nattrs);
	qual = row_getattr(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(catalog), &isnull);
	if (!isnull)
		info->qual = TextDatumGetCString(qual);
	return info;
}

typedef void (*TriggerVisitor) (HeapTuple tuple, Relation catalog, void *arg);

/* Call visit() for each row of pg_trigger that one condition on an OID finds. */
static void
visit_triggers(AttrNumber attribute, Oid index, Oid value, TriggerVisitor visit, void *arg)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, attribute, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(value));
	scan = systable_beginscan(catalog, index, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		visit(tuple, catalog, arg);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/* Append the rule to the List that "arg" points to. */
static void
collect_rule(HeapTuple tuple, Relation catalog, void *arg)
{
	RuleInfo   *info = read_rule(tuple, catalog);

	if (info != NULL)
		*(List **) arg = lappend(*(List **) arg, info);
}

List *
rule_list_of_table(Oid relid)
{
	List	   *rules = NIL;

	visit_triggers(Anum_pg_trigger_tgrelid, TriggerRelidNameIndexId, relid, collect_rule, &rules);
	return rules;
}

/* The OIDs of at most "most" triggers that depend on a function. */
static List *
triggers_of_function(Oid function, int most)
{
	Relation	catalog = table_open(DependRelationId, AccessShareLock);
	List	   *result = NIL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	Assert(OidIsValid(function) && most > 0);
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ProcedureRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(function));
	scan = systable_beginscan(catalog, DependReferenceIndexId, true, NULL, 2, keys);
	while (list_length(result) < most &&
		   HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		if (form->classid == TriggerRelationId)
			result = lappend_oid(result, form->objid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

bool
rule_any_exists(void)
{
	for (int by_columns = 0; by_columns <= 1; by_columns++)
	{
		Oid			function = rule_function(by_columns);

		if (OidIsValid(function) && triggers_of_function(function, 1) != NIL)
			return true;
	}
	return false;
}

static int
compare_rules(const ListCell *a, const ListCell *b)
{
	Oid			left = ((RuleInfo *) lfirst(a))->trigger;
	Oid			right = ((RuleInfo *) lfirst(b))->trigger;

	return left < right ? -1 : left > right;
}

List *
rule_list_of_database(void)
{
	List	   *result = NIL;

	for (int by_columns = 0; by_columns <= 1; by_columns++)
	{
		Oid			function = rule_function(by_columns);
		ListCell   *cell;

		if (!OidIsValid(function))
			continue;
		foreach(cell, triggers_of_function(function, INT_MAX))
		{
			RuleInfo   *info = rule_by_trigger(lfirst_oid(cell));

			if (info != NULL)
				result = lappend(result, info);
		}
	}
	list_sort(result, compare_rules);
	return result;
}

RuleInfo *
rule_next(Oid *cursor, int most)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	Relation	index = index_open(TriggerOidIndexId, AccessShareLock);
	RuleInfo   *found = NULL;
	ScanKeyData key;
	SysScanDesc scan;

	Assert(most > 0);
	ScanKeyInit(&key, Anum_pg_trigger_oid, BTGreaterStrategyNumber, F_OIDGT,
				ObjectIdGetDatum(*cursor));
	scan = systable_beginscan_ordered(catalog, index, NULL, 1, &key);
	while (found == NULL && most-- > 0)
	{
		HeapTuple	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
		Form_pg_trigger form;

		if (!HeapTupleIsValid(tuple))
		{
			*cursor = InvalidOid;
			break;
		}
		form = (Form_pg_trigger) GETSTRUCT(tuple);
		*cursor = form->oid;
		if (!OidIsValid(form->tgparentid))
			found = read_rule(tuple, catalog);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(catalog, AccessShareLock);
	return found;
}

RuleInfo *
rule_by_name(Oid relid, const char *name)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_table(relid))
	{
		RuleInfo   *info = lfirst(cell);

		if (strcmp(info->name, name) == 0)
			return info;
	}
	return NULL;
}

RuleInfo *
rule_by_trigger(Oid trigger)
{
	List	   *found = NIL;

	visit_triggers(Anum_pg_trigger_oid, TriggerOidIndexId, trigger, collect_rule, &found);
	Assert(list_length(found) <= 1);
	return found == NIL ? NULL : linitial(found);
}

/* The result of rule_describe(). */
typedef struct TriggerName
{
	bool		found;
	Datum	   *values;
} TriggerName;

static void
copy_name(HeapTuple tuple, Relation catalog, void *arg)
{
	TriggerName *result = arg;
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	Name		name = palloc(sizeof(NameData));

	Assert(!result->found);
	*name = form->tgname;
	result->values[0] = ObjectIdGetDatum(form->tgrelid);
	result->values[1] = NameGetDatum(name);
	result->found = true;
}

bool
rule_describe(Oid trigger, Datum *values)
{
	TriggerName result = {false, values};

	visit_triggers(Anum_pg_trigger_oid, TriggerOidIndexId, trigger, copy_name, &result);
	return result.found;
}

Oid
rule_topmost(Oid trigger, Oid *relation)
{
	*relation = InvalidOid;
	for (;;)
	{
		RuleInfo   *info = rule_by_trigger(trigger);

		/* No rule: it calls our C function under another SQL name. */
		if (info == NULL)
			return trigger;
		*relation = info->relation;
		if (!OidIsValid(info->parent))
			return trigger;
		trigger = info->parent;
	}
}
