/*
 * outbox_overflow.c
 *	  Markers in place of keys, while the outbox is over its limit.
 *
 * When Redis is away for long and the outbox has reached uncache.outbox_max_size, a
 * committing transaction stores no more keys of a rule.  Instead it makes sure that the
 * table outbox_note has an overflow marker with the key patterns of the rule, and when
 * Redis is back the worker deletes all keys of these patterns.  A marker is short, and all
 * later transactions share it, so the outbox stops growing.
 *
 * A transaction may rely on a marker only if the pass over Redis begins after its commit.
 * So a transaction that writes or relies on a marker holds a lock on the table until its
 * end, and the worker takes the markers away under a lock that conflicts: it moves them
 * into an ordinary outbox row in one transaction, and a transaction that commits afterwards
 * finds no marker and makes a new one.
 *
 * Keys that no pattern covers (invalidate_keys, templates that do not begin with literal
 * text) are stored as ever; the limit applies only to keys of rules.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/invalidation.h"
#include "template/keypattern.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_overflow.h"
#include "pending/pending_set.h"
#include "rules/rule_cache.h"
#include "settings/settings.h"

/* Columns of uncache.outbox_note. */
enum
{
	MARKER_AT = 1,
	MARKER_ITEMS,
};
#define MARKER_NCOLUMNS		2

/* Before the worker tries to lock the markers again: a committer holds them for less. */
#define RETRY_MS			100

/* After so many refusals in a row, two seconds, the holder is no mere committer. */
#define TELL_AFTER			20

/* How often the worker looks at the size of the outbox, for the log. */
#define WATCH_MS			1000

static Oid
marker_table(void)
{
	Oid			schema = get_namespace_oid("uncache", true);

	return OidIsValid(schema) ? get_relname_relid("outbox_note", schema) : InvalidOid;
}

/* Pages of all tables that take turns. */
static uint64
outbox_pages(void)
{
	uint64		pages = 0;

	Assert(IsTransactionState());
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Oid			oid = outbox_table_oid(t);
		Relation	rel;

		/* A truncation neither delays this nor is delayed by it. */
		if (!OidIsValid(oid) || !ConditionalLockRelationOid(oid, AccessShareLock))
			continue;
		rel = try_relation_open(oid, NoLock);
		if (rel != NULL)
		{
			pages += RelationGetNumberOfBlocks(rel);
			relation_close(rel, AccessShareLock);
		}
	}
	return pages;
}

static uint64
limit_pages(void)
{
	Assert(setting_outbox_max_size > 0);
	return (uint64) setting_outbox_max_size * (1024 * 1024 / BLCKSZ);
}

/*
 * --------------------------------------------------------------------------
 * In the committing transaction
 * --------------------------------------------------------------------------
 */

bool
outbox_overflow_is_on(void)
{
	DatabaseState *database = shmem_my_database();

	return setting_outbox_max_size > 0 &&
		(database == NULL || pg_atomic_read_u32(&database->state) != WORKER_CONNECTED) &&
		outbox_pages() >= limit_pages();
}

/* NULL where the lock is not free: keys can be stored without a marker, too. */
static Relation
open_if_free(Oid oid, LOCKMODE mode)
{
	return ConditionalLockRelationOid(oid, mode) ? try_relation_open(oid, NoLock) : NULL;
}

/* The key patterns of a rule, packed; NULL where they don't cover all its keys. */
static bytea *
patterns_of_rule(Oid oid)
{
	RuleInfo   *info = rule_by_trigger(oid);
	Relation	rel = info ? open_if_free(info->relation, AccessShareLock) : NULL;
	bytea	   *items = palloc(VARHDRSZ + OUTBOX_ROW_ITEMS);
	size_t		used = 0;
	Rule	   *rule;

	if (rel == NULL)
		return NULL;
	rule = rule_inspect(rel, info);
	for (int i = 0; items != NULL && i < rule->ntemplates; i++)
	{
		char	   *pattern = template_keypattern(rule->templates[i]);
		Invalidation item = {.kind = INVALIDATION_KEYPATTERN, .rule = oid, .bytes = pattern};

		item.len = pattern ? strlen(pattern) : 0;
		if (pattern == NULL || used + INVALIDATION_MAX_HEAD + item.len > OUTBOX_ROW_ITEMS)
			items = NULL;
		else
			used += invalidation_write(VARDATA(items) + used, &item, used == 0 ? NULL : &oid);
	}
	rule_discard(rule);
	relation_close(rel, AccessShareLock);
	if (items != NULL)
		SET_VARSIZE(items, VARHDRSZ + used);
	return items;
}

/* Whether a marker with these items is committed, or was made by this transaction. */
static bool
has_marker(Relation rel, bytea *items)
{
	TableScanDesc scan = table_beginscan(rel, SnapshotSelf, 0, NULL, SO_NONE);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		bytea	   *other = (bytea *) DatumGetPointer(row_getattr(tuple, MARKER_ITEMS,
																  RelationGetDescr(rel), &isnull));

		found = VARSIZE_ANY_EXHDR(other) == VARSIZE_ANY_EXHDR(items) &&
			memcmp(VARDATA_ANY(other), VARDATA_ANY(items), VARSIZE_ANY_EXHDR(items)) == 0;
	}
	table_endscan(scan);
	return found;
}

static void
insert_marker(Relation rel, bytea *items)
{
	Datum		values[MARKER_NCOLUMNS];
	bool		nulls[MARKER_NCOLUMNS] = {false};

	Assert(CheckRelationLockedByMe(rel, RowExclusiveLock, true));
	values[MARKER_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[MARKER_ITEMS - 1] = PointerGetDatum(items);
	heap_insert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls),
				GetCurrentCommandId(true), HEAP_INSERT_NO_LOGICAL, NULL);
}

bytea *
outbox_overflow_mark(Oid rule)
{
	bytea	   *items = OidIsValid(rule) ? patterns_of_rule(rule) : NULL;
	Oid			oid = marker_table();
	Relation	rel;

	if (items == NULL || !OidIsValid(oid))
		return NULL;
	rel = open_if_free(oid, RowExclusiveLock);
	if (rel == NULL)
		return NULL;
	if (!has_marker(rel, items))
		insert_marker(rel, items);
	relation_close(rel, NoLock);	/* the lock stays until the end */
	return items;
}

bool
outbox_overflow_covers(const bytea *marker, const char *key, size_t len)
{
	InvalidationReader reader;
	Invalidation item;
	bool		covers = false;

	invalidation_reader_init(&reader, VARDATA_ANY(marker), VARSIZE_ANY_EXHDR(marker));
	while (!covers && invalidation_read(&reader, &item) > 0)
	{
		KeyPattern *pattern = keypattern_parse(item.bytes, item.len);

		covers = pattern != NULL && keypattern_matches(pattern, key, len);
		if (pattern != NULL)
			keypattern_free(pattern);
	}
	return covers;
}

/*
 * --------------------------------------------------------------------------
 * In the worker
 * --------------------------------------------------------------------------
 */

static bool scan_requested = true;
static TimestampTz retry_at = 0;
static TimestampTz watch_at = 0;
static int	told_percent = 0;

void
outbox_overflow_request_scan(void)
{
	scan_requested = true;
}

bool
outbox_overflow_is_done(void)
{
	return !scan_requested && pg_atomic_read_u32(&MyDatabaseState->markers_dirty) == 0;
}

static void
add_items(bytea *items)
{
	InvalidationReader reader;
	Invalidation item;

	invalidation_reader_init(&reader, VARDATA_ANY(items), VARSIZE_ANY_EXHDR(items));
	while (invalidation_read(&reader, &item) > 0)
		pending_set_add(item.kind, item.rule, item.bytes, item.len);
}

/* All markers become part of this transaction's pending set.  Returns how many there were. */
static int
move_markers(Relation rel)
{
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL, SO_NONE);
	HeapTuple	tuple;
	int			moved = 0;

	Assert(CheckRelationLockedByMe(rel, ExclusiveLock, true));
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;

		add_items((bytea *) DatumGetPointer(row_getattr(tuple, MARKER_ITEMS,
														RelationGetDescr(rel), &isnull)));
		simple_heap_delete(rel, &tuple->t_self);
		moved++;
	}
	table_endscan(scan);
	return moved;
}

/*
 * A committer has the table locked for a moment.  A session that has it locked for longer
 * is named in the log and in last_error.
 */
static bool
lock_markers(Oid oid)
{
	static int	refusals = 0;	/* in a row */
	bool		locked = refusals < TELL_AFTER ? ConditionalLockRelationOid(oid, ExclusiveLock) :
		outbox_open_lock(oid, ExclusiveLock);

	refusals = locked ? 0 : refusals + 1;
	return locked;
}

TimestampTz
outbox_overflow_run(TimestampTz now)
{
	Oid			oid;
	Relation	rel;
	int			moved = 0;

	if (pg_atomic_exchange_u32(&MyDatabaseState->markers_dirty, 0) != 0)
		scan_requested = true;
	if (!scan_requested)
		return DT_NOEND;
	if (now < retry_at)
		return retry_at;

	Assert(!IsTransactionState());
	StartTransactionCommand();
	oid = marker_table();
	scan_requested = OidIsValid(oid) && !lock_markers(oid);
	rel = OidIsValid(oid) && !scan_requested ? try_relation_open(oid, NoLock) : NULL;
	if (rel != NULL)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		moved = move_markers(rel);
		PopActiveSnapshot();
		relation_close(rel, NoLock);
	}
	CommitTransactionCommand();

	if (moved > 0)
		ereport(LOG,
				(errmsg_plural("the outbox was over its limit; all keys that %d overflow marker "
							   "stands for will be deleted",
							   "the outbox was over its limit; all keys that %d overflow markers "
							   "stand for will be deleted",
							   moved, moved)));
	retry_at = TimestampTzPlusMilliseconds(now, RETRY_MS);
	return scan_requested ? retry_at : DT_NOEND;
}

TimestampTz
outbox_overflow_watch_run(TimestampTz now)
{
	static const int levels[] = {100, 80, 50};
	int			percent;

	if (setting_outbox_max_size == 0)
		return DT_NOEND;
	if (now < watch_at)
		return watch_at;
	watch_at = TimestampTzPlusMilliseconds(now, WATCH_MS);

	Assert(!IsTransactionState());
	StartTransactionCommand();
	percent = (int) Min(outbox_pages() * 100 / limit_pages(), 1000);
	CommitTransactionCommand();

	for (int i = 0; i < lengthof(levels); i++)
	{
		if (percent < levels[i])
			continue;
		if (levels[i] > told_percent)
			ereport(LOG,
					(errmsg("the outbox has reached %d percent of "
							"uncache.outbox_max_size", levels[i]),
					 levels[i] == 100 ?
					 errdetail("While Redis is away, keys are no longer stored one by one; all "
							   "keys of their rules will be deleted instead.") : 0));
		told_percent = Max(told_percent, levels[i]);
		return watch_at;
	}
	told_percent = 0;
	return watch_at;
}
