/*
 * rule_rows.h
 *	  Rows that come to a table, or leave it, with a whole partition.
 */
#ifndef UNCACHE_RULE_ROWS_H
#define UNCACHE_RULE_ROWS_H

#include "postgres.h"

/*
 * A partition was attached to, or detached from, a table, in this transaction and under
 * its lock.  Add what its rows feed under the table's rules to the pending set, and say
 * in a NOTICE what that is; does nothing for a table without rules.  A partition that has
 * rules of its own gets a NOTICE, too, when it is attached.
 */
extern void rule_rows_attached(Oid relid, Oid partition);
extern void rule_rows_detached(Oid relid, Oid partition);

/*
 * Before a partition is attached: an ERROR with a way out where one of its own rules has
 * the name of one of the table's, which PostgreSQL would refuse without a word of it.
 */
extern void rule_rows_check_names(Oid relid, Oid partition);

#endif							/* UNCACHE_RULE_ROWS_H */
