/*
 * outbox_write.c
 *	  Writing the pending set into the outbox, in the committing transaction.
 *
 * The outbox is the truth: its rows commit, replicate and recover together with
 * the data.  OUTBOX_TABLES tables take turns, so that a table whose rows are all
 * delivered can be truncated in place (outbox_truncate.c).  Rows of prepared
 * transactions go to outbox_side, so that none of them ever keeps a rotating table
 * from being truncated.
 *
 * Rows are inserted with heap_insert(): no SQL, no snapshot, no privileges of the
 * user, no triggers, no logical decoding.  All of it happens before the commit,
 * so an error here aborts the user's transaction, which is right: a change whose keys
 * can't be recorded must not be committed.
 *
 * A writer must never queue behind the worker that truncates a table, so it locks
 * conditionally and takes the next table when refused.  Where other sessions have locked
 * all tables, the writer waits for some seconds, and then fails with an ERROR that names
 * the sessions.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "base/clock.h"
#include "base/invalidation.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_write.h"
#include "outbox/outbox_overflow.h"
#include "pending/pending_set.h"

/*
 * How long a commit waits for a table that other sessions have locked, and how often it
 * tries.  DROP EXTENSION and VACUUM FULL take less, unless the outbox is huge.
 */
#define LOCK_MS			10000
#define POLL_US			5000

StaticAssertDecl(FRAGMENT_BYTES + sizeof(FragmentHead) + INVALIDATION_MAX_HEAD <= OUTBOX_ROW_ITEMS,
				 "a piece of an item must fit into a row of the outbox");

/* A row under construction. */
typedef struct RowWriter
{
	Relation	rel;
	OutboxWritten *written;
	int32		chunk;
	TimestampTz at;
	BulkInsertState bulk;
	Oid			last_rule;
	uint32		used;
	uint32		blocks_size;
	bool		keep_items;
	List	   *marked_rules;	/* OIDs of rules that have an overflow marker ... */
	List	   *markers;		/* ... and their markers, in the same order */
	List	   *unmarked_rules; /* rules that can't have one */
} RowWriter;

/* The items of that row.  A session makes one row at a time, so all share this buffer. */
static char row_items[OUTBOX_ROW_ITEMS];

/*
 * Open a table without queueing; NULL when refused or gone.  As the lock has brought
 * the relation cache up to date, this asks no catalog whether the table exists, as
 * try_relation_open() would for every commit.
 */
static Relation
open_if_free(int i)
{
	Oid			oid = outbox_table_oid(i);
	Relation	rel;

	if (!OidIsValid(oid) || !ConditionalLockRelationOid(oid, RowExclusiveLock))
		return NULL;
	rel = RelationIdGetRelation(oid);
	if (rel != NULL)
		pgstat_init_relation(rel);
	return rel;
}

/*
 * A writer that has chosen a table which is not the current one any more tells the worker,
 * which may be reading that table in order to truncate it.  The writer does so with the
 * lock held, so the worker's next ExclusiveLock comes after it.
 */
static void
report_if_late(int table)
{
	DatabaseState *database = shmem_my_database();

	Assert(table >= 0 && table < OUTBOX_TABLES);
	if (database && (int) pg_atomic_read_u32(&database->current_table) != table)
		pg_atomic_fetch_add_u32(&database->late_writers[table], 1);
}

/* The tables that can't be written to; none where that is all of them: one has to be tried. */
static uint32
unwritable_tables(DatabaseState *database)
{
	uint32		tables = pg_atomic_read_u32(&database->unwritable_tables);

	return tables == (1 << OUTBOX_TABLES) - 1 ? 0 : tables;
}

/* Open the current table, or the next that can be written to; NULL where all are locked. */
static Relation
open_rotating(int *table)
{
	DatabaseState *database = shmem_my_database();
	int			first = database ? pg_atomic_read_u32(&database->current_table) : 0;
	uint32		unwritable = database ? unwritable_tables(database) : 0;

	for (int i = 0; i < OUTBOX_TABLES; i++)
	{
		Relation	rel;

		*table = (first + i) % OUTBOX_TABLES;
		if (unwritable & ((uint32) 1 << *table))
			continue;
		rel = open_if_free(*table);
		if (rel)
		{
			report_if_late(*table);
			return rel;
		}
	}
	return NULL;
}

pg_noreturn static void
raise_locked(int table)
{
	char	   *holders = outbox_open_holders(outbox_table_oid(table), RowExclusiveLock);

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not lock the outbox of pg_uncache to record the keys of this "
					"transaction"),
			 errdetail("Table \"%s.%s\" is locked: "
					   "%s.", OUTBOX_SCHEMA, outbox_table_name(table), holders),
			 errhint("End that session or its transaction, or finish the prepared one, and try "
					 "again; see pg_locks and pg_prepared_xacts.")));
}

/* How long this session waits for a table: no longer than for any other lock. */
static int
max_wait_ms(void)
{
	return LockTimeout > 0 ? Min(LockTimeout, LOCK_MS) : LOCK_MS;
}

/*
 * Open a table to write to; where all are locked, wait for one, but not for ever, since
 * the holder may be a prepared transaction that was forgotten.  NULL where there is no
 * outbox any more.
 */
static Relation
open_table(bool prepare, int *table)
{
	TimestampTz deadline = 0;
	Relation	rel;

	*table = OUTBOX_SIDE;
	while ((rel = prepare ? open_if_free(OUTBOX_SIDE) : open_rotating(table)) == NULL)
	{
		TimestampTz now;

		CHECK_FOR_INTERRUPTS();
		/* Without this the session would not see that the extension was dropped. */
		AcceptInvalidationMessages();
		if (!outbox_exists())
			return NULL;
		now = clock_now();
		if (deadline == 0)
			deadline = TimestampTzPlusMilliseconds(now, max_wait_ms());
		else if (now >= deadline)
			raise_locked(*table);
		pg_usleep(POLL_US);
	}
	return rel;
}

static void
remember_block(RowWriter *writer, BlockNumber block)
{
	OutboxWritten *written = writer->written;

	Assert(written->nblocks <= writer->blocks_size);
	if (written->nblocks > 0 && written->blocks[written->nblocks - 1] == block)
		return;
	if (written->nblocks == writer->blocks_size)
	{
		Size		size = writer->blocks_size * sizeof(BlockNumber);

		writer->blocks_size *= 2;
		if (written->blocks == written->few_blocks)
			written->blocks = memcpy(palloc(size * 2), written->few_blocks, size);
		else
			written->blocks = repalloc_huge(written->blocks, size * 2);
	}
	written->blocks[written->nblocks++] = block;
}

static void
keep_items(OutboxWritten *written, char *bytes, uint32 len)
{
	OutboxItems *kept = palloc(sizeof(OutboxItems));

	kept->bytes = bytes;
	kept->len = len;
	kept->next = written->all_items;
	written->all_items = kept;
}

/*
 * Where the table's last block is damaged this transaction fails.  Those that come next take
 * another table, or no transaction with keys could commit until the worker has got there.
 */
static void
insert_tuple(RowWriter *writer, HeapTuple tuple)
{
	DatabaseState *database = shmem_my_database();

	Assert(writer->written->table <= OUTBOX_SIDE);
	Assert(tuple->t_len <= MaxHeapTupleSize);
	PG_TRY();
	{
		heap_insert(writer->rel, tuple, GetCurrentCommandId(true),
					HEAP_INSERT_NO_LOGICAL, writer->bulk);
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_DATA_CORRUPTED && database &&
			writer->written->table < OUTBOX_TABLES)
			pg_atomic_fetch_or_u32(&database->unwritable_tables,
								   (uint32) 1 << writer->written->table);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* Insert the items that have been gathered as one row. */
static void
write_row(RowWriter *writer)
{
	OutboxWritten *written = writer->written;
	Datum		values[OUTBOX_SIDE_NCOLUMNS];
	bool		nulls[OUTBOX_SIDE_NCOLUMNS] = {[OUTBOX_ERROR - 1] = true};
	char	   *items;
	HeapTuple	tuple;

	if (writer->used == 0)
		return;

	Assert(writer->used <= OUTBOX_ROW_ITEMS);
	items = palloc(VARHDRSZ + writer->used);
	SET_VARSIZE(items, VARHDRSZ + writer->used);
	memcpy(VARDATA(items), row_items, writer->used);

	values[OUTBOX_XID - 1] = FullTransactionIdGetDatum(written->xid);
	values[OUTBOX_CHUNK - 1] = Int32GetDatum(writer->chunk++);
	values[OUTBOX_AT - 1] = TimestampTzGetDatum(writer->at);
	values[OUTBOX_ITEMS - 1] = PointerGetDatum(items);
	values[OUTBOX_ATTEMPTS - 1] = Int32GetDatum(0);

	tuple = heap_form_tuple(RelationGetDescr(writer->rel), values, nulls);
	insert_tuple(writer, tuple);

	written->nrows++;
	written->tid = tuple->t_self;
	remember_block(writer, ItemPointerGetBlockNumber(&tuple->t_self));
	heap_freetuple(tuple);
	if (written->nrows == 1)
	{
		written->items = VARDATA(items);
		written->items_len = writer->used;
	}
	else if (writer->bulk == NULL)
		writer->bulk = GetBulkInsertState();
	if (writer->keep_items)
		keep_items(written, VARDATA(items), writer->used);
	else if (written->nrows > 1)
		pfree(items);
	writer->used = 0;
}

static void
add_item(RowWriter *writer, const Invalidation *item)
{
	Assert(writer->used + INVALIDATION_MAX_HEAD + item->len <= OUTBOX_ROW_ITEMS);
	writer->used += invalidation_write(row_items + writer->used, item,
									   writer->used == 0 ? NULL : &writer->last_rule);
	writer->last_rule = item->rule;
}

/*
 * Write an item that is too long for a row: each fragment is the only item of a row, behind
 * a head that says where in the item it belongs.  The fragments of an item are in
 * consecutive chunks.
 */
static void
add_in_fragments(RowWriter *writer, const Invalidation *item)
{
	char		bytes[OUTBOX_ROW_ITEMS];
	uint32		offset = 0;

	if (!invalidation_traits(item->kind)->may_be_cut)
		elog(ERROR, "a %s of %u bytes does not fit into a row of the outbox",
			 invalidation_traits(item->kind)->name, item->len);
	write_row(writer);
	Assert(writer->used == 0);
	while (offset < item->len)
	{
		FragmentHead head = {.total = item->len, .offset = offset, .kind = item->kind};
		uint32		len = Min(item->len - offset, FRAGMENT_BYTES);
		Invalidation fragment = {
			.kind = INVALIDATION_FRAGMENT,
			.rule = item->rule,
			.bytes = bytes,
			.len = sizeof(head) + len,
		};

		memcpy(bytes, &head, sizeof(head));
		memcpy(bytes + sizeof(head), item->bytes + offset, len);
		add_item(writer, &fragment);
		write_row(writer);
		offset += len;
	}
}

/* The overflow marker of a rule, which is made where there is none; NULL where it can't be. */
static bytea *
marker_of_rule(RowWriter *writer, Oid rule)
{
	bytea	   *marker;

	Assert(list_length(writer->marked_rules) == list_length(writer->markers));
	if (list_member_oid(writer->unmarked_rules, rule))
		return NULL;
	for (int i = 0; i < list_length(writer->marked_rules); i++)
	{
		if (list_nth_oid(writer->marked_rules, i) == rule)
			return list_nth(writer->markers, i);
	}
	marker = outbox_overflow_mark(rule);
	if (marker == NULL)
		writer->unmarked_rules = lappend_oid(writer->unmarked_rules, rule);
	else
	{
		writer->marked_rules = lappend_oid(writer->marked_rules, rule);
		writer->markers = lappend(writer->markers, marker);
		writer->written->noted = true;
	}
	return marker;
}

/*
 * Whether an overflow marker stands for this key.  The marker has the patterns that the rule
 * has now.  If this transaction has changed the rule or its table, its earlier keys may
 * match none of them.
 */
static bool
is_marked(RowWriter *writer, const Invalidation *item)
{
	bytea	   *marker = marker_of_rule(writer, item->rule);

	return marker != NULL && outbox_overflow_covers(marker, item->bytes, item->len);
}

static void
write_items(RowWriter *writer, bool may_mark)
{
	PendingReader *reader = pending_log_read_begin();
	bool		marks = may_mark && outbox_overflow_is_on();
	Invalidation item;

	while (pending_log_read_next(reader, &item))
	{
		if (marks && invalidation_traits(item.kind)->may_be_noted && is_marked(writer, &item))
			continue;
		if (writer->used + INVALIDATION_MAX_HEAD + item.len > OUTBOX_ROW_ITEMS)
			write_row(writer);
		if (INVALIDATION_MAX_HEAD + item.len > OUTBOX_ROW_ITEMS)
			add_in_fragments(writer, &item);
		else
			add_item(writer, &item);
	}
	write_row(writer);
	Assert(writer->used == 0);
	pending_log_read_end(reader);
}

/*
 * Where the extension was dropped, its keys are no longer wanted, and a WARNING will do.
 * As long as it exists no transaction may commit without its keys.
 */
static void
report_no_outbox(void)
{
	if (OidIsValid(get_extension_oid("pg_uncache", true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the outbox of pg_uncache cannot be found"),
				 errdetail("The schema \"%s\" or one of its tables \"%s\" to \"%s\" and \"%s\" has "
						   "another name.",
						   OUTBOX_SCHEMA, outbox_table_name(0),
						   outbox_table_name(OUTBOX_TABLES - 1),
						   outbox_table_name(OUTBOX_SIDE)),
				 errhint("Give it its name back, or drop the extension.")));
	ereport(WARNING,
			(errmsg("the keys of this transaction will not be deleted from Redis"),
			 errdetail("The extension pg_uncache was dropped, and its outbox with it.")));
}

OutboxWritten *
outbox_write(OutboxMode mode, OutboxWritten *earlier)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopTransactionContext);
	OutboxWritten *written = palloc0(sizeof(OutboxWritten));
	RowWriter	writer = {0};

	Assert(IsTransactionState());
	Assert(!pending_set_is_empty());
	Assert(earlier == NULL ||
		   FullTransactionIdEquals(earlier->xid, GetTopFullTransactionIdIfAny()));
	writer.rel = open_table(mode == OUTBOX_PREPARE, &written->table);
	if (writer.rel == NULL)
	{
		MemoryContextSwitchTo(old_context);
		report_no_outbox();
		return earlier;
	}
	written->file = RelationGetFileNumber(writer.rel);
	if (RelationGetNumberOfAttributes(writer.rel) !=
		(written->table == OUTBOX_SIDE ? OUTBOX_SIDE_NCOLUMNS : OUTBOX_NCOLUMNS))
		elog(ERROR, "table \"%s\" is not an outbox of this version of pg_uncache",
			 RelationGetRelationName(writer.rel));

	writer.written = written;
	writer.keep_items = mode == OUTBOX_COMMIT_KEEP_ITEMS;
	writer.chunk = earlier ? earlier->next_chunk : 0;
	writer.at = GetCurrentTimestamp();
	writer.blocks_size = lengthof(written->few_blocks);
	written->blocks = written->few_blocks;
	written->next = earlier;
	written->xid = GetTopFullTransactionId();
	written->nkeys = pending_set_keys();
	written->key_bytes = pending_set_bytes();

	/* A prepared transaction would keep the markers' table locked until it is finished. */
	write_items(&writer, mode != OUTBOX_PREPARE);

	written->next_chunk = writer.chunk;
	if (writer.bulk)
		FreeBulkInsertState(writer.bulk);
	table_close(writer.rel, NoLock);	/* the lock stays until the end */
	MemoryContextSwitchTo(old_context);
	return written;
}
