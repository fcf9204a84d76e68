/*
 * rule_flush.h
 *	  Invalidating all that rules can produce.
 */
#ifndef UNCACHE_INVALIDATE_H
#define UNCACHE_INVALIDATE_H

#include "rules/rule_cache.h"

/*
 * Add the key patterns of a rule to the pending set.  Templates that cannot be
 * used for that are reported at "elevel" (0: not at all).
 */
extern void rule_flush_rule(Rule *rule, int elevel);

/*
 * The same for all rules of a table; where "descend" of the tables below it too.
 * Takes AccessShareLock on them.  Returns the number of rules found.
 */
extern int	rule_flush_rules_of_table(Oid relid, bool descend, int elevel);

/*
 * The same for all rules of the database, or only those of unlogged tables.  A
 * rule that does not work is reported in the log and left out.
 */
extern void rule_flush_all_rules(bool only_unlogged);

/*
 * The tables (OIDs, none twice) that rule_flush_all_rules() opens with AccessShareLock:
 * a caller that must not wait for locks takes these first.
 */
extern List *rule_flush_tables(bool only_unlogged);

#endif							/* UNCACHE_INVALIDATE_H */
