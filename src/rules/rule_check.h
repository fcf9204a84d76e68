/*
 * rule_check.h
 *	  Whether a rule may be made.
 */
#ifndef UNCACHE_RULE_CHECK_H
#define UNCACHE_RULE_CHECK_H

#include "rules/rule_cache.h"

/* Raise an ERROR unless rules are possible on this relation. */
extern void rule_check_table(Relation rel);

/*
 * Raise an ERROR for a trigger that was just made and cannot work as a rule, and
 * a NOTICE for one that does something strange.
 */
extern void rule_check_new(const RuleInfo *info);

/* Why a trigger of this type fails whenever it fires, with a hint; or NULL. */
extern const char *rule_type_problem(const RuleInfo *info, const char **hint);

/* A NOTICE for templates that name no column. */
extern void rule_notice_constant(const Template *template);

/*
 * Whether the owner of a table may call a rule's function.  PostgreSQL asks for
 * that when the trigger of a partitioned table is cloned to a new partition.
 */
extern bool rule_owner_can_add_partitions(Relation rel, Oid function);

#endif							/* UNCACHE_RULE_CHECK_H */
