/*
 * attach_notice.c
 *	  What uncache.attach() tells its caller.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "rules/attach.h"
#include "rules/attach_notice.h"
#include "base/compat.h"
#include "template/template.h"
#include "template/key_encoding.h"
#include "rules/rule_check.h"

/* So many keys of the existing row are shown. */
#define SHOWN_KEYS	10

/* The templates; in front of them, of a rule of attach_columns, the columns. */
static char *
list_arguments(const RuleInfo *info)
{
	int			first = info->by_columns ? 1 : 0;
	StringInfoData text;

	initStringInfo(&text);
	if (info->by_columns && info->nargs > 0)
		appendStringInfo(&text, "columns %s, ", info->args[0]);
	for (int i = first; i < info->nargs; i++)
		appendStringInfo(&text, "%s%s", i > first ? ", " : "",
						 quote_literal_cstr(info->args[i]));
	return text.data;
}

static void
notice_replaced(const Attachment *attachment, const RuleInfo *before)
{
	RuleInfo   *now = rule_by_name(RelationGetRelid(attachment->rel), ATTACH_ROW_TRIGGER);

	if (before != NULL)
		ereport(NOTICE,
				(errmsg("replaced the rule on table \"%s\"",
						RelationGetRelationName(attachment->rel)),
				 errdetail("Before: %s. Now: %s.",
						   list_arguments(before), list_arguments(now))));
}

/* Collects keys for the NOTICE. */
typedef struct NoticeSink
{
	KeySink		sink;
	StringInfoData text;
	int			count;
} NoticeSink;

static void
add_to_notice(KeySink *sink, const char *key, size_t len)
{
	NoticeSink *notice = (NoticeSink *) sink;

	if (++notice->count > SHOWN_KEYS)
		return;
	appendStringInfo(&notice->text, "%s%s", notice->count > 1 ? ", " : "",
					 key_from_utf8(pnstrdup(key, len), len));
}

/* The row that SPI has read: its table's OID, and itself as a composite value. */
static void
render_sample(const Attachment *attachment, NoticeSink *notice)
{
	HeapTuple	row = SPI_tuptable->vals[0];
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(attachment->rel),
													&TTSOpsHeapTuple);
	HeapTupleHeader header;
	HeapTupleData tuple;
	bool		isnull;
	int			nest_level;
	ListCell   *cell;

	header = DatumGetHeapTupleHeader(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
	tuple.t_data = header;
	ExecStoreHeapTuple(&tuple, slot, false);
	slot->tts_tableOid = tuple.t_tableOid;

	nest_level = render_settings_begin(SETTINGS_ALL);
	foreach(cell, attachment->templates)
		template_render(lfirst(cell), slot, &notice->sink);
	render_settings_end(nest_level);
	ExecDropSingleTupleTableSlot(slot);
}

/* A partition on a remote server: looking for a row may take long, or fail. */
static bool
has_foreign_partition(Relation rel)
{
	ListCell   *cell;

	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	foreach(cell, find_all_inheritors(RelationGetRelid(rel), NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_FOREIGN_TABLE)
			return true;
	}
	return false;
}

/* Show what an existing row gives: the quickest way to see a mistake. */
static void
notice_sample(const Attachment *attachment)
{
	Relation	rel = attachment->rel;
	NoticeSink	notice = {{add_to_notice, 0}};
	const char *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												   RelationGetRelationName(rel));

	/* Who cannot read the row is not shown its keys. */
	if (pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		has_foreign_partition(rel))
		return;
	initStringInfo(&notice.text);
	SPI_connect();
	/* "t" alone would be a column of this name; with the cast "t.*" is the row. */
	if (SPI_execute(psprintf("SELECT t.tableoid, (t.*)::%s FROM %s t LIMIT 1", table, table),
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read a row of table \"%s\"", RelationGetRelationName(rel));
	if (SPI_processed > 0)
	{
		render_sample(attachment, &notice);
		if (notice.count > SHOWN_KEYS)
			appendStringInfo(&notice.text, " and %d more", notice.count - SHOWN_KEYS);
		if (notice.count == 0)
			ereport(NOTICE,
					(errmsg("a row of table \"%s\" gives no key, because of a NULL or an empty array",
							RelationGetRelationName(rel))));
		else
			ereport(NOTICE,
					(errmsg("a row of table \"%s\" gives the keys %s",
							RelationGetRelationName(rel), notice.text.data)));
	}
	SPI_finish();
}

static void
notice_children(const Attachment *attachment)
{
	Relation	rel = attachment->rel;

	if (rel->rd_rel->relkind == RELKIND_RELATION &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		ereport(NOTICE,
				(errmsg("rows of tables that inherit from \"%s\" are not covered",
						RelationGetRelationName(rel)),
				 errhint("Attach to each of these tables.")));
}

static void
warn_owner(const Attachment *attachment)
{
	Oid			function = rule_function(attachment->columns != NULL);
	Oid			owner = attachment->rel->rd_rel->relowner;

	if (!rule_owner_can_add_partitions(attachment->rel, function))
		ereport(WARNING,
				(errmsg("owner \"%s\" of table \"%s\" will not be able to add partitions",
						GetUserNameFromId(owner, false),
						RelationGetRelationName(attachment->rel)),
				 errdetail("PostgreSQL clones the trigger to a new partition, which needs EXECUTE on its function."),
				 errhint("Use GRANT EXECUTE ON FUNCTION uncache.%s() TO %s.",
						 get_func_name(function),
						 quote_identifier(GetUserNameFromId(owner, false)))));
}

void
attach_notice(const Attachment *attachment, const RuleInfo *before)
{
	ListCell   *cell;

	notice_replaced(attachment, before);
	foreach(cell, attachment->templates)
		rule_notice_constant(lfirst(cell));
	notice_children(attachment);
	warn_owner(attachment);
	notice_sample(attachment);
}
