/*
 * rule_problems.h
 *	  Whether a rule works.
 */
#ifndef UNCACHE_RULE_PROBLEMS_H
#define UNCACHE_RULE_PROBLEMS_H

#include "rules/rule_catalog.h"

/*
 * Why a rule's templates do not compile now, or NULL when they do.  Raises
 * nothing for that: it tries in a subtransaction.  What the caller has no right
 * to call is taken for good, and an error that says nothing of the rule, such as
 * want of memory, is raised.  *sqlerrcode, where wanted, is the error's.
 */
extern char *rule_compile_problem(const RuleInfo *info, int *sqlerrcode);

/*
 * All that is wrong with a rule, for the view, or NULL.  Holds no lock afterwards,
 * and does not wait for one: where somebody has locked the table, that is said.
 */
extern char *rule_problems(const RuleInfo *info);

#endif							/* UNCACHE_RULE_PROBLEMS_H */
