/*
 * attach.c
 *	  uncache.attach(), attach_columns() and detach().
 *
 * attach() checks the table and the templates, then makes two plain triggers:
 * uncache_row, and uncache_truncate with those templates whose keys a pattern can
 * find.  Both are ENABLE ALWAYS, so they also fire for changes that arrive by
 * replication: a subscriber has a cache too.  The triggers are all that is stored.
 *
 * Rights are those of CREATE TRIGGER and DROP TRIGGER: making a trigger takes the
 * TRIGGER privilege on the table and EXECUTE on the trigger function; dropping one,
 * and so replacing it, takes the ownership of the table.  An ERROR leaves the table
 * as it was.
 *
 * attach() then tells its caller what the new rule does, and what it does not do.  It
 * renders one row that exists: where that raises an ERROR, so would a change of
 * the row, and the rule is not made.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "rules/rules_int.h"
#include "shmem/shmem.h"
#include "template/key_encoding.h"
#include "template/template.h"

SQL_FUNCTION(uncache_attach);
SQL_FUNCTION(uncache_attach_columns);
SQL_FUNCTION(uncache_detach);

/* At most this many keys of the sample row are shown, so that the NOTICE stays a line. */
#define SHOWN_KEYS	10

/* The arguments of one call of attach() or attach_columns(). */
typedef struct Attachment
{
	Relation	rel;
	char	   *columns;		/* name[] literal, or NULL for attach() */
	List	   *templates;		/* Template, compiled */
} Attachment;

/*
 * --------------------------------------------------------------------------
 * Dropping
 * --------------------------------------------------------------------------
 */

static void
require_owner(Relation rel)
{
	if (!object_ownercheck(RelationRelationId, RelationGetRelid(rel), GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
}

/* Drop one of the two triggers.  Returns what it was, or NULL if there was none. */
static RuleInfo *
drop_attached(Relation rel, const char *name)
{
	RuleInfo   *info = rule_by_name(RelationGetRelid(rel), name);
	Oid			topmost_table;
	ObjectAddress address;

	if (info == NULL)
		return NULL;
	Assert(is_attached_name(info->name));
	require_owner(rel);
	if (OidIsValid(info->parent))
	{
		(void) rule_topmost(info->trigger, &topmost_table);
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("rule \"%s\" of partition \"%s\" belongs to table \"%s\"",
						name, RelationGetRelationName(rel), get_rel_name(topmost_table)),
				 errhint("Attach to, or detach from, table \"%s\": it covers its partitions.",
						 get_rel_name(topmost_table))));
	}
	ObjectAddressSet(address, TriggerRelationId, info->trigger);
	performDeletion(&address, DROP_RESTRICT, 0);
	CommandCounterIncrement();
	return info;
}

/*
 * --------------------------------------------------------------------------
 * Making triggers
 * --------------------------------------------------------------------------
 */

static void
make_trigger(Relation rel, const char *name, int16 events, bool row,
			 bool by_columns, List *args)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	Oid			function = rule_function(by_columns);

	Assert(args != NIL);
	if (!OidIsValid(function))
		elog(ERROR, "function uncache.invalidate does not exist");
	stmt->trigname = pstrdup(name);
	/* CreateTriggerFiringOn() gets the OID; it uses the name where EXECUTE is missing. */
	stmt->funcname = list_make2(makeString("uncache"), makeString(get_func_name(function)));
	stmt->row = row;
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = events;
	stmt->args = args;
	CreateTriggerFiringOn(stmt, NULL, RelationGetRelid(rel), InvalidOid, InvalidOid,
						  InvalidOid, function, InvalidOid, NULL, false, false,
						  TRIGGER_FIRES_ALWAYS);
	CommandCounterIncrement();
}

static void
make_row_trigger(Attachment *attachment)
{
	List	   *args = NIL;
	ListCell   *cell;

	if (attachment->columns)
		args = lappend(args, makeString(attachment->columns));
	foreach(cell, attachment->templates)
		args = lappend(args, makeString(((Template *) lfirst(cell))->text));
	make_trigger(attachment->rel, ATTACH_ROW_TRIGGER,
				 TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE,
				 true, attachment->columns != NULL, args);
}

/* Make it with the templates whose keys a pattern can find; none if there is no such template. */
static void
make_truncate_trigger(Attachment *attachment)
{
	List	   *args = NIL;
	ListCell   *cell;

	foreach(cell, attachment->templates)
	{
		Template   *template = lfirst(cell);

		if (template_keypattern(template) != NULL)
			args = lappend(args, makeString(template->text));
		else
			ereport(NOTICE,
					(errmsg("TRUNCATE of table \"%s\" will not delete the keys of template \"%s\"",
							template->relation, template_shown(template->text)),
					 errdetail(NO_PATTERN_DETAIL)));
	}
	if (args == NIL)
		return;
	make_trigger(attachment->rel, ATTACH_TRUNCATE_TRIGGER, TRIGGER_TYPE_TRUNCATE,
				 false, false, args);
	rule_cover_partitions(RelationGetRelid(attachment->rel), false);
}

/*
 * --------------------------------------------------------------------------
 * What the caller is told
 * --------------------------------------------------------------------------
 */

/* The templates of a rule; a rule of attach_columns() has its columns in front of them. */
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

/* Render the row that SPI has read: column 1 is its table's OID, column 2 the row itself. */
static void
render_sample(const Attachment *attachment, NoticeSink *notice)
{
	HeapTuple	row = SPI_tuptable->vals[0];
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(attachment->rel),
													&TTSOpsVirtual);
	bool		isnull;
	int			nest_level;
	ListCell   *cell;

	ExecStoreHeapTupleDatum(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull), slot);
	slot->tts_tableOid = DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));

	Assert(OidIsValid(slot->tts_tableOid));
	nest_level = render_settings_begin(SETTINGS_ALL);
	foreach(cell, attachment->templates)
		template_render(lfirst(cell), slot, &notice->sink);
	render_settings_end(nest_level);
	ExecDropSingleTupleTableSlot(slot);
}

/* Then no row is looked for: reading a partition on a remote server may take long, or fail. */
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

/* Show the keys of one row that exists: the quickest way to see a mistake in a template. */
static void
notice_sample(const Attachment *attachment)
{
	Relation	rel = attachment->rel;
	NoticeSink	notice = {{add_to_notice, 0}};
	const char *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												   RelationGetRelationName(rel));

	/* A caller who may not read the row must not see its values in keys. */
	if (pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		has_foreign_partition(rel))
		return;
	initStringInfo(&notice.text);
	SPI_connect();
	/* "t" alone would mean a column of that name; "(t.*)::table" is the row in any case. */
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
					(errmsg("a row of table \"%s\" gives no key, because of a NULL or an empty "
							"array",
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
				 errdetail("PostgreSQL clones the trigger to a new partition, which needs EXECUTE "
						   "on its function."),
				 errhint("Use GRANT EXECUTE ON FUNCTION uncache.%s() TO %s.",
						 get_func_name(function),
						 quote_identifier(GetUserNameFromId(owner, false)))));
}

/* "before" is the row rule that the new one replaces, or NULL. */
static void
give_notices(const Attachment *attachment, const RuleInfo *before)
{
	ListCell   *cell;

	notice_replaced(attachment, before);
	foreach(cell, attachment->templates)
		rule_notice_constant(lfirst(cell));
	notice_children(attachment);
	warn_owner(attachment);
	notice_sample(attachment);
}

/*
 * --------------------------------------------------------------------------
 * The functions
 * --------------------------------------------------------------------------
 */

/* Refuse a read-only transaction, a standby, and arguments that are NULL. */
static void
check_call(FunctionCallInfo fcinfo, const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	for (int i = 0; i < PG_NARGS(); i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of %s must not be null", i + 1, function)));
	}
}

/* Open a table for a change of its triggers; an ERROR if the caller lacks TRIGGER on it. */
static Relation
open_table(Oid relid)
{
	Relation	rel;

	if (pg_class_aclcheck(relid, GetUserId(), ACL_TRIGGER) != ACLCHECK_OK &&
		get_rel_name(relid) != NULL)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
	rel = try_relation_open(relid, ShareRowExclusiveLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table with OID %u does not exist", relid)));
	return rel;
}

static void
compile_all(Attachment *attachment, ArrayType *texts)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;

	deconstruct_array(texts, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no template given for table \"%s\"",
						RelationGetRelationName(attachment->rel)),
				 errhint("Give at least one, such as 'user:{id}'.")));
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("template %d for table \"%s\" must not be null", i + 1,
							RelationGetRelationName(attachment->rel))));
		attachment->templates =
			lappend(attachment->templates,
					template_compile(TextDatumGetCString(values[i]), attachment->rel, NULL));
	}
}

static void
attach(const char *function, Oid relid, char *columns, ArrayType *templates)
{
	Attachment	attachment = {0};
	RuleInfo   *before;
	int			ncolumns;

	shmem_require_preload(function);
	attachment.rel = open_table(relid);
	rule_check_table(attachment.rel);
	attachment.columns = columns;
	if (columns)
		(void) rule_read_columns(attachment.rel, columns, &ncolumns);
	compile_all(&attachment, templates);

	before = drop_attached(attachment.rel, ATTACH_ROW_TRIGGER);
	drop_attached(attachment.rel, ATTACH_TRUNCATE_TRIGGER);
	make_row_trigger(&attachment);
	make_truncate_trigger(&attachment);

	give_notices(&attachment, before);
	relation_close(attachment.rel, NoLock);
}

/* attach(rel regclass, VARIADIC templates text[]) returns void */
Datum
uncache_attach(PG_FUNCTION_ARGS)
{
	check_call(fcinfo, "uncache.attach()");
	attach("uncache.attach()", PG_GETARG_OID(0), NULL, PG_GETARG_ARRAYTYPE_P(1));
	PG_RETURN_VOID();
}

/* attach_columns(rel regclass, columns name[], VARIADIC templates text[]) returns void */
Datum
uncache_attach_columns(PG_FUNCTION_ARGS)
{
	check_call(fcinfo, "uncache.attach_columns()");
	attach("uncache.attach_columns()", PG_GETARG_OID(0),
		   OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(1)),
		   PG_GETARG_ARRAYTYPE_P(2));
	PG_RETURN_VOID();
}

/* detach(rel regclass) returns void */
Datum
uncache_detach(PG_FUNCTION_ARGS)
{
	Relation	rel;
	bool		row;
	bool		truncate;

	check_call(fcinfo, "uncache.detach()");
	rel = open_table(PG_GETARG_OID(0));
	row = drop_attached(rel, ATTACH_ROW_TRIGGER) != NULL;
	truncate = drop_attached(rel, ATTACH_TRUNCATE_TRIGGER) != NULL;
	if (!row && !truncate)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no rule that attach made",
						RelationGetRelationName(rel)),
				 errhint("The view uncache.rules shows all rules; one made by hand is dropped with "
						 "DROP TRIGGER.")));
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}
