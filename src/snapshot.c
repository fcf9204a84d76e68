/*
 * snapshot.c
 *	  uncache.snapshot(): the caller's snapshot, for a fenced fill.
 *
 * The text is
 *
 *		token:incarnation:fresh:xmin:xmax:xip,xip,...
 *
 * with 64-bit transaction ids, of which only those are "seen" that are below
 * xmin, or below xmax and not in the list.  It says no more than the snapshot
 * can prove; where nothing can be proved the answer is NULL, and the reader
 * stores nothing.
 *
 * pg_current_snapshot() will not do: on a standby all running transactions are in
 * the snapshot's list of subtransactions, which it does not show, so what is
 * running there would look committed.
 *
 * Fresh means: the snapshot was taken after the token was.  That holds where the
 * token came with the statement itself, in its text or as one of its parameters,
 * because a READ COMMITTED statement takes its snapshots after it has arrived.  So
 * the token is looked for in the active portal, the one thing that knows what
 * has arrived and has the snapshot; a token that came by any other way during
 * the statement is not there.  Of the sources of a token nothing is believed.
 * That takes a portal of the client's own: PL/pgSQL's cursors and EXECUTE make
 * portals with an older snapshot, of texts and parameters computed just then.
 *
 * A function that is called by a statement and is not declared STABLE runs with
 * a later snapshot than the statement.  What the statement has read is older, so
 * its snapshot is the one to tell.  Only of a SELECT of the client is it known.  In
 * whatever else (loops and cursors of functions, CALL, EXECUTE, FETCH, a parallel
 * worker) what is told is what every snapshot sees
 * that this backend holds: all that is below the xmin which it has advertised.
 *
 * A statement that writes may be asked before it has an xid, and then show what it has
 * written.  So nothing is told in a portal of one, nor once a command id has been used.
 *
 * A primary tells nothing before its worker has made the server's own incarnation
 * known, so a copy of the data without the library can't pass for its original.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/params.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "incarnation.h"
#include "settings.h"

SQL_FUNCTION(uncache_snapshot);

/* Longer than any token is; more would make the search for it slow. */
#define TOKEN_MAX	128

/* The shape of a token: letters, digits, dots, and one colon before digits. */
static bool
is_token(const char *token)
{
	size_t		epoch = strspn(token, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.");
	size_t		counter;

	if (epoch == 0 || token[epoch] != ':')
		return false;
	counter = strspn(token + epoch + 1, "0123456789");
	return counter > 0 && token[epoch + 1 + counter] == '\0' && strlen(token) <= TOKEN_MAX;
}

/* Whether one of the parameters that came with the statement is the token. */
static bool
is_in_parameters(ParamListInfo params, const char *token)
{
	for (int i = 0; params != NULL && i < params->numParams; i++)
	{
		ParamExternData *param = &params->params[i];

		/* Parameters that are computed when asked for did not come with it. */
		if (params->paramFetch != NULL)
			return false;
		if (!param->isnull && (param->ptype == TEXTOID || param->ptype == VARCHAROID) &&
			strcmp(TextDatumGetCString(param->value), token) == 0)
			return true;
	}
	return false;
}

/* The token in the statement's text, not as a part of a longer one. */
static bool
is_in_text(const char *text, const char *token)
{
	size_t		len = strlen(token);

	for (const char *at = strstr(text, token); at; at = strstr(at + 1, token))
	{
		if (!isdigit((unsigned char) at[len]) &&
			(at == text || !isalnum((unsigned char) at[-1])))
			return true;
	}
	return false;
}

/* Whether the portal runs what the client has sent, and nothing within that. */
static bool
is_of_client(Portal portal)
{
	return portal != NULL && portal->sourceText != NULL && debug_query_string != NULL &&
		strcmp(portal->sourceText, debug_query_string) == 0;
}

static bool
is_fresh(const char *token)
{
	Portal		portal = ActivePortal;

	/* What began on a standby may have read there, though that is a primary by now. */
	if (TransactionStartedDuringRecovery() || IsolationUsesXactSnapshot() ||
		!is_of_client(portal))
		return false;
	return is_in_text(portal->sourceText, token) ||
		is_in_parameters(portal->portalParams, token);
}

/* The one snapshot with which all of the running statement has read; NULL: not known. */
static Snapshot
snapshot_of_statement(void)
{
	Portal		portal = ActivePortal;

	if (is_of_client(portal) && portal->strategy == PORTAL_ONE_SELECT && portal->queryDesc != NULL)
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

/* Of the server that the snapshot was taken on; NULL where that can't be told. */
static char *
incarnation_of(Snapshot snapshot)
{
	char	   *id = IsMVCCSnapshot(snapshot) ? incarnation_seen_by(snapshot) : NULL;

	if (id == NULL || TransactionStartedDuringRecovery())
		return id;
	return Shared_state != NULL && strcmp(id, Shared_state->incarnation) == 0 ? id : NULL;
}

Datum
uncache_snapshot(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot;
	char	   *incarnation;
	char	   *token;
	StringInfoData result;

	/* Who has written sees what is not committed: that must not be cached. */
	if (PG_ARGISNULL(0) || setting_fence_ttl == 0 || writes())
		PG_RETURN_NULL();

	token = text_to_cstring(PG_GETARG_TEXT_PP(0));
	snapshot = snapshot_of_statement();
	incarnation = is_token(token) ? incarnation_of(snapshot ? snapshot : GetActiveSnapshot()) : NULL;
	if (incarnation == NULL)
		PG_RETURN_NULL();

	initStringInfo(&result);
	appendStringInfo(&result, "%s:%s:%d:", token, incarnation, is_fresh(token) ? 1 : 0);
	append_snapshot(&result, snapshot);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(result.data, result.len));
}
