/*
 * backlog_view.c
 *	  The functions behind the view uncache.backlog, and uncache.backlog_keys().
 *
 * The view has a row for each transaction.  Of a large outbox table only some blocks are
 * read (backlog.h), and the keys are estimated from these:
 *
 *		a transaction seen in one block			the keys that were seen
 *		a transaction seen in several blocks	the keys that were seen, times the number of
 *												blocks for which each block stands
 *		transactions that were not seen			one row for all, without transaction id
 *
 * The transactions are gathered in memory and returned one by one, so that however long
 * the backlog is there is no sort and no temporary file.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/xid8.h"

#include "base/compat.h"
#include "base/invalidation.h"
#include "base/sql_row.h"
#include "outbox/backlog.h"
#include "rules/rules.h"
#include "rules/rule_catalog.h"

SQL_FUNCTION(uncache_backlog_get);
SQL_FUNCTION(uncache_backlog_keys);

#define BACKLOG_COLUMNS			5
#define BACKLOG_KEYS_COLUMNS	6

/*
 * --------------------------------------------------------------------------
 * uncache.backlog
 * --------------------------------------------------------------------------
 */

typedef struct Transaction
{
	uint64		xid;			/* hash key; 0 in "others" */
	TimestampTz at;				/* of its oldest row */
	int32		attempts;
	double		keys;			/* in tables that were read as a whole */
	double		sampled;		/* in tables of which some blocks were read */
	int			nblocks;		/* blocks in which "sampled" was seen; 0: the next mean nothing */
	int			last_table;		/* the last of these blocks */
	BlockNumber last_block;
	double		blocks;			/* number of blocks for which each of them stands */
} Transaction;

typedef struct Backlog
{
	HTAB	   *transactions;
	Transaction *shown;
	int			nshown;
	double		others;			/* keys of transactions that were not seen */
	int			next;			/* index in "shown" of the next row; nshown: the others */
} Backlog;

static void
add_row(const BacklogRow *row, void *arg)
{
	Backlog    *backlog = arg;
	uint64		xid = U64FromFullTransactionId(row->xid);
	int64		keys = backlog_count_keys(row->items, row->len);
	BlockNumber block = ItemPointerGetBlockNumberNoCheck(&row->tid);
	Transaction *transaction;
	bool		found;

	Assert(row->blocks >= 1);
	transaction = hash_search(backlog->transactions, &xid, HASH_ENTER, &found);
	if (!found)
	{
		memset(transaction, 0, sizeof(Transaction));
		transaction->xid = xid;
		transaction->at = row->at;
	}
	transaction->at = Min(transaction->at, row->at);
	transaction->attempts = Max(transaction->attempts, row->attempts);
	if (row->blocks == 1)
	{
		transaction->keys += keys;
		return;
	}
	transaction->sampled += keys;
	transaction->blocks = row->blocks;
	if (transaction->nblocks == 0 || transaction->last_block != block ||
		transaction->last_table != row->table)
		transaction->nblocks++;
	transaction->last_block = block;
	transaction->last_table = row->table;
}

static void
show_transactions(Backlog *backlog)
{
	HASH_SEQ_STATUS scan;
	Transaction *transaction;

	backlog->shown = palloc_extended(sizeof(Transaction) *
									 (hash_get_num_entries(backlog->transactions) + 1),
									 MCXT_ALLOC_HUGE);
	hash_seq_init(&scan, backlog->transactions);
	while ((transaction = hash_seq_search(&scan)) != NULL)
	{
		if (transaction->nblocks > 1)
			transaction->keys += transaction->sampled * transaction->blocks;
		else if (transaction->nblocks == 1)
		{
			transaction->keys += transaction->sampled;
			backlog->others += transaction->sampled * (transaction->blocks - 1);
		}
		backlog->shown[backlog->nshown++] = *transaction;
	}
	Assert(backlog->nshown == hash_get_num_entries(backlog->transactions));
	hash_destroy(backlog->transactions);
}

static Backlog *
read_backlog(void)
{
	Backlog    *backlog = palloc0(sizeof(Backlog));
	HASHCTL		control = {
		.keysize = sizeof(uint64),
		.entrysize = sizeof(Transaction),
		.hcxt = CurrentMemoryContext,
	};

	backlog->transactions = hash_create("pg_uncache backlog", 256, &control,
										HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	backlog_visit_some(add_row, backlog);
	show_transactions(backlog);
	return backlog;
}

static Datum
transaction_row(const Transaction *transaction, TupleDesc desc)
{
	Datum		values[BACKLOG_COLUMNS];
	bool		nulls[BACKLOG_COLUMNS] = {false};
	bool		others = transaction->xid == 0;

	Assert(transaction->keys >= 0);
	values[0] = FullTransactionIdGetDatum(FullTransactionIdFromU64(transaction->xid));
	values[1] = TimestampTzGetDatum(transaction->at);
	values[2] = Int64GetDatum((int64) rint(transaction->keys));
	values[3] = Int32GetDatum(transaction->attempts);
	values[4] = BoolGetDatum(others || transaction->nblocks > 0);
	nulls[0] = nulls[1] = nulls[3] = others;
	return HeapTupleGetDatum(sql_row_form(desc, lengthof(values), values, nulls));
}

/*
 * uncache.backlog_get() returns setof record (xid xid8, written_at timestamptz, keys
 * bigint, attempts int, estimated boolean).
 */
Datum
uncache_backlog_get(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Backlog    *backlog;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old_context;

		call = SRF_FIRSTCALL_INIT();
		old_context = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &call->tuple_desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "backlog_get() must return rows");
		call->tuple_desc = BlessTupleDesc(call->tuple_desc);
		call->user_fctx = read_backlog();
		MemoryContextSwitchTo(old_context);
	}
	call = SRF_PERCALL_SETUP();
	backlog = call->user_fctx;
	if (backlog->next < backlog->nshown)
		SRF_RETURN_NEXT(call, transaction_row(&backlog->shown[backlog->next++], call->tuple_desc));
	if (backlog->next++ == backlog->nshown && backlog->others >= 1)
	{
		Transaction others = {.keys = backlog->others};

		SRF_RETURN_NEXT(call, transaction_row(&others, call->tuple_desc));
	}
	SRF_RETURN_DONE(call);
}

/*
 * --------------------------------------------------------------------------
 * uncache.backlog_keys()
 * --------------------------------------------------------------------------
 */

/* A key in pieces, which is being put together. */
typedef struct LongKey
{
	int			table;
	int32		first_chunk;
	uint32		received;
	FragmentHead head;			/* of one of the pieces; its offset means nothing */
	char	   *bytes;
} LongKey;

typedef struct Listing
{
	uint64		xid;
	ReturnSetInfo *result;
	List	   *long_keys;
	MemoryContext context;		/* of long_keys */
	MemoryContext row_context;
} Listing;

static void
put_key(Listing *listing, const BacklogRow *row, const Invalidation *item)
{
	MemoryContext old_context = MemoryContextSwitchTo(listing->row_context);
	Datum		values[BACKLOG_KEYS_COLUMNS] = {0};
	bool		nulls[BACKLOG_KEYS_COLUMNS] = {false};
	bool		is_key = invalidation_traits(item->kind)->command == INVALIDATION_UNLINK;

	values[0] = CStringGetTextDatum(is_key ? "key" : "pattern");
	values[1] = PointerGetDatum(invalidate_functions_readable_key(item));
	nulls[2] = nulls[3] = !OidIsValid(item->rule) || !rule_describe(item->rule, &values[2]);
	values[4] = Int32GetDatum(row->attempts);
	nulls[5] = row->error == NULL;
	values[5] = PointerGetDatum(row->error);
	MemoryContextSwitchTo(old_context);
	sql_row_put(listing->result, lengthof(values), values, nulls);
	MemoryContextReset(listing->row_context);
}

static LongKey *
find_long_key(Listing *listing, int table, int32 first_chunk, const FragmentHead *head)
{
	MemoryContext old_context;
	LongKey    *key;
	ListCell   *cell;

	foreach(cell, listing->long_keys)
	{
		key = lfirst(cell);
		if (key->table == table && key->first_chunk == first_chunk)
			return key;
	}
	old_context = MemoryContextSwitchTo(listing->context);
	key = palloc0(sizeof(LongKey));
	key->table = table;
	key->first_chunk = first_chunk;
	key->head = *head;
	key->bytes = palloc(head->total);
	listing->long_keys = lappend(listing->long_keys, key);
	MemoryContextSwitchTo(old_context);
	return key;
}

/* Add a piece to its key, and show the key if it was the last one that was missing. */
static void
add_piece(Listing *listing, const BacklogRow *row, const Invalidation *item)
{
	FragmentHead head;
	uint32		len;
	LongKey    *key;
	Invalidation whole = {.rule = item->rule};

	if (!invalidation_read_head(item, &head))
		return;
	len = item->len - sizeof(head);
	key = find_long_key(listing, row->table, row->chunk - head.offset / FRAGMENT_BYTES, &head);
	if (key->head.total != head.total || key->head.kind != head.kind)
		return;
	Assert(head.offset + len <= head.total);
	memcpy(key->bytes + head.offset, item->bytes + sizeof(head), len);
	key->received += len;
	if (key->received < head.total)
		return;
	whole.kind = head.kind;
	whole.bytes = key->bytes;
	whole.len = head.total;
	put_key(listing, row, &whole);
	listing->long_keys = list_delete_ptr(listing->long_keys, key);
	pfree(key->bytes);
	pfree(key);
}

static void
list_row(const BacklogRow *row, void *arg)
{
	Listing    *listing = arg;
	InvalidationReader reader;
	Invalidation item;

	if (U64FromFullTransactionId(row->xid) != listing->xid)
		return;
	invalidation_reader_init(&reader, row->items, row->len);
	while (invalidation_read(&reader, &item) > 0)
	{
		if (invalidation_traits(item.kind)->command == INVALIDATION_JOIN)
			add_piece(listing, row, &item);
		else
			put_key(listing, row, &item);
	}
}

/*
 * uncache.backlog_keys(xid xid8) returns table (kind text, key text, relation regclass,
 * trigger name, attempts int, last_error text)
 */
Datum
uncache_backlog_keys(PG_FUNCTION_ARGS)
{
	Listing		listing = {
		.xid = U64FromFullTransactionId(PG_GETARG_FULLTRANSACTIONID(0)),
		.result = (ReturnSetInfo *) fcinfo->resultinfo,
		.context = CurrentMemoryContext,
	};

	InitMaterializedSRF(fcinfo, 0);
	listing.row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_uncache key",
												ALLOCSET_SMALL_SIZES);
	backlog_visit(list_row, &listing);
	MemoryContextDelete(listing.row_context);
	return (Datum) 0;
}
