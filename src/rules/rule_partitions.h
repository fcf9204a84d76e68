/*
 * rule_partitions.h
 *	  TRUNCATE rules of partitioned tables.
 */
#ifndef UNCACHE_RULE_PARTITION_H
#define UNCACHE_RULE_PARTITION_H

#include "postgres.h"

/*
 * Give every partition below a table the TRUNCATE rules that the table has, and
 * make those that are there already like their parent's ("sync_enabled": also
 * enabled or disabled like it).  Does nothing for other tables.  Takes
 * ShareRowExclusiveLock on partitions.  For anybody who may change the table:
 * the caller's rights on uncache's functions do not matter.
 */
extern void rule_cover_partitions(Oid relid, bool sync_enabled);

/*
 * The same for one new partition and what is below it; others are not locked, so
 * that adding one does not wait for those who write to them.
 */
extern void rule_cover_new_partition(Oid partition);

/*
 * What is missing anywhere in the database; for a worker that starts.  Waits for
 * no lock: a table that is in use is left as it is, and the log says so.
 */
extern void rule_cover_database(void);

/* The first partition below a table that lacks a clone of this rule, or InvalidOid. */
extern Oid	rule_uncovered_partition(Oid relid, Oid trigger);

#endif							/* UNCACHE_RULE_PARTITION_H */
