/*
 * rule_catalog.h
 *	  Rules as the catalogs have them: triggers that call a function of ours.
 *
 * There is no table of rules.  What is read here is as the catalogs say at the
 * moment; nothing is kept.
 */
#ifndef UNCACHE_RULE_CATALOG_H
#define UNCACHE_RULE_CATALOG_H

#include "postgres.h"
#include "nodes/pg_list.h"

/* One trigger.  Made in CurrentMemoryContext, as everything of this file. */
typedef struct RuleInfo
{
	Oid			trigger;
	Oid			parent;			/* trigger it is a clone of, or InvalidOid */
	Oid			relation;
	Oid			function;
	char	   *name;
	int16		type;			/* TRIGGER_TYPE_* bits */
	char		enabled;		/* TRIGGER_FIRES_* */
	bool		by_columns;		/* calls invalidate_columns() */
	int			nargs;
	char	  **args;
	int			nattrs;			/* of UPDATE OF */
	int16	   *attrs;
	char	   *qual;			/* of WHEN, as a node's text; or NULL */
} RuleInfo;

/* OID of uncache.invalidate() or invalidate_columns(); InvalidOid without the extension. */
extern Oid	rule_function(bool by_columns);

/* Whether the database has any rule; costs next to nothing. */
extern bool rule_any_exists(void);

/* Rules of one table, clones included; those of the whole database, oldest first. */
extern List *rule_list_of_table(Oid relid);
extern List *rule_list_of_database(void);

/* One rule, or NULL where there is none such. */
extern RuleInfo *rule_by_name(Oid relid, const char *name);
extern RuleInfo *rule_by_trigger(Oid trigger);

/*
 * For a row of a view: the table (oid) and the name of a trigger into values[0] and
 * values[1].  Returns false, and sets neither, where the trigger is gone.
 */
extern bool rule_describe(Oid trigger, Datum *values);

/*
 * Up from clone to clone; *relation is then the table of that trigger, or
 * InvalidOid where the trigger is none that this file knows.
 */
extern Oid	rule_topmost(Oid trigger, Oid *relation);

/* The templates among the arguments. */
#define rule_ntemplates(info)	((info)->nargs - ((info)->by_columns ? 1 : 0))
#define rule_templates(info)	((info)->args + ((info)->by_columns ? 1 : 0))

#endif							/* UNCACHE_RULE_CATALOG_H */
