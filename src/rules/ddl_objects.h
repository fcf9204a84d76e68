/*
 * ddl_objects.h
 *	  What event triggers know of a command.
 */
#ifndef UNCACHE_DDL_OBJECTS_H
#define UNCACHE_DDL_OBJECTS_H

#include "postgres.h"
#include "catalog/objectaddress.h"
#include "commands/event_trigger.h"
#include "fmgr.h"
#include "nodes/pg_list.h"

#include "rules/ddl_guard.h"

/* An object, and its name as far as that is known. */
typedef struct ChangedObject
{
	ObjectAddress address;
	ObjectName	name;
} ChangedObject;

/* The event that a function was called for; an ERROR if it was not by an event trigger. */
extern EventTriggerData *ddl_event(FunctionCallInfo fcinfo);

/*
 * The objects (ChangedObject) that a query finds: its columns are classid, objid and
 * objsubid, and if wanted schema and name.  Made in CurrentMemoryContext.
 */
extern List *ddl_read_objects(const char *query);

/* Add an ObjectName to a list of them; where "name" is NULL, nothing. */
extern List *ddl_add_name(List *names, const char *schema, const char *name);

#endif							/* UNCACHE_DDL_OBJECTS_H */
