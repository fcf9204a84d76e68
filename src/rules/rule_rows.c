/*
 * rule_rows.c
 *	  Rows that come to a table, or leave it, with a whole partition.
 *
 * No trigger sees these rows, so this file deletes their keys:
 *
 *		no row			none.  Usual where partitions rotate every night
 *		few rows		the keys of these rows
 *		more rows		every key that the table's rules can produce, which costs a pass
 *						over Redis, but no time under the lock
 *
 * ATTACH and DETACH PARTITION hold a lock on the partition that keeps writers out until the
 * end of the transaction, so the newest snapshot shows all rows that it can have by then.
 * If the partition is partitioned itself, its parts are locked here; if another session
 * writes to one of them, every key is deleted instead.
 *
 * Rendering runs the functions in templates.  The command may be a superuser's, so they run
 * as the table's owner, in a security-restricted operation, as in PostgreSQL's own
 * maintenance commands.  If that fails (a right is missing), every key is deleted instead.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/subtransaction.h"
#include "pending/pending_set.h"
#include "rules/rules_int.h"
#include "template/template.h"

/*
 * Read at most this many rows and pages (8 MB): that takes milliseconds, during which the
 * lock keeps all other sessions from the table.
 */
#define MAX_ROWS		1000
#define MAX_PAGES		1000

/* The rows to render, and the rules to render them with. */
typedef struct PartitionRows
{
	Oid			relid;			/* the table that has the rules */
	List	   *rules;			/* RuleInfo */
	List	   *leaves;			/* OIDs of the tables with the rows */
} PartitionRows;

/* Adds keys to the pending set. */
typedef struct RowSink
{
	KeySink		sink;
	Oid			rule;
} RowSink;

/*
 * --------------------------------------------------------------------------
 * Counting
 * --------------------------------------------------------------------------
 */

/* The number of rows of a table; more than MAX_ROWS if counting them would take too long. */
static int
count_rows(Oid leaf)
{
	Relation	rel = table_open(leaf, NoLock);
	TableScanDesc scan;
	TupleTableSlot *slot;
	int			count = 0;

	if (RelationGetNumberOfBlocks(rel) > MAX_PAGES)
	{
		table_close(rel, NoLock);
		return MAX_ROWS + 1;
	}
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL, SO_NONE);
	while (count <= MAX_ROWS && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		count++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return count;
}

/*
 * Find the tables that hold the rows of a partition.  Returns the number of rows; more than
 * MAX_ROWS if there are too many, or if a table cannot be locked or read.
 */
static int
find_rows(Oid partition, PartitionRows *rows)
{
	int			count = 0;
	ListCell   *cell;

	foreach(cell, find_all_inheritors(partition, NoLock, NULL))
	{
		Oid			leaf = lfirst_oid(cell);

		if (!ConditionalLockRelationOid(leaf, ShareLock))
			return MAX_ROWS + 1;
		if (get_rel_relkind(leaf) == RELKIND_PARTITIONED_TABLE)
			continue;
		if (get_rel_relkind(leaf) != RELKIND_RELATION)
			return MAX_ROWS + 1;
		rows->leaves = lappend_oid(rows->leaves, leaf);
		count += count_rows(leaf);
		if (count > MAX_ROWS)
			return count;
	}
	return count;
}

/*
 * --------------------------------------------------------------------------
 * Rendering
 * --------------------------------------------------------------------------
 */

static void
add_to_pending(KeySink *sink, const char *key, size_t len)
{
	pending_set_add(INVALIDATION_KEY, ((RowSink *) sink)->rule, key, len);
}

/* The templates of a rule, compiled for a partition as its clone of the rule has them. */
static List *
compile_for_leaf(const RuleInfo *info, Relation leaf, Oid *topmost)
{
	List	   *templates = NIL;
	Oid			relation;
	char	   *alias;

	Assert(get_rel_relkind(RelationGetRelid(leaf)) == RELKIND_RELATION);
	*topmost = rule_topmost(info->trigger, &relation);
	alias = OidIsValid(relation) ? get_rel_name(relation) : NULL;
	for (int i = 0; i < rule_ntemplates(info); i++)
		templates = lappend(templates, template_compile(rule_templates(info)[i], leaf, alias));
	return templates;
}

static void
render_row(List *templates, TupleTableSlot *slot, Oid rule)
{
	RowSink		sink = {{add_to_pending, 0}, rule};
	ListCell   *cell;

	foreach(cell, templates)
		template_render(lfirst(cell), slot, &sink.sink);
}

static void
render_leaf(const RuleInfo *info, Oid oid)
{
	Relation	leaf = table_open(oid, NoLock);
	Oid			topmost;
	List	   *templates = compile_for_leaf(info, leaf, &topmost);
	TupleTableSlot *slot = table_slot_create(leaf, NULL);
	TableScanDesc scan = table_beginscan(leaf, GetActiveSnapshot(), 0, NULL, SO_NONE);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "pg_uncache row",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		render_row(templates, slot, topmost);
		MemoryContextReset(row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(leaf, NoLock);
}

/* Called in a subtransaction: an ERROR puts the user and the settings back, too. */
static void
render_rows(void *arg)
{
	const PartitionRows *rows = arg;
	Relation	rel = table_open(rows->relid, AccessShareLock);
	Oid			user;
	int			context;
	int			nest_level;
	ListCell   *rule;
	ListCell   *leaf;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, context | SECURITY_RESTRICTED_OPERATION);
	nest_level = render_settings_begin(SETTINGS_ALL);
	foreach(rule, rows->rules)
	{
		foreach(leaf, rows->leaves)
			render_leaf(lfirst(rule), lfirst_oid(leaf));
	}
	render_settings_end(nest_level);
	SetUserIdAndSecContext(user, context);
	table_close(rel, NoLock);
}

/* Returns whether the keys of all rows were added; if not, none were. */
static bool
try_rendering(PartitionRows *rows)
{
	ErrorData  *edata = subtransaction_run(render_rows, rows);

	if (edata == NULL)
		return true;
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK)
		ReThrowError(edata);
	ereport(NOTICE,
			(errmsg("the keys of single rows could not be found: %s", edata->message)));
	FreeErrorData(edata);
	return false;
}

/*
 * --------------------------------------------------------------------------
 * Attaching and detaching
 * --------------------------------------------------------------------------
 */

static void
invalidate_rows(Oid relid, Oid partition, PartitionRows *rows)
{
	const char *name = get_rel_name(partition);
	int			count = find_rows(partition, rows);

	Assert(count >= 0);
	if (count == 0)
		ereport(NOTICE,
				(errmsg("partition \"%s\" has no rows, so no keys are deleted", name)));
	else if (count <= MAX_ROWS && try_rendering(rows))
		ereport(NOTICE,
				(errmsg_plural("the keys of %d row of partition \"%s\" will be deleted",
							   "the keys of %d rows of partition \"%s\" will be deleted",
							   count, count, name)));
	else
	{
		ereport(NOTICE,
				(errmsg("every key that the rules of table \"%s\" can produce will be deleted",
						get_rel_name(relid)),
				 count > MAX_ROWS ?
				 errdetail("Partition \"%s\" has more than %d rows, or could not be read at once.",
						   name, MAX_ROWS) : 0));
		(void) rule_flush_rules_of_table(relid, false, NOTICE);
	}
}

static void
rows_changed(Oid relid, Oid partition)
{
	PartitionRows rows = {relid, rule_list_of_table(relid), NIL};

	if (rows.rules == NIL || IsBinaryUpgrade)
		return;
	PushActiveSnapshot(GetLatestSnapshot());
	invalidate_rows(relid, partition, &rows);
	PopActiveSnapshot();
}

/* From now on the table's rules and these fire: a duplicate, unless they name other keys. */
static void
notice_own_rules(Oid relid, Oid partition)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_table(partition))
	{
		RuleInfo   *info = lfirst(cell);

		if (!OidIsValid(info->parent))
			ereport(NOTICE,
					(errmsg("partition \"%s\" has a rule of its own, \"%s\"",
							get_rel_name(partition), info->name),
					 errhint("The rules of table \"%s\" cover the partition: drop its own one with "
							 "DROP TRIGGER, unless it names other keys.",
							 get_rel_name(relid))));
	}
}

void
rule_rows_attached(Oid relid, Oid partition)
{
	rows_changed(relid, partition);
	if (rule_list_of_table(relid) != NIL)
		notice_own_rules(relid, partition);
}

void
rule_rows_detached(Oid relid, Oid partition)
{
	rows_changed(relid, partition);
}

static void
refuse_name(const RuleInfo *own, Oid relid)
{
	char	   *partition = get_rel_name(own->relation);

	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("trigger \"%s\" for relation \"%s\" already exists", own->name, partition),
			 errdetail("The rule \"%s\" of table \"%s\" covers its partitions, by triggers of this "
					   "name.",
					   own->name, get_rel_name(relid)),
			 errhint("Drop the partition's own rule first: SELECT uncache.detach('%s'), or DROP "
					 "TRIGGER %s ON %s.",
					 partition, quote_identifier(own->name), quote_identifier(partition))));
}

void
rule_rows_check_names(Oid relid, Oid partition)
{
	List	   *rules = rule_list_of_table(relid);
	ListCell   *cell;
	ListCell   *other;

	if (rules == NIL)
		return;
	foreach(cell, rule_list_of_table(partition))
	{
		RuleInfo   *own = lfirst(cell);

		foreach(other, rules)
		{
			if (!OidIsValid(own->parent) &&
				strcmp(own->name, ((RuleInfo *) lfirst(other))->name) == 0)
				refuse_name(own, relid);
		}
	}
}
