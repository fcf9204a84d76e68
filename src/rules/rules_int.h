/*
 * rules_int.h
 *	  Declarations that only the files of this folder use.
 */
#ifndef UNCACHE_RULES_INT_H
#define UNCACHE_RULES_INT_H

#include "rules/rule_cache.h"
#include "rules/rules.h"

/* The errdetail where template_keypattern() gives none for a template. */
#define NO_PATTERN_DETAIL \
	"It does not begin with literal text that holds two letters or digits, by which its " \
	"keys could be found."

/* ---------- attach.c ---------- */

/* Names of the triggers that uncache.attach() makes, and uncache.detach() drops. */
#define ATTACH_ROW_TRIGGER		"uncache_row"
#define ATTACH_TRUNCATE_TRIGGER "uncache_truncate"

/* Whether a trigger has one of these names. */
#define is_attached_name(name) \
	(strcmp(name, ATTACH_ROW_TRIGGER) == 0 || strcmp(name, ATTACH_TRUNCATE_TRIGGER) == 0)

/* ---------- rule_check.c ---------- */

/* Raise an ERROR if a rule on this relation is not possible, or would be useless. */
extern void rule_check_table(Relation rel);

/*
 * Check a trigger that was just made: an ERROR if it cannot work as a rule, a NOTICE
 * for a template that names no column.
 */
extern void rule_check_new(const RuleInfo *info);

/*
 * Why a trigger of this type (BEFORE, FOR EACH STATEMENT ...) fails whenever it fires, as
 * the end of a sentence; *hint is then set to the way out.  NULL if it does not fail.
 */
extern const char *rule_type_problem(const RuleInfo *info, const char **hint);

/* Give a NOTICE if a template names no column, so that all rows have the same key. */
extern void rule_notice_constant(const Template *template);

/*
 * Whether the owner of a partitioned table has EXECUTE on a rule's function, which
 * PostgreSQL asks for when it clones the trigger to a new partition.  True for others.
 */
extern bool rule_owner_can_add_partitions(Relation rel, Oid function);

/*
 * Why a rule's templates do not compile now, as text in CurrentMemoryContext, or NULL if
 * they do; *sqlerrcode (which may be NULL) gets the SQLSTATE.  Compiles in a
 * subtransaction.  A missing right to call a function is no problem of the rule.  An
 * error that tells nothing about the rule, such as out of memory, is raised again.
 */
extern char *rule_compile_problem(const RuleInfo *info, int *sqlerrcode);

/* ---------- ddl_guard.c ---------- */

/* An object that a template may name.  Without a schema it may be in any. */
typedef struct ObjectName
{
	const char *schema;			/* or NULL */
	const char *name;
} ObjectName;

/*
 * Each of these looks at some rules, and raises ERROR 2BP01 for the first that no longer
 * works.  With "cascade" it drops the rule instead, with a NOTICE, if the rule fails
 * because an object is missing.
 */

/* All rules of a table and of the tables that inherit from it.  Returns whether it has any. */
extern bool ddl_guard_table(Oid relid);

/* Those of them whose text has the name of a column. */
extern void ddl_guard_column(Oid relid, const char *column, bool cascade);

/* All rules of the database whose text has the name of one of these objects (ObjectName). */
extern void ddl_guard_objects(List *names, bool cascade);

/* All rules of the database that fail for want of a cast. */
extern void ddl_guard_casts(void);

/* Rules with a template that uses this column, whose type was changed: always an ERROR. */
extern void ddl_guard_type(Oid relid, const char *column);

/* The same for an attribute of a composite type, in the tables made OF that type. */
extern void ddl_guard_attribute_type(Oid type, const char *attribute);

/* ---------- drop_notice.c ---------- */

/* Give the notices for the tables that a command has dropped.  Called by sql_drop. */
extern void drop_notice_emit(void);

/* ---------- rule_flush.c ---------- */

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

/* ---------- rule_partitions.c ---------- */

/*
 * Give every partition below a table the TRUNCATE rules that the table has.  A clone that
 * exists is made like its parent, with "sync_enabled" also enabled or disabled like it.
 * Does nothing for a table that is not partitioned.  Takes ShareRowExclusiveLock on the
 * partitions.  The caller needs no rights on uncache's functions.
 */
extern void rule_cover_partitions(Oid relid, bool sync_enabled);

/*
 * The same for one new partition and those below it.  The other partitions are not locked,
 * so adding one does not wait for sessions that write to them.
 */
extern void rule_cover_new_partition(Oid partition);

/* At most "most" tables that inherit from a table directly, by OID.  Takes no locks. */
extern List *rule_children(Oid relid, int most);

/* A partitioned table and the partitions below it, level by level: at most "most". */
extern List *rule_partitions(Oid relid, int most);

/* ---------- rule_rows.c ---------- */

/*
 * Call these when a partition was attached to, or detached from, a table, in the same
 * transaction.  They add the keys of its rows under the table's rules to the pending set,
 * and a NOTICE tells which; nothing happens for a table without rules.  For an attached
 * partition that has rules of its own there is a NOTICE, too.
 */
extern void rule_rows_attached(Oid relid, Oid partition);
extern void rule_rows_detached(Oid relid, Oid partition);

#endif							/* UNCACHE_RULES_INT_H */
