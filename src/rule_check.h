/*
 * rule_check.h
 *	  Whether a rule works, and whether one may be made.
 */
#ifndef UNCACHE_RULE_CHECK_H
#define UNCACHE_RULE_CHECK_H

#include "rule.h"

/* Raise an ERROR unless rules are possible on this relation. */
extern void check_rule_table(Relation rel);

/*
 * Raise an ERROR for a trigger that was just made and cannot work as a rule, and
 * a NOTICE for one that does something strange.
 */
extern void check_new_rule(const RuleInfo *info);

/* A NOTICE for templates that name no column. */
extern void notice_constant(const Template *template);

/*
 * Whether the owner of a table may call a rule's function.  PostgreSQL asks for
 * that when the trigger of a partitioned table is cloned to a new partition.
 */
extern bool owner_can_add_partitions(Relation rel, Oid function);

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

#endif							/* UNCACHE_RULE_CHECK_H */
