/*
 * rule_check.h
 *	  Whether a rule works.
 */
#ifndef UNCACHE_RULE_CHECK_H
#define UNCACHE_RULE_CHECK_H

#include "rules/rule_catalog.h"

/*
 * All that is wrong with a rule, for the view, or NULL.  Holds no lock afterwards,
 * and does not wait for one: where somebody has locked the table, that is said.
 */
extern char *rule_problems(const RuleInfo *info);

#endif							/* UNCACHE_RULE_CHECK_H */
