/*
 * uncache_bench.c
 *	  What the benches need inside the server: the cheapest trigger there can be,
 *	  a trigger that talks to Redis itself, and the moment of a commit.
 *
 * Not part of pg_uncache.  The trigger that talks to Redis does what is told to
 * nobody: it deletes before the commit, with the row lock held.
 */
#include "postgres.h"

#include <time.h>
#include <hiredis/hiredis.h>

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(noop);
PG_FUNCTION_INFO_V1(direct_unlink);
PG_FUNCTION_INFO_V1(visible_at);

/* CLOCK_MONOTONIC in ns, when this session's last writing commit became visible. */
static int64 last_visible = 0;

static redisContext *redis = NULL;

/*
 * Others see the transaction from just before this event on.  Callbacks run
 * newest first: this one before those of preloaded libraries.
 */
static void
note_commit(XactEvent event, void *arg)
{
	struct timespec now;

	if (event != XACT_EVENT_COMMIT || !TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	last_visible = (int64) now.tv_sec * 1000000000 + now.tv_nsec;
}

void
_PG_init(void)
{
	RegisterXactCallback(note_commit, NULL);
}

/* noop() returns trigger */
Datum
noop(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(NULL);
}

/*
 * direct_unlink(port of Redis on the loopback, key prefix) returns trigger: the first
 * column is the id
 */
Datum
direct_unlink(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	char	  **args = trigdata->tg_trigger->tgargs;
	bool		isnull;
	int			id = DatumGetInt32(slot_getattr(trigdata->tg_trigslot, 1, &isnull));
	redisReply *reply;

	if (redis == NULL)
		redis = redisConnect("127.0.0.1", atoi(args[0]));
	if (redis == NULL || redis->err)
		elog(ERROR, "could not connect to Redis");
	reply = redisCommand(redis, "UNLINK %s%d", args[1], id);
	if (reply == NULL || reply->type != REDIS_REPLY_INTEGER)
		elog(ERROR, "Redis has not answered");
	freeReplyObject(reply);
	return PointerGetDatum(NULL);
}

/* visible_at() returns bigint: see last_visible */
Datum
visible_at(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(last_visible);
}
