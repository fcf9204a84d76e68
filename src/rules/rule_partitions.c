/*
 * rule_partitions.c
 *	  TRUNCATE rules of partitioned tables.
 *
 * PostgreSQL clones a row trigger of a partitioned table to every partition, present and
 * future.  It does not clone a TRUNCATE trigger, and TRUNCATE of a partition fires only
 * the partition's own triggers.  So this file makes the clones, in PostgreSQL's own form:
 * with tgparentid and its dependencies.  Hence PostgreSQL drops them with the parent's
 * trigger and with DETACH PARTITION, renames them with it, and refuses to drop one alone.
 * pg_dump leaves clones out; when a dump is restored, our event trigger makes them anew
 * after the parent's trigger.  pg_upgrade restores event triggers last, so after it, and
 * wherever else they did not fire, a worker makes the missing clones when it starts.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/subtransaction.h"
#include "rules/rules_int.h"

static void
make_clone(const RuleInfo *parent, Oid partition)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	Assert(TRIGGER_FOR_TRUNCATE(parent->type) && partition != parent->relation);
	stmt->trigname = parent->name;
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = TRIGGER_TYPE_TRUNCATE;
	for (int i = 0; i < parent->nargs; i++)
		stmt->args = lappend(stmt->args, makeString(parent->args[i]));

	CreateTriggerFiringOn(stmt, NULL, partition, InvalidOid, InvalidOid, InvalidOid,
						  parent->function, parent->trigger,
						  parent->qual ? stringToNode(parent->qual) : NULL,
						  false, true, parent->enabled);
	CommandCounterIncrement();
}

static RuleInfo *
find_clone(Oid partition, Oid parent)
{
	ListCell   *cell;

	Assert(OidIsValid(parent));
	foreach(cell, rule_list_of_table(partition))
	{
		RuleInfo   *info = lfirst(cell);

		if (info->parent == parent)
			return info;
	}
	return NULL;
}

/* False after CREATE OR REPLACE TRIGGER has given the parent's rule other arguments. */
static bool
is_like(const RuleInfo *clone, const RuleInfo *parent)
{
	Assert(clone->parent == parent->trigger);
	if (clone->function != parent->function || clone->nargs != parent->nargs ||
		(clone->qual == NULL) != (parent->qual == NULL) ||
		(clone->qual != NULL && strcmp(clone->qual, parent->qual) != 0))
		return false;
	for (int i = 0; i < clone->nargs; i++)
	{
		if (strcmp(clone->args[i], parent->args[i]) != 0)
			return false;
	}
	return true;
}

static void
drop_clone(const RuleInfo *clone)
{
	ObjectAddress address;

	Assert(OidIsValid(clone->parent));
	/* While it depends on its parent PostgreSQL refuses to drop it. */
	deleteDependencyRecordsFor(TriggerRelationId, clone->trigger, false);
	CommandCounterIncrement();
	ObjectAddressSet(address, TriggerRelationId, clone->trigger);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}

static void
enable_like(const RuleInfo *clone, const RuleInfo *parent, Oid partition)
{
	Relation	rel = table_open(partition, ShareRowExclusiveLock);

	EnableDisableTrigger(rel, clone->name, InvalidOid, parent->enabled,
						 false, false, ShareRowExclusiveLock);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

static void
cover_with_rule(Oid partition, const RuleInfo *parent, bool sync_enabled)
{
	RuleInfo   *clone = find_clone(partition, parent->trigger);
	char		kind = get_rel_relkind(partition);

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		return;					/* a foreign table: no trigger here sees its rows */
	if (clone != NULL && !is_like(clone, parent))
	{
		drop_clone(clone);
		clone = NULL;
	}
	if (clone == NULL)
		make_clone(parent, partition);
	else if (sync_enabled && clone->enabled != parent->enabled)
		enable_like(clone, parent, partition);
}

static List *
truncate_rules(Oid relid)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, rule_list_of_table(relid))
	{
		if (TRIGGER_FOR_TRUNCATE(((RuleInfo *) lfirst(cell))->type))
			result = lappend(result, lfirst(cell));
	}
	return result;
}

static void cover_below(Oid relid, bool sync_enabled);

/* One level after the other: the clones made here are the parents of the next level's. */
static void
cover_partition(Oid partition, List *rules, bool sync_enabled)
{
	ListCell   *cell;

	foreach(cell, rules)
		cover_with_rule(partition, lfirst(cell), sync_enabled);
	cover_below(partition, sync_enabled);
}

static void
cover_below(Oid relid, bool sync_enabled)
{
	List	   *rules;
	ListCell   *cell;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return;
	rules = truncate_rules(relid);
	if (rules == NIL)
		return;
	foreach(cell, find_inheritance_children(relid, ShareRowExclusiveLock))
		cover_partition(lfirst_oid(cell), rules, sync_enabled);
}

/*
 * Creating a trigger takes EXECUTE on its function, which a user who may add a partition
 * need not have.  An ERROR puts the user back, too.
 */
static Oid
become_superuser(int *context)
{
	Oid			user;

	GetUserIdAndSecContext(&user, context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, *context | SECURITY_LOCAL_USERID_CHANGE);
	return user;
}

void
rule_cover_partitions(Oid relid, bool sync_enabled)
{
	int			context;
	Oid			user = become_superuser(&context);

	cover_below(relid, sync_enabled);
	SetUserIdAndSecContext(user, context);
}

void
rule_cover_new_partition(Oid partition)
{
	List	   *rules = truncate_rules(get_partition_parent(partition, false));
	int			context;
	Oid			user;

	if (rules == NIL)
		return;
	user = become_superuser(&context);
	cover_partition(partition, rules, false);
	SetUserIdAndSecContext(user, context);
}

List *
rule_children(Oid relid, int most)
{
	Relation	catalog = table_open(InheritsRelationId, AccessShareLock);
	List	   *result = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhparent, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, InheritsParentIndexId, true, NULL, 1, &key);
	while (list_length(result) < most && HeapTupleIsValid(tuple = systable_getnext(scan)))
		result = lappend_oid(result, ((Form_pg_inherits) GETSTRUCT(tuple))->inhrelid);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	list_sort(result, list_oid_cmp);
	return result;
}

List *
rule_partitions(Oid relid, int most)
{
	List	   *result = list_make1_oid(relid);

	/* The list grows meanwhile.  No table is a partition of two. */
	for (int i = 0; i < list_length(result) && list_length(result) < most; i++)
	{
		Oid			table = list_nth_oid(result, i);

		if (get_rel_relkind(table) == RELKIND_PARTITIONED_TABLE)
			result = list_concat(result, rule_children(table, most - list_length(result)));
	}
	return result;
}

/* The first partition below a table that lacks a clone of this rule, or InvalidOid. */
static Oid
uncovered_partition(Oid relid, Oid trigger)
{
	ListCell   *cell;

	foreach(cell, find_inheritance_children(relid, NoLock))
	{
		Oid			partition = lfirst_oid(cell);
		RuleInfo   *clone = find_clone(partition, trigger);
		Oid			below;

		if (clone == NULL && get_rel_relkind(partition) != RELKIND_FOREIGN_TABLE)
			return partition;
		if (clone == NULL || !has_subclass(partition))
			continue;
		below = uncovered_partition(partition, clone->trigger);
		if (OidIsValid(below))
			return below;
	}
	return InvalidOid;
}

/* Lock a table and all below it for new triggers; false if another session is in the way. */
static bool
lock_if_free(Oid relid)
{
	ListCell   *cell;

	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!ConditionalLockRelationOid(lfirst_oid(cell), ShareRowExclusiveLock))
			return false;
	}
	return true;
}

static void
cover_table_of_rule(void *arg)
{
	rule_cover_partitions(((RuleInfo *) arg)->relation, false);
}

void
rule_cover_database(void)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
	{
		RuleInfo   *info = lfirst(cell);

		if (OidIsValid(info->parent) || !TRIGGER_FOR_TRUNCATE(info->type) ||
			get_rel_relkind(info->relation) != RELKIND_PARTITIONED_TABLE ||
			!OidIsValid(uncovered_partition(info->relation, info->trigger)))
			continue;

		/*
		 * A partition may be unable to get its rule, for instance because it has another trigger
		 * of that name.  That must not keep the worker from starting.
		 */
		if (lock_if_free(info->relation))
			subtransaction_run_or_report(cover_table_of_rule, info);
		else
			ereport(LOG,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("TRUNCATE rules of partitions of table \"%s\" could not be made, since "
							"a partition is in use",
							get_rel_name(info->relation)),
					 errhint("Attach to the table again; until then TRUNCATE of a partition "
							 "deletes no keys.")));
	}
}
