/*
 * fence_standing.c
 *	  Whether readers of this server may fill, where several serve the same keys.
 *
 * The functions in Redis decide it (uncache.lua: of the servers with one system
 * identifier the one with the highest claim fills, then the one on the newest timeline).
 * Their memory ends with Redis.  So a row of the database keeps what must outlive Redis.
 * It is WAL-logged, so standbys and copies have it, too:
 *
 *		claim, place_claim	how often uncache.reclaim_fence() has raised them
 *		superseded, by_...	the mark: by which server this one was superseded
 *
 * A superseded server delivers as ever, but sets no epoch.  It becomes live again when
 *
 *		a superuser calls reclaim_fence(), or fence_takeback is over: the worker raises its
 *		claim above the other server's, and writes it down before it tells Redis;
 *		it is on a newer timeline than the other server: a standby of it was promoted;
 *		another worker of this server has reclaimed: a node tells a higher claim.
 *
 * Until then the other server's readers have filled, from rows that this server does not
 * have.  So once all nodes have confirmed that this server is live, the worker deletes
 * everything that the rules can produce, in the transaction that clears the mark.  It
 * leaves that out where each node has counted that the other server stored nothing since
 * this worker set the mark.  A crash before that transaction leaves the mark, so the next
 * worker does the same.
 *
 * A beat may hold the worker's transaction.  Then what is to be written waits for a
 * later turn.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "fence/fence_int.h"
#include "outbox/outbox_open.h"
#include "rules/rules.h"
#include "settings/settings.h"
#include "topology/target.h"

/* Columns of uncache.fence_standing. */
enum
{
	STANDING_CLAIM = 1,			/* int8 */
	STANDING_PLACE_CLAIM,		/* int8 */
	STANDING_SUPERSEDED,		/* text: server, place or empty */
	STANDING_BY_INCARNATION,	/* text */
	STANDING_BY_TIMELINE,		/* int4 */
	STANDING_BY_CLAIM,			/* int8 */
	STANDING_BY_SEEN,			/* timestamptz */
};
#define STANDING_NCOLUMNS	7

/* last_error is set again so often while this lasts, since other errors overwrite it. */
#define SAY_MS				(60 * 1000)

/* Between attempts to write a row whose table is locked. */
#define RETRY_MS			200

/* The row. */
static struct
{
	int64		claim;
	int64		place_claim;
	StandingKind kind;			/* the mark; STANDING_FILLS: none, and no "by" */
	char		by[24];
	uint32		by_timeline;
	int64		by_claim;
	TimestampTz by_seen;
}			mine;

static bool unwritten = false;	/* the row is older than "mine" */
static bool counted = false;	/* nodes have counted what was stored since the mark was set */
static bool reclaiming = false; /* some node has not confirmed the raised claim */
static bool wants_status = false;	/* the nodes have not been told the raised claim */

/* While reclaiming: the ticket of reclaim_fence() to answer then; 0: none. */
static uint64 reclaim_ticket;

/* When this worker heard of the other server last, and set last_error; by clock_now(). */
static TimestampTz heard_at;
static TimestampTz said_at;

static const char *const kind_names[] = {"", "server", "place"};

static StandingKind
kind_of(const char *name)
{
	for (int i = STANDING_SERVER; i <= STANDING_PLACE; i++)
	{
		if (strcmp(name, kind_names[i]) == 0)
			return (StandingKind) i;
	}
	return STANDING_FILLS;
}

/* Whether the mark still holds: this server ranks no higher than the server in it. */
static bool
is_superseded(void)
{
	TimeLineID	timeline = GetWALInsertionTimeLine();

	switch (mine.kind)
	{
		case STANDING_FILLS:
			return false;
		case STANDING_SERVER:
			return mine.claim < mine.by_claim ||
				(mine.claim == mine.by_claim && timeline <= mine.by_timeline);
		case STANDING_PLACE:
			return mine.place_claim <= mine.by_claim;
	}
	return true;
}

/*
 * --------------------------------------------------------------------------
 * The row
 * --------------------------------------------------------------------------
 */

/* Never queues for the lock: NULL where another session holds one, or the table is gone. */
static Relation
open_table(LOCKMODE lockmode)
{
	Oid			schema = get_namespace_oid("uncache", true);
	Oid			oid = OidIsValid(schema) ? get_relname_relid("fence_standing", schema) : InvalidOid;

	if (!OidIsValid(oid) || !ConditionalLockRelationOid(oid, lockmode))
		return NULL;
	return try_relation_open(oid, NoLock);
}

static void
take_row(Relation rel, HeapTuple row)
{
	Datum		values[STANDING_NCOLUMNS];
	bool		nulls[STANDING_NCOLUMNS];

	Assert(RelationGetDescr(rel)->natts == STANDING_NCOLUMNS);
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	mine.claim = DatumGetInt64(values[STANDING_CLAIM - 1]);
	mine.place_claim = DatumGetInt64(values[STANDING_PLACE_CLAIM - 1]);
	mine.kind = kind_of(TextDatumGetCString(values[STANDING_SUPERSEDED - 1]));
	strlcpy(mine.by, TextDatumGetCString(values[STANDING_BY_INCARNATION - 1]), sizeof(mine.by));
	mine.by_timeline = (uint32) DatumGetInt32(values[STANDING_BY_TIMELINE - 1]);
	mine.by_claim = DatumGetInt64(values[STANDING_BY_CLAIM - 1]);
	mine.by_seen = DatumGetTimestampTz(values[STANDING_BY_SEEN - 1]);
}

void
fence_standing_load(void)
{
	Relation	rel = open_table(AccessShareLock);
	TableScanDesc scan;
	HeapTuple	row;

	Assert(ActiveSnapshotSet());
	if (rel == NULL)
	{
		shmem_note_error(MyDatabaseState, "could not read table \"uncache.fence_standing\", "
						 "which another session has locked");
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not read table \"uncache.fence_standing\""),
				 errdetail("Another session has it locked, or it is gone."),
				 errhint("The worker tries again; end the session that pg_locks shows.")));
	}
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL, SO_NONE);
	row = heap_getnext(scan, ForwardScanDirection);
	if (row != NULL)
		take_row(rel, row);
	table_endscan(scan);
	relation_close(rel, AccessShareLock);
}

static void
delete_rows(Relation rel)
{
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL, SO_NONE);
	HeapTuple	row;

	Assert(CheckRelationLockedByMe(rel, RowExclusiveLock, true));
	while ((row = heap_getnext(scan, ForwardScanDirection)) != NULL)
		simple_heap_delete(rel, &row->t_self);
	table_endscan(scan);
}

/* Within a transaction, which is on disk when it has ended.  False: the table is locked. */
static bool
write_row(void)
{
	Relation	rel = open_table(RowExclusiveLock);
	Datum		values[STANDING_NCOLUMNS];
	bool		nulls[STANDING_NCOLUMNS] = {false};

	Assert(ActiveSnapshotSet());
	if (rel == NULL)
		return false;
	values[STANDING_CLAIM - 1] = Int64GetDatum(mine.claim);
	values[STANDING_PLACE_CLAIM - 1] = Int64GetDatum(mine.place_claim);
	values[STANDING_SUPERSEDED - 1] = CStringGetTextDatum(kind_names[mine.kind]);
	values[STANDING_BY_INCARNATION - 1] = CStringGetTextDatum(mine.by);
	values[STANDING_BY_TIMELINE - 1] = Int32GetDatum((int32) mine.by_timeline);
	values[STANDING_BY_CLAIM - 1] = Int64GetDatum(mine.by_claim);
	values[STANDING_BY_SEEN - 1] = TimestampTzGetDatum(mine.by_seen);

	/* Not an update, which logical decoding would show. */
	delete_rows(rel);
	heap_insert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls),
				GetCurrentCommandId(true), HEAP_INSERT_NO_LOGICAL, NULL);
	relation_close(rel, NoLock);
	ForceSyncCommit();
	return true;
}

static bool
write_down(void)
{
	bool		written;

	Assert(!fence_beat_holds_transaction());
	outbox_begin();
	written = write_row();
	outbox_end();
	unwritten = !written;
	return written;
}

/*
 * --------------------------------------------------------------------------
 * What nodes say
 * --------------------------------------------------------------------------
 */

void
fence_standing_init(void)
{
	heard_at = clock_now();
}

void
fence_standing_note_new_server(void)
{
	heard_at = clock_now();
}

void
fence_standing_texts(const char **claim, const char **place_claim, const char **superseded)
{
	static char texts[2][24];

	snprintf(texts[0], sizeof(texts[0]), INT64_FORMAT, mine.claim);
	snprintf(texts[1], sizeof(texts[1]), INT64_FORMAT, mine.place_claim);
	*claim = texts[0];
	*place_claim = texts[1];
	*superseded = kind_names[is_superseded() ? mine.kind : STANDING_FILLS];
}

bool
fence_standing_parse(const RedisReply *reply, StandingAnswer *answer)
{
	if (redis_reply_count(reply) < 16)
		return false;
	answer->known = true;
	answer->kind = kind_of(redis_reply_text(redis_reply_element(reply, 7), NULL));
	answer->claim = redis_reply_integer(redis_reply_element(reply, 8));
	answer->place_claim = redis_reply_integer(redis_reply_element(reply, 9));
	answer->clean = redis_reply_integer(redis_reply_element(reply, 10)) != 0;
	strlcpy(answer->by, redis_reply_text(redis_reply_element(reply, 11), NULL), sizeof(answer->by));
	answer->by_timeline = (uint32) redis_reply_integer(redis_reply_element(reply, 12));
	answer->by_claim = redis_reply_integer(redis_reply_element(reply, 13));
	answer->unheard_ms = redis_reply_integer(redis_reply_element(reply, 14));
	strlcpy(answer->by_server, redis_reply_text(redis_reply_element(reply, 15), NULL),
			sizeof(answer->by_server));
	return true;
}

/* For messages: which server has superseded this one, and when it was seen last. */
static void
describe(char *who, size_t who_size, char *seen, size_t seen_size)
{
	Assert(mine.kind != STANDING_FILLS);
	snprintf(who, who_size, "a server on timeline %u with %s system identifier",
			 mine.by_timeline, mine.kind == STANDING_SERVER ? "the same" : "another");
	strlcpy(seen, timestamptz_to_str(mine.by_seen), seen_size);
}

static void
set_last_error(void)
{
	char		who[80];
	char		seen[64];
	char		error[256];

	describe(who, sizeof(who), seen, sizeof(seen));
	snprintf(error, sizeof(error),
			 "fenced fills are refused: superseded by %s, last seen %s; "
			 "if it is a copy, SELECT uncache.reclaim_fence() here", who, seen);
	shmem_note_error(MyDatabaseState, error);
	said_at = clock_now();
}

static void
warn(void)
{
	char		who[80];
	char		seen[64];

	describe(who, sizeof(who), seen, sizeof(seen));
	set_last_error();
	ereport(WARNING,
			(errmsg("fenced fills of this server's readers are refused: it is superseded by %s",
					who),
			 errdetail("The other server, incarnation %s, was last seen at %s. "
					   "Keys are delivered as before.",
					   mine.by[0] ? mine.by : "unknown", seen),
			 errhint("If the other server is a copy, run SELECT uncache.reclaim_fence() here; "
					 "if it has taken over, stop this server or "
					 "set uncache.delivery = off here.")));
}

/*
 * Set the mark, unless there is one of a server that ranks as high.  Where a mark ceased to
 * hold and was not cleared yet, the nodes may have begun to count only afterwards: Redis may
 * have been restarted in between.
 */
static void
set_mark(const StandingAnswer *answer)
{
	bool		is_first = mine.kind == STANDING_FILLS;
	bool		is_new = mine.kind != answer->kind || !is_superseded();
	bool		higher = answer->by_claim > mine.by_claim ||
		(answer->by_claim == mine.by_claim && answer->by_timeline > mine.by_timeline);

	Assert(answer->kind != STANDING_FILLS);
	mine.by_seen = GetCurrentTimestamp() - Max(answer->unheard_ms, 0) * INT64CONST(1000);
	if (!is_new && !higher)
		return;
	mine.kind = answer->kind;
	strlcpy(mine.by, answer->by, sizeof(mine.by));
	mine.by_timeline = answer->by_timeline;
	mine.by_claim = answer->by_claim;
	unwritten = true;
	if (!is_new)
		return;
	counted = is_first;
	warn();
}

void
fence_standing_note(const StandingAnswer *answer)
{
	TimestampTz now = clock_now();

	Assert(answer->known);
	/* Another worker of this server has reclaimed. */
	if (answer->claim > mine.claim)
	{
		mine.claim = answer->claim;
		unwritten = true;
	}
	if (answer->kind == STANDING_FILLS)
		return;
	/* The node was asked before the claim was raised. */
	if (answer->claim < mine.claim || answer->place_claim < mine.place_claim)
		return;
	if (answer->unheard_ms >= 0)
	{
		heard_at = Max(heard_at, now - answer->unheard_ms * INT64CONST(1000));
		set_mark(answer);
	}
	else if (mine.kind == STANDING_FILLS)
		set_mark(answer);
	if (TimestampDifferenceExceeds(said_at, now, SAY_MS))
		set_last_error();
}

/*
 * --------------------------------------------------------------------------
 * Becoming live again
 * --------------------------------------------------------------------------
 */

/* Whether all nodes have confirmed the claim; *clean: they say that nothing was stored. */
static bool
is_confirmed(bool *clean)
{
	int			confirmed = 0;

	*clean = true;
	for (int i = 0; i < target_count(); i++)
	{
		if (!target_is_connected(target_at(i)))
			return false;
	}
	for (int i = 0; i < node_count(); i++)
	{
		const Fence *fence = node_at(i)->fence;

		if (node_at(i)->link == NULL || fence == NULL || !fence->standing.known ||
			fence->standing.kind != STANDING_FILLS ||
			fence->standing.claim < mine.claim || fence->standing.place_claim < mine.place_claim)
			return false;
		*clean &= fence->standing.clean;
		confirmed++;
	}
	return confirmed > 0;
}

/*
 * Raise the claim and write it down, before Redis is told; false: the table is locked.
 * reclaim_fence() ("asked") raises the server's claim in any case, so that a copy that calls
 * later, on a newer timeline, does not supersede this server.  It raises the place's claim
 * only where no copy has superseded this server: servers of another origin that share the
 * place have nothing to do with copies.
 */
static bool
raise_claim(bool asked)
{
	int64		claim = mine.claim;
	int64		place_claim = mine.place_claim;

	if (asked || mine.kind == STANDING_SERVER)
		mine.claim = Max(mine.claim,
						 mine.kind == STANDING_SERVER ? mine.by_claim : 0) + 1;
	if (mine.kind != STANDING_SERVER)
		mine.place_claim = Max(mine.place_claim,
							   mine.kind == STANDING_PLACE ? mine.by_claim : 0) + 1;
	Assert(!is_superseded());
	if (write_down())
		return true;
	mine.claim = claim;
	mine.place_claim = place_claim;
	return false;
}

static void
answer_ticket(void)
{
	if (reclaim_ticket == 0)
		return;
	pg_atomic_write_u64(&MyDatabaseState->reclaim_done, reclaim_ticket);
	reclaim_ticket = 0;
	ConditionVariableBroadcast(&MyDatabaseState->barrier_cv);
}

/* All nodes agree: delete what the other server may have stored, and clear the mark. */
static void
finish(bool clean)
{
	bool		flush = !(clean && counted && mine.kind == STANDING_SERVER);
	StandingKind kind = mine.kind;
	bool		written;

	Assert(!is_superseded() && !fence_beat_holds_transaction());
	mine.kind = STANDING_FILLS;
	outbox_begin();
	written = write_row();
	if (written && flush)
		rule_flush_all_rules(false);
	outbox_end();
	if (!written)
	{
		mine.kind = kind;
		return;
	}
	unwritten = false;
	reclaiming = false;
	ereport(LOG,
			(errmsg("this server's readers may fill the cache"),
			 flush ? errdetail("What the rules can produce is deleted: "
							   "another server may have stored it.") :
			 errdetail("The other server has stored nothing meanwhile.")));
	answer_ticket();
}

/*
 * Whether each node has said which server's readers may fill, but for those that are down.  Before
 * that the worker does not know whether a copy has superseded this server, or a server of another
 * origin has: which claim must be raised.  A node that is being connected will say it soon.
 */
static bool
is_told(void)
{
	if (!setting_delivery)
		return true;			/* no node is asked */
	for (int i = 0; i < node_count(); i++)
	{
		const RedisNode *node = node_at(i);
		bool		knows = node->fence != NULL && node->fence->standing.known;

		if (!knows && (node->link != NULL || !node->is_down))
			return false;
	}
	/* A target without a node is a cluster whose map is not known yet. */
	return node_count() > 0 || target_count() == 0 || target_is_down(target_at(0));
}

static bool
is_asked(void)
{
	uint64		drawn = pg_atomic_read_u64(&MyDatabaseState->reclaim_drawn);

	Assert(reclaim_ticket <= drawn);
	if (drawn == pg_atomic_read_u64(&MyDatabaseState->reclaim_done) || reclaim_ticket == drawn)
		return false;
	if (pg_atomic_read_u32(&MyDatabaseState->reclaim_callers) == 0)
	{
		/* The caller of reclaim_fence() has given up. */
		pg_atomic_write_u64(&MyDatabaseState->reclaim_done, drawn);
		return false;
	}
	if (!is_told())
		return false;
	reclaim_ticket = drawn;
	return true;
}

/* Whether the other server was not heard of for fence_takeback; *wake: when that will be. */
static bool
is_to_take_back(TimestampTz now, TimestampTz *wake)
{
	TimestampTz due;

	if (setting_fence_takeback == 0 || setting_fence_ttl == 0 || reclaiming || !is_superseded())
		return false;
	due = TimestampTzPlusMilliseconds(heard_at, setting_fence_takeback);
	if (now < due)
	{
		*wake = Min(*wake, due);
		return false;
	}
	ereport(LOG,
			(errmsg("taking the fence back from the server on timeline %u, "
					"which was not heard of for %d s",
					mine.by_timeline, setting_fence_takeback / 1000)));
	return true;
}

bool
fence_standing_wants_status(void)
{
	bool		wants = wants_status;

	wants_status = false;
	return wants;
}

TimestampTz
fence_standing_run(TimestampTz now)
{
	TimestampTz wake = DT_NOEND;
	bool		clean;

	if (fence_beat_holds_transaction())
		return DT_NOEND;
	/* A server may be superseded in both ways: the second shows when the first is over. */
	if (is_asked() || is_to_take_back(now, &wake) || (reclaiming && is_superseded()))
	{
		reclaiming = wants_status = raise_claim(reclaim_ticket != 0);
		if (!reclaiming)
			reclaim_ticket = 0;
		else
			wake = now;			/* the next fence_run() tells the nodes */
	}
	else if (unwritten)
		write_down();
	if ((reclaiming || mine.kind != STANDING_FILLS) && !is_superseded() && is_confirmed(&clean))
		finish(clean);
	return unwritten ? Min(wake, TimestampTzPlusMilliseconds(now, RETRY_MS)) : wake;
}
