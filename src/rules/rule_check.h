/*
 * rule_check.h
 *	  Whether a rule works.
 */
#ifndef UNCACHE_RULE_CHECK_H
#define UNCACHE_RULE_CHECK_H

#include "rules/rule_catalog.h"

/*
 * All that is wrong with a rule, for the view uncache.rules: text in CurrentMemoryContext,
 * or NULL if nothing is.  Never waits for a lock: if another session has the table locked,
 * the text says that it was not checked.  Holds no lock afterwards.
 */
extern char *rule_problems(const RuleInfo *info);

#endif							/* UNCACHE_RULE_CHECK_H */
