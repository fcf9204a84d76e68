/*
 * outbox_tables.c
 *	  The tables of the outbox: their names, their OIDs, and what a row looks like.
 *
 * OUTBOX_TABLES tables take turns (outbox_rotate.c); rows of prepared transactions, and what
 * Redis refuses, are in the side table.  The OIDs are remembered until the relation cache
 * says that one of the tables has changed.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "outbox/outbox_tables.h"

SQL_FUNCTION(uncache_outbox_guard);

static const char *const table_names[OUTBOX_TABLES + 1] = {
	"outbox_0", "outbox_1", "outbox_2", "outbox_3", "outbox_side"
};

/* Valid only while table_oids_valid, which the callback of the relation cache clears. */
static Oid	table_oids[OUTBOX_TABLES + 1];
static bool table_oids_valid = false;

StaticAssertDecl(OUTBOX_ROW_ITEMS <= BLCKSZ - 256, "a row of the outbox must fit into a page");

static void
relation_changed(Datum arg, Oid relid)
{
	if (!table_oids_valid)
		return;
	for (int i = 0; i <= OUTBOX_TABLES; i++)
	{
		if (relid == InvalidOid || relid == table_oids[i])
			table_oids_valid = false;
	}
}

static void
find_tables(void)
{
	static bool registered = false;
	Oid			schema = get_namespace_oid(OUTBOX_SCHEMA, true);

	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		registered = true;
	}
	for (int i = 0; i <= OUTBOX_TABLES; i++)
	{
		table_oids[i] = OidIsValid(schema) ?
			get_relname_relid(table_names[i], schema) : InvalidOid;
		if (!OidIsValid(table_oids[i]))
			return;				/* asked again at the next call */
	}
	table_oids_valid = true;
}

Oid
outbox_table_oid(int i)
{
	Assert(i >= 0 && i <= OUTBOX_TABLES);
	if (!table_oids_valid)
		find_tables();
	return table_oids_valid ? table_oids[i] : InvalidOid;
}

bool
outbox_exists(void)
{
	return OidIsValid(outbox_table_oid(0));
}

const char *
outbox_table_name(int i)
{
	Assert(i >= 0 && i <= OUTBOX_SIDE);
	return table_names[i];
}

/* Where the items begin in a row's data: behind columns of fixed length, 8 + 4 (+ 4) + 8. */
#define OFFSET_ITEMS	24

/* Whether the header of the row is sound, and the items lie within the row. */
static bool
tuple_is_sound(HeapTuple tuple)
{
	HeapTupleHeader head = tuple->t_data;
	uint32		len = tuple->t_len;
	uint32		left;
	char	   *items;

	if (len < SizeofHeapTupleHeader || head->t_hoff != MAXALIGN(head->t_hoff) ||
		head->t_hoff < SizeofHeapTupleHeader ||
		head->t_hoff + OFFSET_ITEMS + VARHDRSZ > len ||
		HeapTupleHeaderGetNatts(head) < OUTBOX_NCOLUMNS)
		return false;
	for (int i = 0; HeapTupleHasNulls(tuple) && i < OUTBOX_NCOLUMNS; i++)
	{
		if (att_isnull(i, head->t_bits))
			return false;
	}
	items = (char *) head + head->t_hoff + OFFSET_ITEMS;
	left = len - head->t_hoff - OFFSET_ITEMS;
	return VARATT_IS_4B_U(items) && VARSIZE_4B(items) >= VARHDRSZ &&
		INTALIGN(VARSIZE_4B(items)) + sizeof(int32) <= left &&
		VARSIZE_4B(items) - VARHDRSZ <= OUTBOX_ROW_ITEMS;
}

void
outbox_check_tuple(HeapTuple tuple)
{
	if (!tuple_is_sound(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row (%u,%u) is not one of an outbox",
						ItemPointerGetBlockNumber(&tuple->t_self),
						ItemPointerGetOffsetNumber(&tuple->t_self))));
}

/*
 * The trigger that keeps SQL away from the outbox.  In an apply worker of logical replication
 * an ERROR would stop the subscription, so there the row is silently left out.
 */
Datum
uncache_outbox_guard(PG_FUNCTION_ARGS)
{
	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		return PointerGetDatum(NULL);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the outbox of pg_uncache cannot be written to by SQL"),
			 errhint("Use uncache.invalidate_keys() to delete keys, uncache.discard_backlog() to "
					 "forget what is not delivered.")));
}
