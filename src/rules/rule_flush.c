/*
 * rule_flush.c
 *	  Invalidating every key that rules can produce.
 *
 * The pending set gets the key pattern of each template, and the worker finds the keys
 * with SCAN.  The pattern of a template without enough literal text in front would
 * match keys of other applications, too: such a template is left out, with a message.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/subtransaction.h"
#include "pending/pending_set.h"
#include "rules/rules_int.h"

SQL_FUNCTION(uncache_invalidate_table);

void
rule_flush_rule(Rule *rule, int elevel)
{
	Assert(rule->ntemplates > 0);
	for (int i = 0; i < rule->ntemplates; i++)
	{
		Template   *template = rule->templates[i];
		char	   *pattern = template_keypattern(template);

		if (pattern != NULL)
		{
			pending_set_add(INVALIDATION_KEYPATTERN, rule->topmost, pattern, strlen(pattern));
			pfree(pattern);
		}
		else if (elevel != 0)
			ereport(elevel,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("keys of template \"%s\" of table \"%s\" are not deleted",
							template_shown(template->text), template->relation),
					 errdetail(NO_PATTERN_DETAIL),
					 errhint("Delete them with uncache.invalidate_keys() or "
							 "uncache.invalidate_pattern().")));
	}
}

/* Returns the number of rules that were flushed. */
static int
invalidate_rules_of_relation(Oid relid, bool clones, int elevel)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	int			nrules = 0;
	ListCell   *cell;

	foreach(cell, rule_list_of_table(relid))
	{
		RuleInfo   *info = lfirst(cell);
		Rule	   *rule;

		if (OidIsValid(info->parent) && !clones)
			continue;
		rule = rule_inspect(rel, info);
		rule_flush_rule(rule, elevel);
		rule_discard(rule);
		nrules++;
	}
	relation_close(rel, NoLock);
	return nrules;
}

int
rule_flush_rules_of_table(Oid relid, bool descend, int elevel)
{
	int			nrules = invalidate_rules_of_relation(relid, true, elevel);
	ListCell   *cell;

	if (!descend || !has_subclass(relid))
		return nrules;

	/* The rule of a clone further down was flushed with the table above it. */
	foreach(cell, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		if (lfirst_oid(cell) != relid)
			nrules += invalidate_rules_of_relation(lfirst_oid(cell), false, elevel);
	}
	return nrules;
}

/* Called in a subtransaction.  Does nothing if the table was dropped meanwhile. */
static void
invalidate_one_rule(void *arg)
{
	const RuleInfo *info = arg;
	Relation	rel = try_relation_open(info->relation, AccessShareLock);
	Rule	   *rule;

	if (rel == NULL)
		return;
	rule = rule_inspect(rel, info);
	rule_flush_rule(rule, LOG);
	rule_discard(rule);
	relation_close(rel, NoLock);
}

static bool
is_wanted(const RuleInfo *info, bool only_unlogged)
{
	return !OidIsValid(info->parent) &&
		(!only_unlogged || get_rel_persistence(info->relation) == RELPERSISTENCE_UNLOGGED);
}

List *
rule_flush_tables(bool only_unlogged)
{
	List	   *tables = NIL;
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
	{
		RuleInfo   *info = lfirst(cell);

		if (is_wanted(info, only_unlogged))
			tables = list_append_unique_oid(tables, info->relation);
	}
	return tables;
}

void
rule_flush_all_rules(bool only_unlogged)
{
	ListCell   *cell;

	foreach(cell, rule_list_of_database())
	{
		/* A rule that is broken must not keep the others from being flushed. */
		if (is_wanted(lfirst(cell), only_unlogged))
			subtransaction_run_or_report(invalidate_one_rule, lfirst(cell));
	}
}

/* invalidate_table(rel regclass) returns void */
Datum
uncache_invalidate_table(PG_FUNCTION_ARGS)
{
	Oid			relid;

	PreventCommandDuringRecovery("uncache.invalidate_table()");
	PreventCommandIfParallelMode("uncache.invalidate_table()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument 1 of uncache.invalidate_table() must not be null")));
	relid = PG_GETARG_OID(0);
	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));

	/*
	 * A template without a key pattern is a WARNING even if it is the only one, as in TRUNCATE:
	 * a script that calls this for all tables shall reach the last one.
	 */
	if (rule_flush_rules_of_table(relid, true, WARNING) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no rule", get_rel_name(relid)),
				 errhint("Make one with uncache.attach(), or delete keys with "
						 "uncache.invalidate_pattern().")));
	PG_RETURN_VOID();
}
