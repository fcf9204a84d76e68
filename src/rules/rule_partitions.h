/*
 * rule_partitions.h
 *	  TRUNCATE rules of partitioned tables.
 */
#ifndef UNCACHE_RULE_PARTITION_H
#define UNCACHE_RULE_PARTITION_H

#include "postgres.h"

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

/*
 * For a worker that starts: make the clones that are missing anywhere in the database.
 * Waits for no lock: a table that is in use is left as it is, and the log says so.
 */
extern void rule_cover_database(void);

/* The first partition below a table that lacks a clone of this rule, or InvalidOid. */
extern Oid	rule_uncovered_partition(Oid relid, Oid trigger);

#endif							/* UNCACHE_RULE_PARTITION_H */
