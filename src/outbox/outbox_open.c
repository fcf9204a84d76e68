/*
 * outbox_open.c
 *	  Opening a table of pg_uncache without waiting for the session that has it locked.
 *
 * Any user may lock a table of the outbox: PREPARE of a statement takes the locks of the
 * statement and checks rights later, and a prepared transaction keeps its locks over a
 * restart.  An administrator locks it for longer (VACUUM FULL).  A worker that waited for
 * such a lock would deliver nothing, and every commit would wait behind it.  So the worker
 * takes only locks that are free, does something else otherwise, and names the session that
 * is in the way.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "outbox/outbox_open.h"
#include "shmem/shmem.h"

/* To look for holders, PostgreSQL takes all locks of the lock table: at most so often. */
#define TELL_MS			5000

/* A table that was refused when the worker last tried, and when that was reported. */
typedef struct Refused
{
	Oid			relid;			/* InvalidOid: an empty entry */
	TimestampTz told_at;
} Refused;

/* More than the extension has tables; where users' tables fill it the log is silent. */
static Refused refused[16];

/*
 * --------------------------------------------------------------------------
 * Which session is in the way
 * --------------------------------------------------------------------------
 */

/*
 * Locks that conflict; and where none of these is held but some are awaited, the locks for
 * which those sessions wait.  A prepared transaction has no process; its lock on its own
 * transaction id tells which it is.
 */
#define HOLDERS_QUERY \
	"WITH l AS (SELECT * FROM pg_locks WHERE locktype = 'relation' AND relation = %u" \
	"  AND database = %u AND pid IS DISTINCT FROM %d)," \
	" c AS (SELECT * FROM l WHERE mode = ANY ('{%s}'))" \
	"SELECT string_agg(t, ', ') FROM (SELECT CASE WHEN granted THEN 'held' ELSE 'awaited' END" \
	"   || ' by ' || coalesce('PID ' || pid, (SELECT 'prepared transaction \"' || gid || '\"'" \
	"    FROM pg_locks x JOIN pg_prepared_xacts p ON p.transaction = x.transactionid" \
	"    WHERE x.locktype = 'transactionid' AND x.pid IS NULL" \
	"    AND x.virtualtransaction = a.virtualtransaction LIMIT 1), 'a prepared transaction')" \
	"   || ' (' || mode || ')' AS t" \
	"  FROM (SELECT * FROM c UNION ALL" \
	"   SELECT * FROM l WHERE granted AND NOT EXISTS (SELECT FROM c WHERE granted)) a" \
	"  ORDER BY granted DESC, pid LIMIT 3) b"

static char *
conflicting_modes(LOCKMODE mode)
{
	StringInfoData modes;

	initStringInfo(&modes);
	for (LOCKMODE other = 1; other <= MaxLockMode; other++)
	{
		if (DoLockModesConflict(mode, other))
			appendStringInfo(&modes, "%s%s", modes.len > 0 ? "," : "",
							 GetLockmodeName(DEFAULT_LOCKMETHOD, other));
	}
	return modes.data;
}

static char *
ask_for_holders(const char *query)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *holders = NULL;

	Assert(IsTransactionState());
	SPI_connect();
	if (SPI_execute(query, true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		holders = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	/* The holder may have released it by now. */
	holders = MemoryContextStrdup(context, holders ? holders : "held by another session");
	SPI_finish();
	return holders;
}

/*
 * As the bootstrap superuser and with a search_path of system schemas: a user's function or
 * view must not run here.
 */
char *
outbox_open_holders(Oid relid, LOCKMODE mode)
{
	char	   *query = psprintf(HOLDERS_QUERY, relid, MyDatabaseId, MyProcPid,
								 conflicting_modes(mode));
	int			nest = NewGUCNestLevel();
	Oid			user;
	int			context;
	char	   *holders;

	Assert(OidIsValid(relid) && mode > NoLock && mode <= MaxLockMode);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	PushActiveSnapshot(GetTransactionSnapshot());
	holders = ask_for_holders(query);
	PopActiveSnapshot();
	AtEOXact_GUC(true, nest);
	SetUserIdAndSecContext(user, context);
	return holders;
}

/*
 * --------------------------------------------------------------------------
 * In the worker
 * --------------------------------------------------------------------------
 */

void
outbox_begin(void)
{
	Assert(!IsTransactionState());
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
outbox_end(void)
{
	Assert(IsTransactionState() && ActiveSnapshotSet());
	PopActiveSnapshot();
	CommitTransactionCommand();
}

bool
outbox_begin_reading(void)
{
	bool		joins = IsTransactionState();

	if (joins)
		PushActiveSnapshot(GetTransactionSnapshot());
	else
		outbox_begin();
	return joins;
}

void
outbox_end_reading(bool joined)
{
	Assert(IsTransactionState() && ActiveSnapshotSet());
	if (joined)
		PopActiveSnapshot();
	else
		outbox_end();
}

static Refused *
find_refused(Oid relid)
{
	for (int i = 0; i < lengthof(refused); i++)
	{
		if (refused[i].relid == relid)
			return &refused[i];
	}
	return NULL;
}

static void
tell(Oid relid, LOCKMODE mode)
{
	Refused    *known = find_refused(relid);
	bool		is_new = known == NULL;
	TimestampTz now = clock_now();
	char	   *message;

	Assert(IsTransactionState());
	if (!is_new && !TimestampDifferenceExceeds(known->told_at, now, TELL_MS))
		return;
	message = psprintf("table %s.%s is locked: %s",
					   get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid),
					   outbox_open_holders(relid, mode));
	shmem_note_error(shmem_my_database(), message);
	if (is_new)
	{
		ereport(LOG,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("%s", message),
				 errdetail("The pg_uncache worker goes on without it, and tries again once a "
						   "second."),
				 errhint("Have that session end its transaction, or finish the prepared one; see "
						 "pg_locks and pg_prepared_xacts.")));
		known = find_refused(InvalidOid);
	}
	if (known == NULL)
		return;
	known->relid = relid;
	known->told_at = now;
}

bool
outbox_open_lock(Oid relid, LOCKMODE mode)
{
	Refused    *known = find_refused(relid);

	Assert(OidIsValid(relid));
	if (!ConditionalLockRelationOid(relid, mode))
	{
		tell(relid, mode);
		return false;
	}
	if (known != NULL)
		known->relid = InvalidOid;
	return true;
}

Opening
outbox_open_try(Oid relid, LOCKMODE mode, Relation *rel)
{
	if (!OidIsValid(relid))
		return OPENING_GONE;
	if (!outbox_open_lock(relid, mode))
		return OPENING_REFUSED;
	*rel = try_relation_open(relid, NoLock);
	return *rel != NULL ? OPENING_DONE : OPENING_GONE;
}
