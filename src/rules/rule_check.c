/*
 * rule_check.c
 *	  Whether a rule may be made, and whether it still works.
 *
 * A new rule is checked at once, so that a mistake is an ERROR for the user who makes it
 * and not for the next user who writes to the table.
 *
 * Later a rule can break without a check (event triggers were off, pg_restore
 * --disable-triggers).  rule_problems() then tells the view uncache.rules what is wrong,
 * and raises no ERROR for it.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/subtransaction.h"
#include "rules/rules_int.h"

/*
 * --------------------------------------------------------------------------
 * Tables
 * --------------------------------------------------------------------------
 */

static void
refuse_table(Relation rel, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot make a rule on %s \"%s\"", what, RelationGetRelationName(rel)),
			 errhint("%s", hint)));
}

void
rule_check_table(Relation rel)
{
	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			break;
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			refuse_table(rel, rel->rd_rel->relkind == RELKIND_VIEW ? "view" : "materialized view",
						 "Make rules on the tables that the view reads.");
			break;
		case RELKIND_FOREIGN_TABLE:
			refuse_table(rel, "foreign table",
						 "Others may change its rows on the remote server, which no trigger here "
						 "sees: make the rule there.");
			break;
		default:
			refuse_table(rel, "relation",
						 "Rules are made on tables and partitioned tables.");
	}
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_table(rel, "temporary table",
					 "Only this session sees its rows; make the rule on a permanent table.");
	if (IsCatalogRelation(rel))
		refuse_table(rel, "system catalog",
					 "Make the rule on a table of your own.");
	if (RelationGetNamespace(rel) == get_namespace_oid("uncache", true))
		refuse_table(rel, "pg_uncache's own table",
					 "Make the rule on a table of your own.");
}

/*
 * --------------------------------------------------------------------------
 * New rules
 * --------------------------------------------------------------------------
 */

const char *
rule_type_problem(const RuleInfo *info, const char **hint)
{
	if (!TRIGGER_FOR_AFTER(info->type))
	{
		*hint = "Rules are triggers with AFTER: only then the row is what will be committed.";
		return "does not fire after the event";
	}
	if (!TRIGGER_FOR_ROW(info->type) &&
		(TRIGGER_FOR_INSERT(info->type) || TRIGGER_FOR_UPDATE(info->type) ||
		 TRIGGER_FOR_DELETE(info->type)))
	{
		*hint = "Rules for INSERT, UPDATE and DELETE are triggers with FOR EACH ROW; make one of "
			"its own for TRUNCATE.";
		return "does not fire for each row";
	}
	return NULL;
}

static void
check_trigger_type(const RuleInfo *info)
{
	const char *hint;
	const char *problem = rule_type_problem(info, &hint);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on table \"%s\" %s", info->name,
						get_rel_name(info->relation), problem),
				 errhint("%s", hint)));
}

void
rule_notice_constant(const Template *template)
{
	if (template->constant)
		ereport(NOTICE,
				(errmsg("template \"%s\" of table \"%s\" names no column, so all rows give the "
						"same key",
						template_shown(template->text), template->relation),
				 strstr(template->text, "{{") != NULL ?
				 errhint("{{ and }} stand for literal braces; a column is written with single "
						 "ones, such as {id}.") :
				 errhint("A column is written in braces, such as {id}.")));
}

static void
check_for_truncate(const RuleInfo *info, const Template *template)
{
	if (TRIGGER_FOR_TRUNCATE(info->type) && template_keypattern(template) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("template \"%s\" of table \"%s\" cannot be used for TRUNCATE",
						template_shown(template->text), template->relation),
				 errdetail(NO_PATTERN_DETAIL),
				 errhint("Put such text in front, or leave the template out of the TRUNCATE "
						 "trigger.")));
}

void
rule_check_new(const RuleInfo *info)
{
	Relation	rel = relation_open(info->relation, AccessShareLock);
	Rule	   *rule;

	rule_check_table(rel);
	check_trigger_type(info);
	rule = rule_inspect(rel, info);
	for (int i = 0; i < rule->ntemplates; i++)
	{
		check_for_truncate(info, rule->templates[i]);
		if (TRIGGER_FOR_ROW(info->type))
			rule_notice_constant(rule->templates[i]);
	}
	rule_discard(rule);
	relation_close(rel, NoLock);
}

bool
rule_owner_can_add_partitions(Relation rel, Oid function)
{
	return rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE ||
		object_aclcheck(ProcedureRelationId, function, rel->rd_rel->relowner,
						ACL_EXECUTE) == ACLCHECK_OK;
}

/*
 * --------------------------------------------------------------------------
 * Rules that exist
 * --------------------------------------------------------------------------
 */

/* Called in a subtransaction, with a lock on the table. */
static void
compile(void *arg)
{
	const RuleInfo *info = arg;
	Relation	rel = relation_open(info->relation, NoLock);

	rule_discard(rule_inspect(rel, info));
	relation_close(rel, NoLock);
}

/* Whether an error tells nothing about the rule: the compilation was interrupted by it. */
static bool
is_not_about_rule(const ErrorData *edata)
{
	switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return true;
		default:
			return false;
	}
}

static char *
describe_error(const ErrorData *edata)
{
	if (edata->detail == NULL)
		return edata->message;

	/* The detail names the template, in a sentence of which the full stop is cut off here. */
	return psprintf("%.*s: %s.", (int) strcspn(edata->detail, "\n") - 1, edata->detail,
					edata->message);
}

char *
rule_compile_problem(const RuleInfo *info, int *sqlerrcode)
{
	ErrorData  *edata;

	LockRelationOid(info->relation, AccessShareLock);
	edata = subtransaction_run(compile, unconstify(RuleInfo *, info));
	/* A command that looks at many tables must not keep them locked until it commits. */
	UnlockRelationOid(info->relation, AccessShareLock);
	if (edata == NULL || edata->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		return NULL;
	if (is_not_about_rule(edata))
		ReThrowError(edata);
	if (sqlerrcode != NULL)
		*sqlerrcode = edata->sqlerrcode;
	return describe_error(edata);
}

/* The same for the view, which shows an error about something else and goes on. */
static char *
find_compile_problem(const RuleInfo *info)
{
	ErrorData  *edata = subtransaction_run(compile, unconstify(RuleInfo *, info));

	if (edata == NULL || edata->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		return NULL;
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(edata);
	if (is_not_about_rule(edata))
		return psprintf("not checked: %s", edata->message);
	return describe_error(edata);
}

static void
add_problem(StringInfo problems, const char *problem)
{
	if (problems->len > 0)
		appendStringInfoString(problems, "; ");
	appendStringInfoString(problems, problem);
}

static void
find_enabled_problems(const RuleInfo *info, StringInfo problems)
{
	if (info->enabled == TRIGGER_DISABLED)
		add_problem(problems, "disabled");
	else if (info->enabled == TRIGGER_FIRES_ON_REPLICA)
		add_problem(problems, "fires for replicated changes only");
	else if (info->enabled == TRIGGER_FIRES_ON_ORIGIN && is_attached_name(info->name))
		add_problem(problems, "has lost ENABLE ALWAYS: changes that arrive by replication are "
					"missed");
}

/* Whether a table has an enabled rule for rows, or for TRUNCATE. */
static bool
has_enabled_rule(Oid relid, bool for_rows)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_table(relid))
	{
		RuleInfo   *info = lfirst(cell);

		if ((TRIGGER_FOR_ROW(info->type) != 0) == for_rows &&
			info->enabled != TRIGGER_DISABLED)
			return true;
	}
	return false;
}

/* A change of an inheritance child fires the child's own triggers only. */
static void
find_children_problems(const RuleInfo *info, int most_tables, StringInfo problems)
{
	ListCell   *cell;

	foreach(cell, rule_children(info->relation, most_tables - 1))
	{
		if (rule_list_of_table(lfirst_oid(cell)) == NIL)
			add_problem(problems,
						psprintf("child table \"%s\" has no rule", get_rel_name(lfirst_oid(cell))));
	}
}

/* How a clone fires less often than its rule, or NULL if it does not. */
static const char *
clone_problem(const RuleInfo *clone, const RuleInfo *info)
{
	Assert(!OidIsValid(info->parent));
	if (clone->enabled == info->enabled || info->enabled == TRIGGER_DISABLED)
		return NULL;
	if (clone->enabled == TRIGGER_DISABLED)
		return "disabled";
	if (clone->enabled == TRIGGER_FIRES_ON_REPLICA)
		return "fires for replicated changes only";
	if (clone->enabled == TRIGGER_FIRES_ON_ORIGIN)
		return "has lost ENABLE ALWAYS";
	return NULL;
}

/* The clone of a rule on one partition, or NULL. */
static const RuleInfo *
find_clone_of(const RuleInfo *info, Oid partition)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_table(partition))
	{
		RuleInfo   *clone = lfirst(cell);
		Oid			relation;

		if (OidIsValid(clone->parent) &&
			(clone->parent == info->trigger ||
			 rule_topmost(clone->trigger, &relation) == info->trigger))
			return clone;
	}
	return NULL;
}

/*
 * The clone fires for a partition, and can be disabled alone (ALTER TABLE partition DISABLE
 * TRIGGER ALL); one for TRUNCATE may be missing.  Reports the first partition of each.
 */
static void
find_partition_problems(const RuleInfo *info, int most_tables, StringInfo problems)
{
	char	   *uncovered = NULL;
	char	   *weaker = NULL;
	ListCell   *cell;

	foreach(cell, rule_partitions(info->relation, most_tables))
	{
		Oid			partition = lfirst_oid(cell);
		const RuleInfo *clone;
		const char *problem;
		char	   *name = get_rel_name(partition);

		CHECK_FOR_INTERRUPTS();
		if (partition == info->relation || name == NULL)
			continue;
		clone = find_clone_of(info, partition);
		problem = clone != NULL ? clone_problem(clone, info) : NULL;
		if (problem != NULL && weaker == NULL)
			weaker = psprintf("%s on partition \"%s\"", problem, name);
		if (clone == NULL && uncovered == NULL && TRIGGER_FOR_TRUNCATE(info->type) &&
			get_rel_relkind(partition) != RELKIND_FOREIGN_TABLE)
			uncovered = psprintf("TRUNCATE of partition \"%s\" deletes no keys", name);
	}
	if (uncovered != NULL)
		add_problem(problems, uncovered);
	if (weaker != NULL)
		add_problem(problems, weaker);
}

static void
find_owner_problems(const RuleInfo *info, StringInfo problems)
{
	Relation	rel = try_relation_open(info->relation, NoLock);

	/* Another session has dropped the table before it could be locked. */
	if (rel == NULL)
		return;
	if (TRIGGER_FOR_ROW(info->type) && !rule_owner_can_add_partitions(rel, info->function))
		add_problem(problems,
					psprintf("the table's owner cannot add partitions: \"%s\" lacks EXECUTE on "
							 "function uncache.%s()",
							 GetUserNameFromId(rel->rd_rel->relowner, false),
							 get_func_name(info->function)));
	relation_close(rel, NoLock);
}

static void
find_table_problems(const RuleInfo *info, int most_tables, StringInfo problems)
{
	bool		partitioned = get_rel_relkind(info->relation) == RELKIND_PARTITIONED_TABLE;

	if (TRIGGER_FOR_ROW(info->type) && !has_enabled_rule(info->relation, false))
		add_problem(problems, "TRUNCATE deletes no keys: the table has no enabled rule for it");
	if (TRIGGER_FOR_TRUNCATE(info->type) && !has_enabled_rule(info->relation, true))
		add_problem(problems, "INSERT, UPDATE and DELETE delete no keys: the table has no enabled "
					"rule for rows");
	if (partitioned && TRIGGER_FOR_UPDATE(info->type) &&
		(!TRIGGER_FOR_INSERT(info->type) || !TRIGGER_FOR_DELETE(info->type)))
		add_problem(problems, "an UPDATE that moves a row to another partition is a DELETE and an "
					"INSERT, for which the rule does not fire");
	if (partitioned)
		find_partition_problems(info, most_tables, problems);
	else
		find_children_problems(info, most_tables, problems);
}

char *
rule_problems(const RuleInfo *info, int most_tables)
{
	StringInfoData problems;
	const char *hint;
	const char *type = rule_type_problem(info, &hint);
	bool		locked = ConditionalLockRelationOid(info->relation, AccessShareLock);
	char	   *broken = locked ? find_compile_problem(info) :
		pstrdup("not checked: the table is locked");

	initStringInfo(&problems);
	if (type != NULL)
		add_problem(&problems, type);
	find_enabled_problems(info, &problems);
	if (broken != NULL)
		add_problem(&problems, broken);
	if (locked)
		find_owner_problems(info, &problems);
	find_table_problems(info, most_tables, &problems);

	/* A session that has read the view must not block DDL until its transaction ends. */
	if (locked)
		UnlockRelationOid(info->relation, AccessShareLock);
	return problems.len > 0 ? problems.data : NULL;
}
