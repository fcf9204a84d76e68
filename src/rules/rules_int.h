/*
 * rules_int.h
 *	  What only files of this folder use of each other.
 */
#ifndef UNCACHE_RULES_INT_H
#define UNCACHE_RULES_INT_H

#include "rules/rule_cache.h"

/* ---------- attach.c ---------- */

/* Names of the triggers that uncache.attach() makes. */
#define ATTACH_ROW_TRIGGER		"uncache_row"
#define ATTACH_TRUNCATE_TRIGGER "uncache_truncate"

/* Whether a trigger has one of these names. */
#define is_attached_name(name) \
	(strcmp(name, ATTACH_ROW_TRIGGER) == 0 || strcmp(name, ATTACH_TRUNCATE_TRIGGER) == 0)

/* ---------- rule_check.c ---------- */

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

/*
 * Why a rule's templates do not compile now, or NULL when they do.  Raises
 * nothing for that: it tries in a subtransaction.  What the caller has no right
 * to call is taken for good, and an error that says nothing of the rule, such as
 * want of memory, is raised.  *sqlerrcode, where wanted, is the error's.
 */
extern char *rule_compile_problem(const RuleInfo *info, int *sqlerrcode);

/* ---------- ddl_guard.c ---------- */

/* What a template may name; without a schema: wherever it is. */
typedef struct ObjectName
{
	const char *schema;			/* or NULL */
	const char *name;
} ObjectName;

/*
 * These raise ERROR 2BP01 for a rule that does not work any more; where "cascade"
 * they drop the rule instead, with a NOTICE, if it is for want of an object.
 */

/* All of a table and of what inherits from it.  Returns whether there is any. */
extern bool ddl_guard_table(Oid relid);

/* Those of them that name a column. */
extern void ddl_guard_column(Oid relid, const char *column, bool cascade);

/* All in the database that name any of these objects (ObjectName). */
extern void ddl_guard_objects(List *names, bool cascade);

/* All that lack a cast. */
extern void ddl_guard_casts(void);

/* Rules with this column, whose type was changed, in a template: always an ERROR. */
extern void ddl_guard_type(Oid relid, const char *column);

/* The same for an attribute of a composite type, and the tables made OF it. */
extern void ddl_guard_attribute_type(Oid type, const char *attribute);

#endif							/* UNCACHE_RULES_INT_H */
