/*
 * rule_flush.h
 *	  Invalidating every key that rules can produce.
 */
#ifndef UNCACHE_INVALIDATE_H
#define UNCACHE_INVALIDATE_H

#include "rules/rule_cache.h"

/*
 * Add the key patterns of a rule to the pending set.  A template that has none is
 * reported at "elevel" (0: not at all).
 */
extern void rule_flush_rule(Rule *rule, int elevel);

/*
 * The same for all rules of a table and, with "descend", of the tables that inherit from
 * it.  Takes AccessShareLock on the tables.  Returns the number of rules.
 */
extern int	rule_flush_rules_of_table(Oid relid, bool descend, int elevel);

/*
 * The same for all rules of the database, or only those of unlogged tables.  The ERROR of
 * a rule that does not work goes to the log, and the rule is left out.
 */
extern void rule_flush_all_rules(bool only_unlogged);

/*
 * The tables (OIDs, none twice) that rule_flush_all_rules() opens with AccessShareLock:
 * a caller that must not wait for locks takes these first.
 */
extern List *rule_flush_tables(bool only_unlogged);

#endif							/* UNCACHE_INVALIDATE_H */
