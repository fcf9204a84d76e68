/*
 * rule_rows.h
 *	  Rows that come to a table, or leave it, with a whole partition.
 */
#ifndef UNCACHE_RULE_ROWS_H
#define UNCACHE_RULE_ROWS_H

#include "postgres.h"

/*
 * Call these when a partition was attached to, or detached from, a table, in the same
 * transaction.  They add the keys of its rows under the table's rules to the pending set,
 * and a NOTICE tells which; nothing happens for a table without rules.  For an attached
 * partition that has rules of its own there is a NOTICE, too.
 */
extern void rule_rows_attached(Oid relid, Oid partition);
extern void rule_rows_detached(Oid relid, Oid partition);

/*
 * Call this before a partition is attached.  An ERROR with the way out if one of its own
 * rules has the name of one of the table's: PostgreSQL would refuse that without a hint.
 */
extern void rule_rows_check_names(Oid relid, Oid partition);

#endif							/* UNCACHE_RULE_ROWS_H */
