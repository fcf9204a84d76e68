/*
 * rules.h
 *	  What other folders ask of the rules, besides looking at one (rule_catalog.h,
 *	  rule_cache.h) and its limits (size_limit.h).
 */
#ifndef UNCACHE_RULES_H
#define UNCACHE_RULES_H

#include "postgres.h"
#include "commands/event_trigger.h"
#include "fmgr.h"
#include "nodes/pg_list.h"

#include "base/invalidation.h"
#include "rules/rule_catalog.h"

/* ---------- rule_flush.c: invalidating every key that rules can produce ---------- */

/*
 * Add the key patterns of all rules of the database, or only of those of unlogged tables, to
 * the pending set.  The ERROR of a rule that does not work goes to the log, and the rule is
 * left out.
 */
extern void rule_flush_all_rules(bool only_unlogged);

/*
 * The tables (OIDs, none twice) that rule_flush_all_rules() opens with AccessShareLock:
 * a caller that must not wait for locks takes these first.
 */
extern List *rule_flush_tables(bool only_unlogged);

/* ---------- rule_partitions.c: TRUNCATE rules of partitioned tables ---------- */

/*
 * For a worker that starts: make the clones that are missing anywhere in the database.
 * Waits for no lock: a table that is in use is left as it is, and the log says so.
 */
extern void rule_cover_database(void);

/* ---------- rule_rows.c: rows that come to a table with a whole partition ---------- */

/*
 * Call this before a partition is attached.  An ERROR with the way out if one of its own
 * rules has the name of one of the table's: PostgreSQL would refuse that without a hint.
 */
extern void rule_rows_check_names(Oid relid, Oid partition);

/* ---------- rule_check.c: whether a rule works ---------- */

/*
 * All that is wrong with a rule, for the view uncache.rules: text in CurrentMemoryContext,
 * or NULL if nothing is.  Of the rule's table and those below it, at most "most_tables" are
 * looked at.  Never waits for a lock on the table: if another session has it locked, the text
 * says that it was not checked.  A template that uses another table's row type waits for that
 * table, within lock_timeout.  Holds no lock afterwards.
 */
extern char *rule_problems(const RuleInfo *info, int most_tables);

/* ---------- ddl_triggers.c: keeping rules whole ---------- */

/* The event that a function was called for; an ERROR if no event trigger has called it. */
extern EventTriggerData *ddl_event(FunctionCallInfo fcinfo);

/* ---------- drop_notice.c: what DROP TABLE says about the keys of the table ---------- */

/* Install the hook that remembers dropped rules.  Called by _PG_init(). */
extern void drop_notice_init(void);

/* ---------- invalidate_functions.c ---------- */

/* The text of a key or glob; for a key pattern, the glob that it stands for. */
extern text *invalidate_functions_readable_key(const Invalidation *item);

#endif							/* UNCACHE_RULES_H */
