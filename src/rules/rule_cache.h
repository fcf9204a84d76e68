/*
 * rule_cache.h
 *	  A rule ready for use: a trigger with its compiled templates.
 */
#ifndef UNCACHE_RULE_H
#define UNCACHE_RULE_H

#include "postgres.h"
#include "utils/rel.h"

#include "rules/rule_catalog.h"
#include "template/template.h"

/* rule_cache.c writes all of it; other files read the first group only. */
typedef struct Rule
{
	Oid			topmost;		/* the trigger, or for a clone the one at the top */
	int			ntemplates;
	Template  **templates;
	int			ncolumns;		/* of invalidate_columns(); else 0 */
	AttrNumber *columns;
	int			settings;		/* SETTINGS_* bits that its templates need */
	bool		runs_code;		/* a template calls functions of users */
	bool		queries;		/* a template calls a function that may query */

	struct RulePrivate *private;
} Rule;

/*
 * Get the rule of a trigger of "rel", and compile it if it is not in the cache.  It stays
 * as it is until rule_release(), whatever happens to the table.  After an ERROR it must
 * be released only if rule_may_reenter().  Raises the errors of template_compile(), and
 * one for a trigger without templates.
 */
extern Rule *rule_acquire(Relation rel, Oid trigger, bool by_columns,
						  int nargs, char **args);
extern void rule_release(Rule *rule);

/*
 * Whether rendering may call a function that asks for the same rule again.  Its use is
 * counted then, so rule_release() must be called after an ERROR, too.
 */
#define rule_may_reenter(rule)	((rule)->runs_code)

/*
 * The rule of a trigger of "rel" for a caller that does not render (template_inspect() says
 * what it lacks).  Compiled anew in CurrentMemoryContext; rule_discard() frees it.
 */
extern Rule *rule_inspect(Relation rel, const RuleInfo *info);
extern void rule_discard(Rule *rule);

/*
 * The numbers of the columns that an array literal such as {email,name} names; *count is
 * how many.  An ERROR for a missing or virtual column, a NULL, or none at all.
 */
extern AttrNumber *rule_read_columns(Relation rel, const char *literal, int *count);

#endif							/* UNCACHE_RULE_H */
