/*
 * ddl_triggers.c
 *	  Keeping rules whole while tables, types and functions change.
 *
 * Three of the four event triggers (the fourth, for ddl_command_start, refuses commands
 * before they begin: worker/ddl_start.c):
 *
 *		sql_drop			a template may use the column, function or type that was
 *							dropped: refuses the command, or with CASCADE drops the
 *							rule too
 *		ddl_command_end		does the same for an object that was renamed or altered;
 *							checks new rules; gives new partitions their TRUNCATE
 *							rules; invalidates rows that came or went with a partition
 *		table_rewrite		invalidates rows that a rewrite changes
 *
 * Nothing is recorded beforehand about what a template needs: after the command the
 * rules that it may concern are inspected (ddl_guard.c), which finds whatever broke them.
 * Those are the rules of the altered table or, for a function, a type or the like, the
 * rules whose text has its name.  In a database without rules one look into pg_depend
 * ends the work, for a table without rules one look into pg_trigger.
 *
 * Where event triggers do not fire (single-user mode, disabled) a rule may break: then
 * writes to its table fail, and uncache.rules says why.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "rules/rules_int.h"

SQL_FUNCTION(uncache_ddl_drop);
SQL_FUNCTION(uncache_ddl_end);
SQL_FUNCTION(uncache_ddl_rewrite);

/*
 * --------------------------------------------------------------------------
 * What PostgreSQL tells an event trigger of its command
 * --------------------------------------------------------------------------
 */

/* An object that the command has changed; the name is set by sql_drop only. */
typedef struct ChangedObject
{
	ObjectAddress address;
	ObjectName	name;
} ChangedObject;

EventTriggerData *
ddl_event(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function must be called as an event trigger")));
	return (EventTriggerData *) fcinfo->context;
}

static ChangedObject *
read_object(HeapTuple row, TupleDesc desc, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ChangedObject *object = palloc0(sizeof(ChangedObject));
	bool		isnull;

	Assert(desc->natts == 3 || desc->natts == 5);
	object->address.classId = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
	object->address.objectId = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	object->address.objectSubId = DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull));
	if (desc->natts > 3)
	{
		/* SPI_getvalue() allocates in the current context. */
		object->name.schema = SPI_getvalue(row, desc, 4);
		object->name.name = SPI_getvalue(row, desc, 5);
	}
	MemoryContextSwitchTo(old);
	return object;
}

/*
 * The objects (ChangedObject) that a query returns, in CurrentMemoryContext.  The query's
 * columns are classid, objid and objsubid, and optionally schema and name.
 */
static List *
read_objects(const char *query)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;

	SPI_connect();
	if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what the command has changed");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		ChangedObject *object = read_object(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, context);
		MemoryContext old = MemoryContextSwitchTo(context);

		result = lappend(result, object);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return result;
}

/* Append an ObjectName to a list of them, unless "name" is NULL. */
static List *
add_name(List *names, const char *schema, const char *name)
{
	ObjectName *object;

	if (name == NULL)
		return names;
	object = palloc(sizeof(ObjectName));
	object->schema = schema;
	object->name = name;
	return lappend(names, object);
}

/*
 * --------------------------------------------------------------------------
 * ALTER TABLE
 * --------------------------------------------------------------------------
 */

/* The partition that ALTER TABLE attaches or detaches, by its name in the command. */
static Oid
partition_of_command(const AlterTableCmd *cmd)
{
	return RangeVarGetRelid(castNode(PartitionCmd, cmd->def)->name, NoLock, false);
}

static void
after_attach(Oid relid, Oid partition)
{
	rule_cover_new_partition(partition);
	rule_rows_attached(relid, partition);
}

static void
after_alter_command(Oid relid, const AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_AlterColumnType:
			ddl_guard_type(relid, cmd->name);
			break;
		case AT_AttachPartition:
			after_attach(relid, partition_of_command(cmd));
			break;
		case AT_DetachPartition:
		case AT_DetachPartitionFinalize:
			rule_rows_detached(relid, partition_of_command(cmd));
			break;
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_DisableTrig:
		case AT_EnableTrigAll:
		case AT_DisableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrigUser:
			rule_cover_partitions(relid, true);
			break;
		default:
			break;
	}
}

static void
after_alter_table(Oid relid, Node *parsetree)
{
	ListCell   *cell;

	if (!ddl_guard_table(relid) || !IsA(parsetree, AlterTableStmt))
		return;
	foreach(cell, ((AlterTableStmt *) parsetree)->cmds)
		after_alter_command(relid, lfirst(cell));
}

/*
 * --------------------------------------------------------------------------
 * Functions, types, schemas and so on
 * --------------------------------------------------------------------------
 */

static char *
name_of_type(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(oid));
	char	   *name = NULL;

	if (HeapTupleIsValid(tuple))
	{
		name = pstrdup(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname));
		ReleaseSysCache(tuple);
	}
	return name;
}

/* The name that an object has now; NULL for a kind of object that a template cannot name. */
static char *
name_of_object(const ObjectAddress *object)
{
	switch (object->classId)
	{
		case ProcedureRelationId:
			return get_func_name(object->objectId);
		case OperatorRelationId:
			return get_opname(object->objectId);
		case TypeRelationId:
			return name_of_type(object->objectId);
		case CollationRelationId:
			return get_collation_name(object->objectId);
		case NamespaceRelationId:
			return get_namespace_name(object->objectId);
		default:
			return NULL;
	}
}

/* The name that the object had before, from the command's text; NULL if it kept its name. */
static char *
former_name(Node *tree)
{
	Node	   *object = NULL;

	if (IsA(tree, RenameStmt))
	{
		if (((RenameStmt *) tree)->renameType == OBJECT_SCHEMA)
			return ((RenameStmt *) tree)->subname;
		object = ((RenameStmt *) tree)->object;
	}
	else if (IsA(tree, AlterObjectSchemaStmt))
		object = ((AlterObjectSchemaStmt *) tree)->object;

	if (object != NULL && IsA(object, ObjectWithArgs))
		object = (Node *) ((ObjectWithArgs *) object)->objname;
	if (object != NULL && IsA(object, List) && IsA(llast((List *) object), String))
		return strVal(llast((List *) object));
	return NULL;
}

#define MEMBERS_OF_EXTENSION \
	"SELECT classid, objid, objsubid FROM pg_catalog.pg_depend" \
	" WHERE refclassid OPERATOR(pg_catalog.=) '%u'::pg_catalog.oid" \
	" AND refobjid OPERATOR(pg_catalog.=) '%u'::pg_catalog.oid" \
	" AND deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog.\"char\""

/* The names of an extension's members: ALTER EXTENSION ... SET SCHEMA moves them all. */
static List *
names_in_extension(Oid extension)
{
	List	   *names = NIL;
	ListCell   *cell;

	foreach(cell, read_objects(psprintf(MEMBERS_OF_EXTENSION, ExtensionRelationId, extension)))
	{
		ChangedObject *member = lfirst(cell);

		names = add_name(names, NULL, name_of_object(&member->address));
	}
	return names;
}

/*
 * The names are given without a schema, since the command may have moved the object from
 * another one.
 */
static void
after_alter_object(const ObjectAddress *object, Node *tree)
{
	List	   *names = object->classId == ExtensionRelationId ?
		names_in_extension(object->objectId) : NIL;

	names = add_name(names, NULL, name_of_object(object));
	names = add_name(names, NULL, former_name(tree));
	ddl_guard_objects(names, false);
}

/*
 * ALTER TYPE of a composite type: its attributes are columns of the tables made OF it, and
 * parts of columns of this type.  DROP ATTRIBUTE is left to sql_drop.
 */
static void
after_alter_composite(Oid relid, Node *tree)
{
	ListCell   *cell;

	if (IsA(tree, RenameStmt))
		ddl_guard_objects(add_name(NIL, NULL, ((RenameStmt *) tree)->subname), false);
	if (!IsA(tree, AlterTableStmt))
		return;
	foreach(cell, ((AlterTableStmt *) tree)->cmds)
	{
		AlterTableCmd *cmd = lfirst(cell);

		if (cmd->subtype == AT_AlterColumnType)
			ddl_guard_attribute_type(get_rel_type_id(relid), cmd->name);
	}
}

/*
 * --------------------------------------------------------------------------
 * ddl_command_end
 * --------------------------------------------------------------------------
 */

static void
after_create_table(Oid relid)
{
	if (get_rel_relispartition(relid))
		rule_cover_new_partition(relid);
}

static void
after_create_trigger(Oid trigger)
{
	RuleInfo   *info = rule_by_trigger(trigger);

	if (info == NULL)
		return;
	if (!IsBinaryUpgrade)
		rule_check_new(info);
	if (TRIGGER_FOR_TRUNCATE(info->type))
		rule_cover_partitions(info->relation, false);
}

static void
after_object(const ObjectAddress *object, EventTriggerData *event)
{
	Node	   *tree = event->parsetree;

	switch (object->classId)
	{
		case RelationRelationId:
			if (event->tag == CMDTAG_ALTER_TABLE)
				after_alter_table(object->objectId, tree);
			else if (event->tag == CMDTAG_ALTER_TYPE)
				after_alter_composite(object->objectId, tree);
			else
				after_create_table(object->objectId);
			break;
		case TriggerRelationId:
			after_create_trigger(object->objectId);
			break;
		default:
			/* A function, type, schema or operator that was renamed, replaced or altered. */
			if (event->tag != CMDTAG_CREATE_SCHEMA)
				after_alter_object(object, tree);
			break;
	}
}

/* Whether the parse tree alone shows that the command can break no rule. */
static bool
is_harmless(EventTriggerData *event)
{
	Node	   *tree = event->parsetree;

	if (IsA(tree, CreateStmt))
		return ((CreateStmt *) tree)->partbound == NULL;
	if (IsA(tree, CreateFunctionStmt))
		return !((CreateFunctionStmt *) tree)->replace;
	return false;
}

Datum
uncache_ddl_end(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = ddl_event(fcinfo);
	ListCell   *cell;

	if (is_harmless(event) || !rule_any_exists())
		PG_RETURN_NULL();
	foreach(cell, read_objects("SELECT classid, objid, objsubid"
							   " FROM pg_catalog.pg_event_trigger_ddl_commands()"))
		after_object(&((ChangedObject *) lfirst(cell))->address, event);
	PG_RETURN_NULL();
}

/*
 * --------------------------------------------------------------------------
 * sql_drop
 * --------------------------------------------------------------------------
 */

static bool
is_cascade(Node *tree)
{
	ListCell   *cell;

	if (IsA(tree, DropStmt))
		return ((DropStmt *) tree)->behavior == DROP_CASCADE;
	if (IsA(tree, DropOwnedStmt))
		return ((DropOwnedStmt *) tree)->behavior == DROP_CASCADE;
	if (!IsA(tree, AlterTableStmt))
		return false;
	foreach(cell, ((AlterTableStmt *) tree)->cmds)
	{
		if (((AlterTableCmd *) lfirst(cell))->behavior == DROP_CASCADE)
			return true;
	}
	return false;
}

/*
 * Dropping a table or view can take a part of another table's template with it (a function
 * with a row of it as argument), but only with CASCADE.  Most are dropped without
 * CASCADE, and need no look at the rules.
 */
static bool
can_drop_parts_of_templates(EventTriggerData *event)
{
	switch (event->tag)
	{
		case CMDTAG_DROP_TABLE:
		case CMDTAG_DROP_VIEW:
		case CMDTAG_DROP_MATERIALIZED_VIEW:
		case CMDTAG_DROP_FOREIGN_TABLE:
			return is_cascade(event->parsetree);
		default:
			return true;
	}
}

/*
 * Guard the rules of a table whose column was dropped.  For any other object that a
 * template may have used, return "names" with its name appended.
 */
static List *
after_drop(List *names, const ChangedObject *object, EventTriggerData *event)
{
	switch (object->address.classId)
	{
		case RelationRelationId:
			if (object->address.objectSubId == 0)
				return names;
			if (get_rel_relkind(object->address.objectId) == RELKIND_COMPOSITE_TYPE)
				return add_name(names, NULL, object->name.name);
			ddl_guard_column(object->address.objectId, object->name.name,
							 is_cascade(event->parsetree));
			return names;
		case TypeRelationId:
			if (event->tag == CMDTAG_DROP_TABLE)
				return names;
			break;
		case ProcedureRelationId:
		case OperatorRelationId:
		case CollationRelationId:
			break;
		default:
			return names;
	}
	return add_name(names, object->name.schema, object->name.name);
}

/* The last element of address_names is the object's own name, without its arguments. */
#define DROPPED_OBJECTS \
	"SELECT classid, objid, objsubid, schema_name," \
	" coalesce(object_name, address_names[pg_catalog.array_upper(address_names, 1)])" \
	" FROM pg_catalog.pg_event_trigger_dropped_objects()"

Datum
uncache_ddl_drop(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = ddl_event(fcinfo);
	List	   *names = NIL;
	bool		casts = false;
	ListCell   *cell;

	drop_notice_emit();
	if (!can_drop_parts_of_templates(event) || !rule_any_exists())
		PG_RETURN_NULL();
	foreach(cell, read_objects(DROPPED_OBJECTS))
	{
		ChangedObject *object = lfirst(cell);

		names = after_drop(names, object, event);
		casts |= object->address.classId == CastRelationId;
	}
	if (names != NIL)
		ddl_guard_objects(names, is_cascade(event->parsetree));
	if (casts)
		ddl_guard_casts();
	PG_RETURN_NULL();
}

/*
 * --------------------------------------------------------------------------
 * table_rewrite
 * --------------------------------------------------------------------------
 */

/*
 * A rewrite gives rows new values, and no trigger sees that.  Even where the values stay
 * (SET UNLOGGED), the table looks empty to snapshots older than the rewrite, so fills
 * from those must be refused: all keys of the table's rules are deleted.  If a rule does
 * not compile on the table as it will be, ddl_command_end refuses the command.
 */
Datum
uncache_ddl_rewrite(PG_FUNCTION_ARGS)
{
	Oid			relid;
	ListCell   *cell;

	(void) ddl_event(fcinfo);
	relid = DatumGetObjectId(pg_event_trigger_table_rewrite_oid(fcinfo));
	Assert(OidIsValid(relid));
	foreach(cell, rule_list_of_table(relid))
	{
		if (rule_compile_problem(lfirst(cell), NULL) != NULL)
			PG_RETURN_NULL();
	}
	(void) rule_flush_rules_of_table(relid, false, 0);
	PG_RETURN_NULL();
}
