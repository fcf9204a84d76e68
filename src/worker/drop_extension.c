/*
 * drop_extension.c
 *	  DROP EXTENSION takes its locks in an order that harms no other session.
 *
 * With CASCADE the command drops the rules, too, for which it locks their tables, after it
 * has locked the outbox.  A writer locks a table first, and the outbox when it commits: a
 * deadlock, which would end the writer.  So this file locks the tables with rules before
 * the outbox.  While it waits for one that is in use, it keeps none of the others locked.
 *
 * A prepared transaction keeps its lock on the side table of the outbox until it is
 * finished, which may be never.  DROP EXTENSION would lock the other tables and then
 * wait for that one, and every commit that has keys would wait behind it.  So this file
 * locks the side table before the others, and raises an ERROR that names the holder where
 * it can't.  DROP SCHEMA uncache CASCADE drops the extension, too, and gets the same.
 * Another way to drop it (DROP OWNED) gets none of this.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "worker/worker_int.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_tables.h"
#include "rules/rule_catalog.h"

/* The worker, and a session in PREPARE TRANSACTION, hold their locks for much less. */
#define LOCK_MS			1000
#define POLL_US			(5 * 1000)

pg_noreturn static void
raise_in_use(const char *holders)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot drop extension \"pg_uncache\" because another transaction uses its "
					"outbox"),
			 errdetail("Table \"uncache.outbox_side\" is locked: %s.  Commits would wait for that "
					   "lock, too.",
					   holders),
			 errhint("See pg_prepared_xacts; use COMMIT PREPARED or ROLLBACK PREPARED first.")));
}

static void
lock_side_table(void)
{
	Oid			table = outbox_table_oid(OUTBOX_SIDE);
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), LOCK_MS);

	while (OidIsValid(table) && !ConditionalLockRelationOid(table, AccessExclusiveLock))
	{
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
			raise_in_use(outbox_open_holders(table, AccessExclusiveLock));
		pg_usleep(POLL_US);
	}
}

/*
 * Lock all of the tables without waiting; "held" is locked already.  Returns InvalidOid, or
 * the table that is in use: then only "held" is still locked.
 */
static Oid
lock_if_free(List *tables, Oid held)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		Oid			table = lfirst_oid(lc);

		if (table == held || ConditionalLockRelationOid(table, AccessExclusiveLock))
			continue;
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			if (list_nth_oid(tables, i) != held)
				UnlockRelationOid(list_nth_oid(tables, i), AccessExclusiveLock);
		}
		return table;
	}
	return InvalidOid;
}

static List *
tables_with_rules(void)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, rule_list_of_database())
		tables = lappend_oid(tables, ((RuleInfo *) lfirst(lc))->relation);
	list_sort(tables, list_oid_cmp);
	list_deduplicate_oid(tables);
	return tables;
}

/* The locks stay until the end of the transaction. */
static void
lock_tables_with_rules(void)
{
	Oid			held = InvalidOid;
	Oid			in_use;

	while (OidIsValid(in_use = lock_if_free(tables_with_rules(), held)))
	{
		if (OidIsValid(held))
			UnlockRelationOid(held, AccessExclusiveLock);
		LockRelationOid(in_use, AccessExclusiveLock);
		held = in_use;
	}
}

static bool
drops_extension(const DropStmt *drop)
{
	const char *name = drop->removeType == OBJECT_EXTENSION ? "pg_uncache" :
		drop->removeType == OBJECT_SCHEMA && drop->behavior == DROP_CASCADE ? "uncache" : NULL;
	ListCell   *lc;

	if (name == NULL)
		return false;
	foreach(lc, drop->objects)
	{
		if (strcmp(strVal(lfirst(lc)), name) == 0)
			return true;
	}
	return false;
}

void
drop_extension_before(DropStmt *drop)
{
	/* Where any of these is not so, the command itself refuses. */
	if (!drops_extension(drop) || !superuser() || RecoveryInProgress())
		return;
	lock_side_table();
	if (drop->behavior != DROP_CASCADE || !OidIsValid(outbox_table_oid(OUTBOX_SIDE)))
		return;
	/* It is free; but a writer that waits for it must not hold a table that this waits for. */
	UnlockRelationOid(outbox_table_oid(OUTBOX_SIDE), AccessExclusiveLock);
	lock_tables_with_rules();
	lock_side_table();
}
