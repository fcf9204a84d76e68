/*
 * rule.c
 *	  Rules ready for use: a cache, per backend, of compiled templates.
 *
 * A rule is found by the OID of its trigger.  It lives in a memory context of its
 * own below the cache's.  Invalidation messages only mark rules as stale: they
 * come at moments when a rule may be in use, also while it is being compiled.  A
 * stale rule is replaced when it is asked for the next time.
 *
 * A template may call a function that changes the same table, so that the rule is
 * asked for while it is in use, and the state of its expressions is not made for
 * two at a time.  So a rule in use that may run code of users is unhooked from the
 * cache and a fresh one takes its place; the unhooked one is freed when its user
 * is done.
 *
 * Such a rule is also bound to the user who compiled it, since the right to call
 * a function is asked for then.
 *
 * Who only wants to know something of a rule inspects it.  That runs no code and
 * leaves the cache alone.
 *
 * A failure while compiling leaves the cache as it was.  The cache ends with the
 * backend; rules of triggers that are gone are swept out with other stale ones.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "column.h"
#include "compat.h"
#include "rule.h"

typedef struct RulePrivate
{
	Oid			trigger;
	Oid			relid;
	Oid			user;			/* who compiled it */
	dlist_node	node;			/* in all_rules, while hooked */
	bool		hooked;			/* can be found in the cache */
	bool		stale;			/* something that it rests on has changed */
	int			users;			/* counted only where it may be re-entered */
	MemoryContext context;		/* holds the rule, this struct included */
} RulePrivate;

typedef struct RuleEntry
{
	Oid			trigger;		/* hash key */
	Rule	   *rule;
} RuleEntry;

static MemoryContext cache_context;
static HTAB *cache;				/* RuleEntry by trigger; only hooked rules */
static dlist_head all_rules = DLIST_STATIC_INIT(all_rules);

/* The rule asked for last, or NULL: most statements use only one. */
static Rule *last_rule;

/*
 * --------------------------------------------------------------------------
 * Going stale
 * --------------------------------------------------------------------------
 */

static void
relation_changed(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_rules)
	{
		RulePrivate *private = dlist_container(RulePrivate, node, iter.cur);

		if (relid == InvalidOid || private->relid == relid)
			private->stale = true;
	}
}

/* A function, type, operator or role, no matter which: these change seldom. */
static void
catalog_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	relation_changed(arg, InvalidOid);
}

static void
make_cache(void)
{
	HASHCTL		control = {0};

	cache_context = AllocSetContextCreate(TopMemoryContext, "pg_uncache rules",
										  ALLOCSET_SMALL_SIZES);
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(RuleEntry);
	control.hcxt = cache_context;
	cache = hash_create("pg_uncache rules", 32, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, catalog_changed, (Datum) 0);
}

/*
 * --------------------------------------------------------------------------
 * Compiling
 * --------------------------------------------------------------------------
 */

/* Column number of a name in a list of columns, which can be seen to change. */
static AttrNumber
watched_column(Relation rel, const char *name, const char *literal)
{
	AttrNumber	column = get_attnum(RelationGetRelid(rel), name);

	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errdetail("List of columns %s of a rule on table \"%s\".",
						   literal, RelationGetRelationName(rel)),
				 column_hint(rel, name, false, NULL)));
	if (attribute_is_virtual(TupleDescAttr(RelationGetDescr(rel), column - 1)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a rule cannot watch the virtual generated column \"%s\" of table \"%s\"",
						name, RelationGetRelationName(rel)),
				 errhint("Name the columns that it is computed from, or make the column STORED.")));
	return column;
}

AttrNumber *
rule_read_columns(Relation rel, const char *literal, int *count)
{
	Datum		array = OidInputFunctionCall(F_ARRAY_IN, unconstify(char *, literal),
											 NAMEOID, -1);
	Datum	   *names;
	bool	   *nulls;
	AttrNumber *columns;

	deconstruct_array(DatumGetArrayTypeP(array), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &names, &nulls, count);
	if (*count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no columns given for a rule on table \"%s\"",
						RelationGetRelationName(rel)),
				 errhint("Name the columns whose change matters, or use uncache.attach() for all.")));

	columns = palloc(sizeof(AttrNumber) * *count);
	for (int i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("list of columns %s of a rule on table \"%s\" must not contain nulls",
							literal, RelationGetRelationName(rel))));
		columns[i] = watched_column(rel, NameStr(*DatumGetName(names[i])), literal);
	}
	return columns;
}

static void
compile_templates(Rule *rule, Relation rel, int nargs, char **args, bool inspect)
{
	Oid			relation;
	char	   *alias;

	/* A clone's templates may call the table by the name that their author knew. */
	rule->topmost = rule_topmost(rule->private->trigger, &relation);
	alias = OidIsValid(relation) ? get_rel_name(relation) : NULL;

	rule->templates = palloc(sizeof(Template *) * nargs);
	for (int i = 0; i < nargs; i++)
	{
		Template   *template = inspect ? template_inspect(args[i], rel, alias) :
			template_compile(args[i], rel, alias);

		rule->templates[rule->ntemplates++] = template;
		rule->settings |= template->settings;
		rule->runs_code |= template->runs_code;
		rule->queries |= template->queries;
	}
}

static void
fill_rule(Rule *rule, Relation rel, bool by_columns, int nargs, char **args, bool inspect)
{
	if (by_columns && nargs > 0)
	{
		rule->columns = rule_read_columns(rel, args[0], &rule->ncolumns);
		nargs--;
		args++;
	}
	if (nargs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("a rule on table \"%s\" has no template",
						RelationGetRelationName(rel)),
				 errhint("Give templates as arguments of the trigger function: EXECUTE FUNCTION uncache.%s.",
						 by_columns ? "invalidate_columns('{email}', 'user:{id}')" :
						 "invalidate('user:{id}')")));
	compile_templates(rule, rel, nargs, args, inspect);
}

/* An empty rule in a context of its own. */
static Rule *
new_rule(Relation rel, Oid trigger)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_uncache rule",
												  ALLOCSET_SMALL_SIZES);
	Rule	   *rule = MemoryContextAllocZero(context, sizeof(Rule));

	rule->private = MemoryContextAllocZero(context, sizeof(RulePrivate));
	rule->private->trigger = trigger;
	rule->private->relid = RelationGetRelid(rel);
	rule->private->user = GetUserId();
	rule->private->context = context;
	return rule;
}

/* Make a rule that is not in the cache yet. */
static Rule *
make_rule(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	Rule	   *rule = new_rule(rel, trigger);
	MemoryContext old = MemoryContextSwitchTo(rule->private->context);

	/* From here on messages mark it; after an ERROR nobody may. */
	dlist_push_tail(&all_rules, &rule->private->node);
	PG_TRY();
	{
		fill_rule(rule, rel, by_columns, nargs, args, false);
	}
	PG_CATCH();
	{
		dlist_delete(&rule->private->node);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(rule->private->context, cache_context);
	return rule;
}

Rule *
rule_inspect(Relation rel, const RuleInfo *info)
{
	Rule	   *rule = new_rule(rel, info->trigger);
	MemoryContext old = MemoryContextSwitchTo(rule->private->context);

	fill_rule(rule, rel, info->by_columns, info->nargs, info->args, true);
	MemoryContextSwitchTo(old);
	return rule;
}

void
rule_discard(Rule *rule)
{
	MemoryContextDelete(rule->private->context);
}

/*
 * --------------------------------------------------------------------------
 * The cache
 * --------------------------------------------------------------------------
 */

/* Take a rule out of the cache; free it unless somebody is using it. */
static void
unhook_rule(Rule *rule)
{
	RulePrivate *private = rule->private;

	hash_search(cache, &private->trigger, HASH_REMOVE, NULL);
	dlist_delete(&private->node);
	private->hooked = false;
	if (last_rule == rule)
		last_rule = NULL;
	if (private->users == 0)
		rule_discard(rule);
}

/* Compiling is the time to look for stale rules that nobody asks for any more. */
static void
sweep(void)
{
	HASH_SEQ_STATUS status;
	RuleEntry  *entry;

	/* Removing the entry just returned is allowed. */
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->rule->private->stale)
			unhook_rule(entry->rule);
	}
}

static void
hook_rule(Rule *rule)
{
	bool		found;
	RuleEntry  *entry = hash_search(cache, &rule->private->trigger, HASH_FIND, NULL);

	if (entry != NULL)
		unhook_rule(entry->rule);
	entry = hash_search(cache, &rule->private->trigger, HASH_ENTER, &found);
	entry->rule = rule;
	rule->private->hooked = true;
}

static inline bool
is_usable(const Rule *rule, Oid trigger)
{
	return rule->private->trigger == trigger && !rule->private->stale &&
		rule->private->users == 0 &&
		(!rule->runs_code || rule->private->user == GetUserId());
}

static Rule *
find_rule(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	RuleEntry  *entry;
	Rule	   *rule;

	if (cache == NULL)
		make_cache();
	entry = hash_search(cache, &trigger, HASH_FIND, NULL);
	if (entry != NULL && is_usable(entry->rule, trigger))
		return entry->rule;

	rule = make_rule(rel, trigger, by_columns, nargs, args);
	sweep();
	hook_rule(rule);
	return rule;
}

Rule *
rule_acquire(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	Rule	   *rule = last_rule;

	if (unlikely(rule == NULL || !is_usable(rule, trigger)))
		rule = last_rule = find_rule(rel, trigger, by_columns, nargs, args);
	if (rule->runs_code)
		rule->private->users++;
	return rule;
}

void
rule_release(Rule *rule)
{
	if (!rule->runs_code)
		return;
	rule->private->users--;
	if (rule->private->users == 0 && !rule->private->hooked)
		rule_discard(rule);
}
