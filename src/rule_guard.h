/*
 * rule_guard.h
 *	  Refusing a command that has broken a rule, or dropping the rule.
 */
#ifndef UNCACHE_RULE_GUARD_H
#define UNCACHE_RULE_GUARD_H

#include "postgres.h"

/*
 * These raise ERROR 2BP01 for a rule that does not work any more; where "cascade"
 * they drop the rule instead, with a NOTICE.
 */

/* Of a table and all that inherit from it.  Returns whether there is any rule. */
extern bool rule_guard_table(Oid relid, bool cascade);

/*
 * All rules with more in their templates than names of columns; "function": only
 * those that hold this name.
 */
extern void rule_guard_expressions(const char *function, bool cascade);

/* Rules with this column, whose type was changed, in a template: always an ERROR. */
extern void rule_guard_type(Oid relid, const char *column);

#endif							/* UNCACHE_RULE_GUARD_H */
