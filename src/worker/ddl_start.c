/*
 * ddl_start.c
 *	  The event trigger for ddl_command_start: commands that must not begin.
 *
 * It runs before the command locks anything.  Where the library is not preloaded, calling
 * this function loads it, so that its hooks (utility_hook.c) see what DROP EXTENSION drops.
 *
 *		on a table of pg_uncache	refused.  The library writes its rows past SQL, so
 *									another index, column or rule would break them, and
 *									an unlogged table would lose them.  Some commands
 *									also wait for the table's lock before they check the
 *									rights of their user, and all commits wait behind them
 *		ATTACH PARTITION			refused if a rule of the partition has the name of one
 *									of the table's
 *		DROP EXTENSION				see drop_extension.c
 *
 * Allowed is what changes neither the rows nor their durability: the tablespace of a table,
 * its owner, its storage parameters, and whether its guard trigger is enabled.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "rules/rules.h"
#include "worker/worker_int.h"

SQL_FUNCTION(uncache_ddl_start);

/* Whether a name is that of a table of pg_uncache. */
static bool
is_own_table(const RangeVar *name)
{
	Oid			relid = name ? RangeVarGetRelid(name, NoLock, true) : InvalidOid;
	Oid			extension;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_RELATION)
		return false;
	extension = getExtensionOfObject(RelationRelationId, relid);
	return OidIsValid(extension) && extension == get_extension_oid("pg_uncache", true);
}

static void
refuse_if_own(const RangeVar *name, const char *tag)
{
	if (!is_own_table(name))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s is not allowed on table \"%s\" of pg_uncache", tag, name->relname),
			 errdetail("The library writes and reads this table by itself, in the form that CREATE "
					   "EXTENSION gave it."),
			 errhint("To keep it elsewhere use ALTER TABLE ... SET TABLESPACE; to forget what is "
					 "not delivered, uncache.discard_backlog(); to get rid of it, DROP EXTENSION "
					 "pg_uncache.")));
}

/* Whether a subcommand of ALTER TABLE is allowed on a table of pg_uncache. */
static bool
is_allowed(const AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_ChangeOwner:
		case AT_SetTableSpace:
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
		case AT_SetStatistics:
		case AT_ReplicaIdentity:
		case AT_ClusterOn:
		case AT_DropCluster:
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_EnableReplicaTrig:
		case AT_DisableTrig:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			return true;
		default:
			return false;
	}
}

static void
check_constraints(List *constraints)
{
	ListCell   *lc;

	foreach(lc, constraints)
	{
		Node	   *node = lfirst(lc);

		if (IsA(node, Constraint))
			refuse_if_own(((Constraint *) node)->pktable, "a foreign key");
		else if (IsA(node, ColumnDef))
			check_constraints(((ColumnDef *) node)->constraints);
	}
}

/* Without this check the command would fail as well, but without a hint. */
static void
check_attach(const RangeVar *parent, const RangeVar *child)
{
	Oid			relid = RangeVarGetRelid(parent, NoLock, true);
	Oid			partition = RangeVarGetRelid(child, NoLock, true);

	if (OidIsValid(relid) && OidIsValid(partition))
		rule_rows_check_names(relid, partition);
}

/* ALTER TABLE of another table may lock one of ours: as a partition, or by a foreign key. */
static void
check_alter_table(AlterTableStmt *stmt)
{
	bool		own = is_own_table(stmt->relation);
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst(lc);

		if (own && !is_allowed(cmd))
			refuse_if_own(stmt->relation, "this ALTER TABLE");
		if (cmd->def == NULL)
			continue;
		if (IsA(cmd->def, RangeVar))
			refuse_if_own((RangeVar *) cmd->def, "inheritance");
		else if (IsA(cmd->def, PartitionCmd))
		{
			refuse_if_own(((PartitionCmd *) cmd->def)->name, "ATTACH PARTITION");
			if (cmd->subtype == AT_AttachPartition)
				check_attach(stmt->relation, ((PartitionCmd *) cmd->def)->name);
		}
		else
			check_constraints(list_make1(cmd->def));
	}
}

static void
check_create_table(CreateStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->inhRelations)
	{
		if (IsA(lfirst(lc), RangeVar))
			refuse_if_own(lfirst(lc), "inheritance");
	}
	check_constraints(stmt->tableElts);
	check_constraints(stmt->constraints);
}

static void
check_command(Node *tree, const char *tag)
{
	switch (nodeTag(tree))
	{
		case T_AlterTableStmt:
			check_alter_table((AlterTableStmt *) tree);
			break;
		case T_CreateStmt:
			check_create_table((CreateStmt *) tree);
			break;
		case T_RenameStmt:
			refuse_if_own(((RenameStmt *) tree)->relation, "renaming");
			break;
		case T_AlterObjectSchemaStmt:
			refuse_if_own(((AlterObjectSchemaStmt *) tree)->relation, "SET SCHEMA");
			break;
		case T_IndexStmt:
			refuse_if_own(((IndexStmt *) tree)->relation, tag);
			break;
		case T_CreateTrigStmt:
			refuse_if_own(((CreateTrigStmt *) tree)->relation, tag);
			refuse_if_own(((CreateTrigStmt *) tree)->constrrel, tag);
			break;
		case T_RuleStmt:
			refuse_if_own(((RuleStmt *) tree)->relation, tag);
			break;
		case T_CreatePolicyStmt:
			refuse_if_own(((CreatePolicyStmt *) tree)->table, tag);
			break;
		case T_DropStmt:
			drop_extension_before((DropStmt *) tree);
			break;
		default:
			break;
	}
}

Datum
uncache_ddl_start(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = ddl_event(fcinfo);

	/* CREATE EXTENSION and ALTER EXTENSION UPDATE make and change these tables themselves. */
	if (!creating_extension && !IsBinaryUpgrade)
		check_command(event->parsetree, GetCommandTagName(event->tag));
	PG_RETURN_NULL();
}
