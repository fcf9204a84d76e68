/*
 * ddl_drop.c
 *	  The event trigger for sql_drop: a dropped column, function or type may have
 *	  been in a template (see ddl_triggers.c).
 *
 * The command is refused, or with CASCADE the rule goes too.
 */
#include "postgres.h"

#include "catalog/pg_cast.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "rules/ddl_objects.h"
#include "rules/drop_notice.h"
#include "rules/rule_catalog.h"
#include "rules/ddl_guard.h"

SQL_FUNCTION(uncache_ddl_drop);

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
 * A table or view takes functions, which have a row of it for an argument, only with
 * CASCADE; most are dropped without.
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

/* Add to "names" what a template may have used. */
static List *
after_drop(List *names, const ChangedObject *object, EventTriggerData *event)
{
	switch (object->address.classId)
	{
		case RelationRelationId:
			if (object->address.objectSubId == 0)
				return names;
			if (get_rel_relkind(object->address.objectId) == RELKIND_COMPOSITE_TYPE)
				return ddl_add_name(names, NULL, object->name.name);
			rule_guard_column(object->address.objectId, object->name.name,
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
	return ddl_add_name(names, object->name.schema, object->name.name);
}

/* The last part of an object's address is its own name, without its arguments. */
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
	if (!can_drop_parts_of_templates(event) || !rules_exist())
		PG_RETURN_NULL();
	foreach(cell, ddl_read_objects(DROPPED_OBJECTS))
	{
		ChangedObject *object = lfirst(cell);

		names = after_drop(names, object, event);
		casts |= object->address.classId == CastRelationId;
	}
	if (names != NIL)
		rule_guard_objects(names, is_cascade(event->parsetree));
	if (casts)
		rule_guard_casts();
	PG_RETURN_NULL();
}
