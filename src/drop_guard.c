/*
 * drop_guard.c
 *	  DROP EXTENSION is refused where it would stop all commits of the database.
 *
 * A prepared transaction keeps its lock on the side table of the outbox until it is
 * finished, which may be never.  DROP EXTENSION would lock the other tables and then
 * wait for that one, and every commit that has keys would wait behind it.  So the
 * side table is locked here before the others, and whoever cannot have it is told
 * why.  DROP SCHEMA uncache CASCADE takes the extension with it.  Where it goes by
 * another way (DROP OWNED) nobody looks.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "drop_guard.h"
#include "outbox.h"

/* The worker, and who prepares a transaction, hold their locks for much less than this. */
#define LOCK_MS			1000
#define POLL_US			(5 * 1000)

static void
lock_side_table(void)
{
	Oid			table = outbox_table_oid(OUTBOX_SIDE);
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), LOCK_MS);

	while (OidIsValid(table) && !ConditionalLockRelationOid(table, AccessExclusiveLock))
	{
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop extension \"pg_uncache\" because another transaction uses its outbox"),
					 errdetail("Most likely a prepared transaction has keys in it; commits would wait until that is finished."),
					 errhint("See pg_prepared_xacts; use COMMIT PREPARED or ROLLBACK PREPARED first.")));
		pg_usleep(POLL_US);
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
drop_guard_before(Node *stmt)
{
	/* Others are refused by the command itself. */
	if (IsA(stmt, DropStmt) && drops_extension((DropStmt *) stmt) &&
		superuser() && !RecoveryInProgress())
		lock_side_table();
}
