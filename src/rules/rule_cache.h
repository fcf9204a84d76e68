/*
 * rule_cache.h
 *	  Rules ready for use: a trigger with its compiled templates.
 */
#ifndef UNCACHE_RULE_H
#define UNCACHE_RULE_H

#include "postgres.h"
#include "utils/rel.h"

#include "rules/rule_catalog.h"
#include "template/template.h"

/* Others read the first group only. */
typedef struct Rule
{
	Oid			topmost;		/* the trigger itself, or that it is a clone of */
	int			ntemplates;
	Template  **templates;
	int			ncolumns;		/* of invalidate_columns(); else 0 */
	AttrNumber *columns;
	int			settings;		/* of all templates together */
	bool		runs_code;		/* some template does; likewise the next */
	bool		queries;

	struct RulePrivate *private;
} Rule;

/*
 * Get the rule of a trigger of "rel", compiling what is not in the cache.  It
 * stays as it is until it is released, whatever happens to the table; after an
 * ERROR it need not be released by who has never called code that can raise one
 * and come back here (see rule_may_reenter).  Raises what template_compile()
 * raises, and an ERROR for a trigger without templates.
 */
extern Rule *rule_acquire(Relation rel, Oid trigger, bool by_columns,
						  int nargs, char **args);
extern void rule_release(Rule *rule);

/*
 * Whether rendering may call functions that get back here: then rule_release()
 * must be called after an ERROR too.
 */
#define rule_may_reenter(rule)	((rule)->runs_code)

/*
 * The rule of a trigger of "rel" for who does not render: template_inspect() says
 * how it differs.  It is made anew in CurrentMemoryContext, and can be discarded.
 */
extern Rule *rule_inspect(Relation rel, const RuleInfo *info);
extern void rule_discard(Rule *rule);

/* The columns of an array literal in a table; an ERROR names what is wrong. */
extern AttrNumber *rule_read_columns(Relation rel, const char *literal, int *count);

#endif							/* UNCACHE_RULE_H */
