/*
 * snapshot.c
 *	  uncache.snapshot(): the caller's snapshot, for a fenced fill.
 *
 * The text is
 *
 *		token:incarnation:fresh:xmin:xmax:xip,xip,...
 *
 * with 64-bit transaction ids.  The snapshot has seen the transactions below xmin,
 * and those below xmax that are not in the list.  The text says no more than the
 * snapshot can prove; where it can prove nothing the result is NULL, and the reader
 * stores nothing.
 *
 * pg_current_snapshot() will not do: on a standby all running transactions are in
 * the snapshot's list of subtransactions, which that function does not show, so a
 * running transaction would look committed.
 *
 * Fresh means: the snapshot was taken after the token was.  That holds where the
 * token came with the statement itself, in its text or in one of its parameters,
 * because a READ COMMITTED statement takes its snapshots after it has arrived.  So
 * snapshot_tokens.c looks for the token in the active portal, which has the text, the
 * parameters and the snapshot; a token that the statement got in any other way while it
 * ran is not there.  The portal must be the client's own: PL/pgSQL's cursors and EXECUTE
 * make portals with an older snapshot, of texts and parameters computed just then.
 *
 * A function that is called by a statement and is not declared STABLE runs with
 * a later snapshot than the statement.  What the statement has read is older, so
 * the text tells of the statement's snapshot.  That is known only for a SELECT of the
 * client.  Anywhere else (loops and cursors of functions, CALL, EXECUTE, FETCH, a
 * parallel worker) the text tells what is common to all snapshots that this backend
 * holds: they see everything below the xmin that it has advertised.
 *
 * A statement that writes may call the function before it has an xid, and show rows that
 * it has written.  So the result is NULL in a portal of such a statement, and once a
 * command id has been used.
 *
 * On a primary the result is NULL until the worker has made the server's own incarnation
 * known, so a copy of the data without the library can't pass for its original.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "fence/fence_int.h"
#include "fence/incarnation.h"
#include "settings/settings.h"

SQL_FUNCTION(uncache_snapshot);
SQL_FUNCTION(uncache_snapshots);

static bool
is_fresh(const char *token)
{
	Portal		portal = ActivePortal;

	/* The transaction may have read while this server, a primary by now, was a standby. */
	if (TransactionStartedDuringRecovery() || IsolationUsesXactSnapshot() ||
		!snapshot_tokens_is_of_client(portal))
		return false;
	return snapshot_tokens_has(portal, token);
}

/* The one snapshot with which the whole running statement has read; NULL: not known. */
static Snapshot
snapshot_of_statement(void)
{
	Portal		portal = ActivePortal;

	if (snapshot_tokens_is_of_client(portal) && portal->strategy == PORTAL_ONE_SELECT &&
		portal->queryDesc != NULL)
		return portal->queryDesc->snapshot;
	return NULL;
}

/*
 * The xmin that holds for all snapshots of the statement.  A parallel worker knows only
 * some of them; its leader, which waits for it, has advertised for all.
 */
static TransactionId
xmin_of_backend(void)
{
	PGPROC	   *leader = MyProc->lockGroupLeader;

	return leader ? leader->xmin : MyProc->xmin;
}

/* Whether this transaction has written, or its statement is one that writes. */
static bool
writes(void)
{
	Portal		portal = ActivePortal;

	return TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		GetCurrentCommandId(false) != FirstCommandId ||
		(portal != NULL && (portal->strategy == PORTAL_ONE_RETURNING ||
							portal->strategy == PORTAL_ONE_MOD_WITH));
}

/* The 64-bit form of a transaction id that is not above the next one. */
static uint64
widen(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (!TransactionIdIsNormal(xid))
		return xid;
	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

static void
append_xids(StringInfo to, const TransactionId *xids, int count, FullTransactionId next)
{
	for (int i = 0; i < count; i++)
		appendStringInfo(to, "%s" UINT64_FORMAT, i > 0 ? "," : "", widen(xids[i], next));
}

static void
append_snapshot(StringInfo to, Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	TransactionId xmin = snapshot ? snapshot->xmin : xmin_of_backend();
	bool		complete = snapshot &&
		(!snapshot->takenDuringRecovery || !snapshot->suboverflowed);

	Assert(TransactionIdIsValid(xmin));
	/* Where the list of the running ones is incomplete, all from xmin on may run. */
	appendStringInfo(to, UINT64_FORMAT ":" UINT64_FORMAT ":",
					 widen(xmin, next), widen(complete ? snapshot->xmax : xmin, next));
	if (!complete)
		return;
	if (snapshot->takenDuringRecovery)
		append_xids(to, snapshot->subxip, snapshot->subxcnt, next);
	else
		append_xids(to, snapshot->xip, snapshot->xcnt, next);
}

/* The incarnation of the server that the snapshot was taken on; NULL: not known. */
static char *
incarnation_of(Snapshot snapshot)
{
	char	   *id = IsMVCCSnapshot(snapshot) ? incarnation_seen_by(snapshot) : NULL;

	if (id == NULL || TransactionStartedDuringRecovery())
		return id;
	return UncacheShmem != NULL && strcmp(id, UncacheShmem->incarnation) == 0 ? id : NULL;
}

/*
 * Get what is the same for all tokens of a call: the incarnation, and the snapshot's text.
 * False where the result has to be NULL.
 */
static bool
describe_snapshot(char **incarnation, StringInfo rest)
{
	Snapshot	snapshot;

	/* A transaction that has written sees uncommitted rows, which must not be cached. */
	if (setting_fence_ttl == 0 || writes())
		return false;
	snapshot = snapshot_of_statement();
	*incarnation = incarnation_of(snapshot ? snapshot : GetActiveSnapshot());
	if (*incarnation == NULL)
		return false;
	initStringInfo(rest);
	append_snapshot(rest, snapshot);
	return true;
}

static Datum
bind_snapshot(const char *token, const char *incarnation, const char *snapshot)
{
	char	   *bound = psprintf("%s:%s:%d:%s", token, incarnation,
								 is_fresh(token) ? 1 : 0, snapshot);
	Datum		result = CStringGetTextDatum(bound);

	Assert(snapshot_tokens_is_token(token));
	pfree(bound);
	return result;
}

Datum
uncache_snapshot(PG_FUNCTION_ARGS)
{
	StringInfoData rest;
	char	   *incarnation;
	char	   *token;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	token = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!snapshot_tokens_is_token(token) || !describe_snapshot(&incarnation, &rest))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(bind_snapshot(token, incarnation, rest.data));
}

/* An element is NULL where the scalar function's result is. */
Datum
uncache_snapshots(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	StringInfoData rest;
	char	   *incarnation;
	Datum	   *tokens;
	bool	   *nulls;
	int			count;
	bool		told;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	array = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &tokens, &nulls, &count);
	told = describe_snapshot(&incarnation, &rest);
	for (int i = 0; i < count; i++)
	{
		char	   *token = nulls[i] ? NULL : TextDatumGetCString(tokens[i]);

		CHECK_FOR_INTERRUPTS();
		nulls[i] = token == NULL || !told || !snapshot_tokens_is_token(token);
		if (!nulls[i])
			tokens[i] = bind_snapshot(token, incarnation, rest.data);
	}
	PG_RETURN_ARRAYTYPE_P(construct_md_array(tokens, nulls, ARR_NDIM(array), ARR_DIMS(array),
											 ARR_LBOUND(array), TEXTOID, -1, false, TYPALIGN_INT));
}
