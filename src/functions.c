/*
 * functions.c
 *	  The SQL functions that work without a rule: invalidate_keys(),
 *	  invalidate_pattern(), transaction_keys(), wait(), discard_backlog().
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/heap.h"
#include "catalog/indexing.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "keypattern.h"
#include "keytext.h"
#include "outbox.h"
#include "pending.h"
#include "settings.h"
#include "shmem.h"

SQL_FUNCTION(uncache_invalidate_keys);
SQL_FUNCTION(uncache_invalidate_pattern);
SQL_FUNCTION(uncache_transaction_keys);
SQL_FUNCTION(uncache_wait);
SQL_FUNCTION(uncache_discard_backlog);
SQL_FUNCTION(uncache_require_preload);

/*
 * --------------------------------------------------------------------------
 * Keys and patterns from any SQL
 * --------------------------------------------------------------------------
 */

/*
 * The prefix and a text, in UTF-8.  A prefix put before a pattern stands for
 * itself, so what is special in a glob is escaped.
 */
static char *
with_prefix(const char *prefix, const char *what, text *value, bool escape_prefix, size_t *len)
{
	StringInfoData key;
	char	   *utf8;

	initStringInfo(&key);
	for (const char *c = prefix; *c; c++)
	{
		if (escape_prefix && strchr("*?[]\\^-", *c) != NULL)
			appendStringInfoChar(&key, '\\');
		appendStringInfoChar(&key, *c);
	}
	appendBinaryStringInfo(&key, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

	utf8 = key_to_utf8(key.data, key.len);
	*len = utf8 == key.data ? key.len : strlen(utf8);
	if (*len > ITEM_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s is too long", what),
				 errdetail("It has %zu bytes with uncache.key_prefix; %d are allowed.",
						   *len, ITEM_MAX_BYTES)));
	return utf8;
}

Datum
uncache_invalidate_keys(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	Datum	   *keys;
	bool	   *nulls;
	int			nkeys;
	int64		added = 0;

	PreventCommandDuringRecovery("uncache.invalidate_keys()");
	PreventCommandIfParallelMode("uncache.invalidate_keys()");
	if (PG_ARGISNULL(0))
		PG_RETURN_INT64(0);

	array = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls, &nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		size_t		len;
		char	   *key;

		if (nulls[i])
			continue;
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(keys[i])) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a key must not be empty")));
		key = with_prefix(setting_key_prefix, "key", DatumGetTextPP(keys[i]), false, &len);
		if (pending_add(ITEM_KEY, InvalidOid, key, len))
			added++;
	}
	PG_RETURN_INT64(added);
}

Datum
uncache_invalidate_pattern(PG_FUNCTION_ARGS)
{
	text	   *pattern;
	size_t		len;
	char	   *glob;

	PreventCommandDuringRecovery("uncache.invalidate_pattern()");
	PreventCommandIfParallelMode("uncache.invalidate_pattern()");
	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();

	pattern = PG_GETARG_TEXT_PP(0);
	if (VARSIZE_ANY_EXHDR(pattern) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pattern must not be empty"),
				 errhint("Use * to delete all keys.")));
	glob = with_prefix(setting_key_prefix, "pattern", pattern, true, &len);
	if (len > OUTBOX_MAX_PATTERN)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("pattern is too long"),
				 errdetail("It has %zu bytes with uncache.key_prefix; %d are allowed.",
						   len, OUTBOX_MAX_PATTERN)));
	pending_add(ITEM_GLOB, InvalidOid, glob, len);
	PG_RETURN_VOID();
}

/*
 * --------------------------------------------------------------------------
 * What the transaction would delete
 * --------------------------------------------------------------------------
 */

/* Table and name of a trigger; false where it is gone. */
static bool
describe_rule(Oid rule, Datum *values)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(rule));
	scan = systable_beginscan(triggers, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		Name		name = palloc(sizeof(NameData));

		*name = form->tgname;
		values[0] = ObjectIdGetDatum(form->tgrelid);
		values[1] = NameGetDatum(name);
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	return found;
}

/* Keys as text; a key pattern as the glob that it stands for. */
static text *
readable_key(const PackedItem *item)
{
	char	   *copy = pnstrdup(item->bytes, item->len);
	char	   *text_form = copy;

	if (item->kind == ITEM_KEYPATTERN)
	{
		KeyPattern *pattern = keypattern_parse(item->bytes, item->len);

		if (pattern)
		{
			text_form = pstrdup(keypattern_glob(pattern));
			keypattern_free(pattern);
		}
	}
	return cstring_to_text(key_from_utf8(text_form, strlen(text_form)));
}

Datum
uncache_transaction_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_uncache key",
													  ALLOCSET_SMALL_SIZES);
	PendingReader *reader;
	PackedItem	item;

	InitMaterializedSRF(fcinfo, 0);
	reader = pending_read_begin();
	while (pending_read_next(reader, &item))
	{
		MemoryContext old_context = MemoryContextSwitchTo(row_context);
		Datum		values[3] = {0};
		bool		nulls[3] = {true, true, false};

		if (OidIsValid(item.rule) && describe_rule(item.rule, values))
			nulls[0] = nulls[1] = false;
		values[2] = PointerGetDatum(readable_key(&item));
		MemoryContextSwitchTo(old_context);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextReset(row_context);
	}
	pending_read_end(reader);
	MemoryContextDelete(row_context);
	return (Datum) 0;
}

/*
 * --------------------------------------------------------------------------
 * Requests to the worker
 * --------------------------------------------------------------------------
 */

static void
require_preload(const char *what)
{
	if (Shared_state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs pg_uncache in shared_preload_libraries", what),
				 errhint("Append pg_uncache to shared_preload_libraries in postgresql.conf and restart the server.")));
}

/* One of the first statements of the install script. */
Datum
uncache_require_preload(PG_FUNCTION_ARGS)
{
	require_preload(PG_NARGS() > 0 && !PG_ARGISNULL(0) ?
					text_to_cstring(PG_GETARG_TEXT_PP(0)) : "this");
	PG_RETURN_VOID();
}

/*
 * Wait until no transaction is committed for others to see, but not yet handed to
 * the worker.  That takes a committer a few microseconds.
 */
static void
wait_for_handovers(void)
{
	for (int proc = 0; proc < Shared_state->nwaitslots; proc++)
	{
		WaitSlot   *wait = &Shared_state->wait_slots[proc];
		uint64		xid = pg_atomic_read_u64(&wait->xid);

		while (pg_atomic_read_u32(&wait->handing_over) != 0 &&
			   pg_atomic_read_u32(&wait->dboid) == MyDatabaseId &&
			   pg_atomic_read_u64(&wait->xid) == xid &&
			   !TransactionIdIsInProgress(XidFromFullTransactionId(FullTransactionIdFromU64(xid))))
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(100);
		}
	}
}

/* A request to the worker of this database. */
typedef struct Ticket
{
	DatabaseSlot *slot;
	pg_atomic_uint64 *done;
	uint64		number;
	uint32		assignment;		/* of the slot, when it was drawn */
} Ticket;

/* False where the slot serves another database by now. */
static bool
draw_ticket(Ticket *ticket, DatabaseSlot *slot, pg_atomic_uint64 *drawn, pg_atomic_uint64 *done)
{
	bool		is_ours;

	ticket->slot = slot;
	ticket->done = done;
	LWLockAcquire(slot->lock, LW_SHARED);
	is_ours = pg_atomic_read_u32(&slot->dboid) == MyDatabaseId;
	ticket->assignment = pg_atomic_read_u32(&slot->assignment);
	if (is_ours)
		ticket->number = pg_atomic_add_fetch_u64(drawn, 1);
	LWLockRelease(slot->lock);
	if (is_ours)
		shmem_wake_worker(slot);
	return is_ours;
}

static bool
ticket_is_void(const Ticket *ticket)
{
	return pg_atomic_read_u32(&ticket->slot->assignment) != ticket->assignment;
}

/*
 * Sleep until the worker has counted up to the ticket; false: the time is over, or
 * the database has lost its slot.
 */
static bool
wait_for_ticket(const Ticket *ticket, TimestampTz deadline)
{
	DatabaseSlot *slot = ticket->slot;
	bool		reached;

	ConditionVariablePrepareToSleep(&slot->barrier_cv);
	while (!(reached = pg_atomic_read_u64(ticket->done) >= ticket->number))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (left <= 0 || ticket_is_void(ticket))
			break;
		ConditionVariableTimedSleep(&slot->barrier_cv, Min(left, 1000),
									WaitEventExtensionNew("UncacheWait"));
	}
	ConditionVariableCancelSleep();
	pg_read_barrier();
	return reached && !ticket_is_void(ticket);
}

/* The slot of this database; it may take the launcher a moment to assign one. */
static DatabaseSlot *
wait_for_slot(TimestampTz deadline)
{
	DatabaseSlot *slot;

	while ((slot = shmem_my_slot()) == NULL)
	{
		shmem_request_launch(MyDatabaseId);
		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= deadline)
			return NULL;
		pg_usleep(10 * 1000);
	}
	return slot;
}

Datum
uncache_wait(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline;
	DatabaseSlot *slot;
	Ticket		ticket;

	require_preload("uncache.wait()");
	PreventCommandDuringRecovery("uncache.wait()");
	if (PG_ARGISNULL(0))
		deadline = DT_NOEND;
	else
		deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														   TimestampTzGetDatum(now),
														   PG_GETARG_DATUM(0)));
	/* A database that has lost its slot may get another one in time. */
	while ((slot = wait_for_slot(deadline)) != NULL)
	{
		wait_for_handovers();
		if (draw_ticket(&ticket, slot, &slot->barrier_drawn, &slot->barrier_done) &&
			wait_for_ticket(&ticket, deadline))
			PG_RETURN_BOOL(true);
		if (GetCurrentTimestamp() >= deadline)
			break;
	}
	PG_RETURN_BOOL(false);
}

/*
 * --------------------------------------------------------------------------
 * Discarding
 * --------------------------------------------------------------------------
 */

/* A prepared transaction holds its lock on this table, so its rows go one by one. */
static void
delete_side_rows(void)
{
	Oid			oid = outbox_table_oid(OUTBOX_SIDE);
	Relation	rel = OidIsValid(oid) ? try_relation_open(oid, RowExclusiveLock) : NULL;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (rel == NULL)
		return;
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL, SO_NONE);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
		simple_heap_delete(rel, &tuple->t_self);
	table_endscan(scan);
	relation_close(rel, NoLock);
}

/* Commits hold their lock on an outbox table for much less than this. */
#define LOCK_MS			200

/*
 * Lock a table for being emptied.  Never by queueing: whoever commits would queue
 * behind, for as long as some transaction has looked at the table.
 */
static void
lock_or_give_up(Oid table, TimestampTz deadline)
{
	while (!ConditionalLockRelationOid(table, AccessExclusiveLock))
	{
		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not lock the outbox to discard the backlog"),
					 errdetail("A transaction that has read its tables is still open."),
					 errhint("Try again when that transaction has ended.")));
		pg_usleep(1000);
	}
}

/* Without a worker nobody else looks at the rows: empty the tables here. */
static void
empty_tables(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCK_MS);

	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		if (OidIsValid(outbox_table_oid(t)))
			lock_or_give_up(outbox_table_oid(t), deadline);
	}
	delete_side_rows();
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Oid			oid = outbox_table_oid(t);
		Relation	rel = OidIsValid(oid) ? try_relation_open(oid, NoLock) : NULL;

		if (rel == NULL)
			continue;
		heap_truncate_one_rel(rel);
		relation_close(rel, NoLock);
	}
}

#define DISCARD_MS		(60 * 1000)

static void
wait_no_more(int code, Datum arg)
{
	DatabaseSlot *slot = (DatabaseSlot *) DatumGetPointer(arg);

	pg_atomic_fetch_sub_u32(&slot->discard_callers, 1);
}

/*
 * Who gives up, or is made to, must not have later transactions forgotten when the
 * worker comes to it.
 */
static bool
ask_to_discard(DatabaseSlot *slot)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DISCARD_MS);
	Ticket		ticket;
	volatile bool done = false;

	pg_atomic_fetch_add_u32(&slot->discard_callers, 1);
	PG_ENSURE_ERROR_CLEANUP(wait_no_more, PointerGetDatum(slot));
	{
		done = draw_ticket(&ticket, slot, &slot->discard_drawn, &slot->discard_done) &&
			wait_for_ticket(&ticket, deadline);
	}
	PG_END_ENSURE_ERROR_CLEANUP(wait_no_more, PointerGetDatum(slot));
	wait_no_more(0, PointerGetDatum(slot));
	return done;
}

Datum
uncache_discard_backlog(PG_FUNCTION_ARGS)
{
	DatabaseSlot *slot = shmem_my_slot();
	uint64		before;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to discard the backlog")));
	PreventCommandDuringRecovery("uncache.discard_backlog()");

	if (slot == NULL || slot->worker_pid == 0)
	{
		before = outbox_backlog_rows();
		empty_tables();
		PG_RETURN_INT64(before);
	}

	before = pg_atomic_read_u64(&slot->discarded);
	if (!ask_to_discard(slot))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker has not discarded the backlog in time")));
	PG_RETURN_INT64(pg_atomic_read_u64(&slot->discarded) - before);
}
