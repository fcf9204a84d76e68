/*
 * ddl_guard.h
 *	  Refusing a command that has broken a rule, or dropping the rule.
 */
#ifndef UNCACHE_RULE_GUARD_H
#define UNCACHE_RULE_GUARD_H

#include "postgres.h"
#include "nodes/pg_list.h"

/* What a template may name; without a schema: wherever it is. */
typedef struct ObjectName
{
	const char *schema;			/* or NULL */
	const char *name;
} ObjectName;

/*
 * These raise ERROR 2BP01 for a rule that does not work any more; where "cascade"
 * they drop the rule instead, with a NOTICE, if it is for want of an object.
 */

/* All of a table and of what inherits from it.  Returns whether there is any. */
extern bool rule_guard_table(Oid relid);

/* Those of them that name a column. */
extern void rule_guard_column(Oid relid, const char *column, bool cascade);

/* All in the database that name any of these objects (ObjectName). */
extern void rule_guard_objects(List *names, bool cascade);

/* All that lack a cast. */
extern void rule_guard_casts(void);

/* Rules with this column, whose type was changed, in a template: always an ERROR. */
extern void rule_guard_type(Oid relid, const char *column);

/* The same for an attribute of a composite type, and the tables made OF it. */
extern void rule_guard_attribute_type(Oid type, const char *attribute);

#endif							/* UNCACHE_RULE_GUARD_H */
