/*
 * drop_extension.c
 *	  DROP EXTENSION takes its locks in an order that does nobody harm.
 *
 * With CASCADE it drops the rules, too, for which it locks their tables, after it has
 * locked the outbox.  A writer locks a table first, and the outbox when it commits: a
 * deadlock, which would end the writer.  So the tables with rules are locked here
 * before the outbox.  Where one is in use, none of the others stays locked while that is waited for.
 *
 * A prepared transaction keeps its lock on the side table of the outbox until it is
 * finished, which may be never.  DROP EXTENSION would lock the other tables and then
 * wait for that one, and every commit that has keys would wait behind it.  So the
 * side table is locked here before the others, and whoever cannot have it is told
 * why.  DROP SCHEMA uncache CASCADE takes the extension with it.  Where it goes by
 * another way (DROP OWNED) none of this is done.
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
#include "worker/drop_extension.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_write.h"
#include "rules/rule_catalog.h"

/* The worker, and who prepares a transaction, hold their locks for much less than this. */
#define LOCK_MS			1000
#define POLL_US			(5 * 1000)

pg_noreturn static void
raise_in_use(const char *holders)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot drop extension \"pg_uncache\" because another transaction uses its outbox"),
			 errdetail("Table \"uncache.outbox_side\" is locked: %s.  Commits would wait until that is over.",
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

/* Lock tables, but "held", which is locked; InvalidOid, or the one that is in use. */
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

/* Until the end of the transaction. */
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
	/* Others are refused by the command itself. */
	if (!drops_extension(drop) || !superuser() || RecoveryInProgress())
		return;
	lock_side_table();
	if (drop->behavior != DROP_CASCADE || !OidIsValid(outbox_table_oid(OUTBOX_SIDE)))
		return;
	/* It was to be had; but writers that wait for it must not have us wait for them. */
	UnlockRelationOid(outbox_table_oid(OUTBOX_SIDE), AccessExclusiveLock);
	lock_tables_with_rules();
	lock_side_table();
}
