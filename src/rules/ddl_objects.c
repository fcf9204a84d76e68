/*
 * ddl_objects.c
 *	  What event triggers know of a command.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "rules/ddl_objects.h"

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

	object->address.classId = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
	object->address.objectId = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	object->address.objectSubId = DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull));
	if (desc->natts > 3)
	{
		/* Made in this context. */
		object->name.schema = SPI_getvalue(row, desc, 4);
		object->name.name = SPI_getvalue(row, desc, 5);
	}
	MemoryContextSwitchTo(old);
	return object;
}

List *
ddl_read_objects(const char *query)
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

List *
ddl_add_name(List *names, const char *schema, const char *name)
{
	ObjectName *object;

	if (name == NULL)
		return names;
	object = palloc(sizeof(ObjectName));
	object->schema = schema;
	object->name = name;
	return lappend(names, object);
}
