/*
 * rule_catalog.h
 *	  Rules as the catalogs have them: triggers that call a function of pg_uncache.
 *
 * There is no table of rules.  Each call reads the catalogs; nothing is kept.
 */
#ifndef UNCACHE_RULE_CATALOG_H
#define UNCACHE_RULE_CATALOG_H

#include "postgres.h"
#include "nodes/pg_list.h"

/* One rule.  All results of this file are made in CurrentMemoryContext. */
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
	int			nattrs;			/* columns of UPDATE OF; 0: all */
	int16	   *attrs;
	char	   *qual;			/* the condition of WHEN, as a node's text; or NULL */
} RuleInfo;

/* OID of uncache.invalidate() or invalidate_columns(); InvalidOid without the extension. */
extern Oid	rule_function(bool by_columns);

/* Whether the database has any rule: one or two index scans. */
extern bool rule_any_exists(void);

/* The rules of one table, or of the database with the oldest first; clones included. */
extern List *rule_list_of_table(Oid relid);
extern List *rule_list_of_database(void);

/*
 * To go over the rules of a database a few at a time: the next rule that is no clone, in the
 * order of the triggers' OIDs, or NULL if none is among the next "most" triggers.  *cursor is
 * InvalidOid at first.  It is set to the last trigger that was looked at, or to InvalidOid if
 * there are no more.
 */
extern RuleInfo *rule_next(Oid *cursor, int most);

/* One rule, or NULL if there is none. */
extern RuleInfo *rule_by_name(Oid relid, const char *name);
extern RuleInfo *rule_by_trigger(Oid trigger);

/*
 * For a row of a view: the table (oid) and the name of a trigger into values[0] and
 * values[1].  Returns false, and sets neither, where the trigger is gone.
 */
extern bool rule_describe(Oid trigger, Datum *values);

/*
 * The trigger that a clone comes from, over all levels of partitions; a trigger that is no
 * clone is its own.  *relation is set to the table of the result, or to InvalidOid if
 * "trigger" is no rule.
 */
extern Oid	rule_topmost(Oid trigger, Oid *relation);

/* The templates of a rule: its arguments but for the columns of invalidate_columns(). */
#define rule_ntemplates(info)	((info)->nargs - ((info)->by_columns ? 1 : 0))
#define rule_templates(info)	((info)->args + ((info)->by_columns ? 1 : 0))

#endif							/* UNCACHE_RULE_CATALOG_H */
