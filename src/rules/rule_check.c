/*
 * rule_check.c
 *	  Whether a rule may be made.
 *
 * A rule that was made is checked at once, so that a mistake shows where it is
 * made and not in somebody's INSERT.  What goes wrong later is rule_problems.c's.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "rules/rule_check.h"

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
						 "Others may change its rows on the remote server, which no trigger here sees: make the rule there.");
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
		*hint = "Rules for INSERT, UPDATE and DELETE are triggers with FOR EACH ROW; make one of its own for TRUNCATE.";
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
				(errmsg("template \"%s\" of table \"%s\" names no column, so all rows give the same key",
						template_shown(template->text), template->relation),
				 strstr(template->text, "{{") != NULL ?
				 errhint("{{ and }} stand for literal braces; a column is written with single ones, such as {id}.") :
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
				 errdetail("It does not begin with literal text that holds two letters or digits, by which its keys could be found."),
				 errhint("Put such text in front, or leave the template out of the TRUNCATE trigger.")));
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
