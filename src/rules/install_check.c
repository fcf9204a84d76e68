/*
 * install_check.c
 *	  The schema must be safe before the extension is installed into it.
 *
 * CREATE EXTENSION uses a schema "uncache" that exists already.  Any user who may
 * create schemas could have made it, and could have put operators and functions into it
 * that the views and superusers would then call; and the owner of a schema can replace
 * its objects at any time.  So the schema must belong to a superuser, and be empty.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"

SQL_FUNCTION(uncache_require_own_schema);

static Oid
schema_owner(Oid schema)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", schema);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The description of an object in the schema other than one function; NULL if there is none. */
static char *
find_object(Oid schema, Oid function)
{
	Relation	catalog = table_open(DependRelationId, AccessShareLock);
	char	   *found = NULL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(catalog, DependReferenceIndexId, true, NULL, 2, keys);
	while (found == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		ObjectAddress object = {form->classid, form->objid, form->objsubid};

		/* The extension itself depends on its schema, too. */
		if (form->classid != ExtensionRelationId &&
			!(form->classid == ProcedureRelationId && form->objid == function))
			found = getObjectDescription(&object, false);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* require_own_schema() returns void: only for the install script */
Datum
uncache_require_own_schema(PG_FUNCTION_ARGS)
{
	Oid			schema = get_namespace_oid("uncache", false);
	Oid			owner = schema_owner(schema);
	char	   *object;

	if (owner != GetUserId() && !superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"uncache\" belongs to \"%s\", who is not a superuser",
						GetUserNameFromId(owner, false)),
				 errhint("Drop the schema: CREATE EXTENSION makes it.")));
	object = find_object(schema, fcinfo->flinfo->fn_oid);
	if (object != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"uncache\" is not empty"),
				 errdetail("It holds %s.", object),
				 errhint("Drop the schema: CREATE EXTENSION makes it.")));
	PG_RETURN_VOID();
}
