/*
 * rule_cache.c
 *	  A cache, one per backend, of rules with compiled templates.
 *
 * A rule is found by the OID of its trigger.  It lives in a memory context of its own
 * below the cache's.  PostgreSQL's invalidation messages only mark rules as stale, since
 * they arrive while a rule may be in use, or is being compiled.  A stale rule is replaced
 * when rule_acquire() asks for it the next time.
 *
 * A compiled rule takes about 8 kB, and a table may have thousands of partitions, each
 * with a trigger of its own and the same templates.  So partitions share the rule that
 * the first of them compiled, if the columns that it reads are in the same places in all
 * of them; each partition then costs an entry of less than 100 bytes.
 *
 * A template may call a function that changes the same table.  Then the rule is asked
 * for while it is in use, but the state of its expressions serves one rendering at a
 * time.  So a rule that may run code of users is unhooked from the cache when it is asked
 * for while in use, and a fresh one takes its place; the unhooked one is freed by the
 * rule_release() that ends its use.
 *
 * Such a rule is also bound to the user who compiled it, since the right to call a
 * function is checked when a template is compiled.
 *
 * Code that wants to know something of a rule, and does not render, inspects it: that
 * runs no code of users and does not touch the cache.
 *
 * An ERROR while compiling leaves the cache as it was.  The cache lives as long as the
 * backend; rules of dropped triggers are swept out with other stale ones.
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

#include "base/compat.h"
#include "rules/rule_cache.h"
#include "template/template.h"

/* A column that a rule reads, as it was when the rule was compiled. */
typedef struct UsedColumn
{
	AttrNumber	number;
	NameData	name;
	Oid			type;
	int32		typmod;
	Oid			collation;
} UsedColumn;

typedef struct RulePrivate
{
	Oid			relid;			/* the table that it was compiled for */
	Oid			user;			/* the role that compiled it */
	dlist_node	node;			/* in all_rules, while being compiled or hooked */
	int			entries;		/* RuleEntry structs that point to it; 0: not hooked */
	bool		stale;			/* the table, or an object in a template, has changed */
	int			users;			/* renderings under way; counted only if it runs_code */
	MemoryContext context;		/* holds the rule, this struct included */
	Rule	   *rule;			/* the rule that this struct belongs to */

	/* Another partition must match this to share the rule; unset if not shareable. */
	bool		shareable;
	char	   *columns_text;	/* first argument of invalidate_columns(); else NULL */
	int			nused;
	UsedColumn *used;
} RulePrivate;

typedef struct RuleEntry
{
	Oid			trigger;		/* hash key */
	Oid			relid;			/* the trigger's table */
	bool		stale;			/* relid has changed; other entries may still use the rule */
	Rule	   *rule;
	dlist_node	node;			/* in all_entries */
} RuleEntry;

/*
 * The most compiled rules that are kept, about 8 MB.  A session that uses more loses the
 * oldest, and compiles it again when it needs it, in about 50 microseconds.
 */
#define MAX_RULES		1000

static MemoryContext cache_context;
static HTAB *cache;				/* RuleEntry by trigger */
static dlist_head all_entries = DLIST_STATIC_INIT(all_entries);
static dlist_head all_rules = DLIST_STATIC_INIT(all_rules); /* oldest first */
static int	nrules;				/* rules that are hooked */

/* The entry that was used last, or NULL: most statements use only one. */
static RuleEntry *last_entry;

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
	dlist_foreach(iter, &all_entries)
	{
		RuleEntry  *entry = dlist_container(RuleEntry, node, iter.cur);

		if (relid == InvalidOid || entry->relid == relid)
			entry->stale = true;
	}
}

/* A function, type, operator or role has changed.  Seldom, so all rules become stale. */
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

/* The number of a column in the list "literal"; an ERROR if a trigger cannot see its change. */
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
				 errhint("Name the columns whose change matters, or use uncache.attach() for "
						 "all.")));

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
compile_templates(Rule *rule, Relation rel, Oid trigger, int nargs, char **args, bool inspect)
{
	Oid			relation;
	char	   *alias;

	/* A clone's templates may use the name of the table that the rule was made on. */
	rule->topmost = rule_topmost(trigger, &relation);
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

		/* Errors while rendering name that table, whatever partition the row is in. */
		if (alias != NULL)
			template->relation = alias;
	}
	Assert(rule->ntemplates == nargs && OidIsValid(rule->topmost));
}

static void
fill_rule(Rule *rule, Relation rel, Oid trigger, bool by_columns, int nargs, char **args,
		  bool inspect)
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
				 errhint("Give templates as arguments of the trigger function: EXECUTE FUNCTION "
						 "uncache.%s.",
						 by_columns ? "invalidate_columns('{email}', 'user:{id}')" :
						 "invalidate('user:{id}')")));
	compile_templates(rule, rel, trigger, nargs, args, inspect);
}

/* An empty rule in a context of its own. */
static Rule *
new_rule(Relation rel)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_uncache rule",
												  ALLOCSET_SMALL_SIZES);
	Rule	   *rule = MemoryContextAllocZero(context, sizeof(Rule));

	rule->private = MemoryContextAllocZero(context, sizeof(RulePrivate));
	rule->private->rule = rule;
	rule->private->relid = RelationGetRelid(rel);
	rule->private->user = GetUserId();
	rule->private->context = context;
	return rule;
}

/* Remember a column that a rule reads, as it is in the table that the rule is compiled for. */
static void
add_used(RulePrivate *private, Relation rel, AttrNumber number)
{
	UsedColumn *used = &private->used[private->nused];
	Form_pg_attribute att;

	if (number <= 0)
		return;					/* tableoid, which every row has */
	att = TupleDescAttr(RelationGetDescr(rel), number - 1);
	used->number = number;
	used->name = att->attname;
	used->type = att->atttypid;
	used->typmod = att->atttypmod;
	used->collation = att->attcollation;
	private->nused++;
}

/*
 * Remember what another partition needs to share this rule.  A rule that reads whole rows
 * is not shared, since it depends on every column.
 */
static void
remember_used_columns(Rule *rule, Relation rel, const char *columns_text)
{
	RulePrivate *private = rule->private;
	int			most = rule->ncolumns;

	for (int i = 0; i < rule->ntemplates; i++)
	{
		if (rule->templates[i]->ncolumns < 0)
			return;
		most += rule->templates[i]->ncolumns;
	}
	private->used = palloc(sizeof(UsedColumn) * Max(most, 1));
	for (int i = 0; i < rule->ncolumns; i++)
		add_used(private, rel, rule->columns[i]);
	for (int i = 0; i < rule->ntemplates; i++)
	{
		for (int c = 0; c < rule->templates[i]->ncolumns; c++)
			add_used(private, rel, rule->templates[i]->columns[c]);
	}
	Assert(private->nused <= most);
	private->columns_text = columns_text ? pstrdup(columns_text) : NULL;
	private->shareable = true;
}

/* Make a rule that is not in the cache yet. */
static Rule *
make_rule(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	Rule	   *rule = new_rule(rel);
	MemoryContext old = MemoryContextSwitchTo(rule->private->context);

	/* In this list an invalidation message finds it; an ERROR takes it out before it is freed. */
	dlist_push_tail(&all_rules, &rule->private->node);
	PG_TRY();
	{
		fill_rule(rule, rel, trigger, by_columns, nargs, args, false);
		if (rel->rd_rel->relispartition)
			remember_used_columns(rule, rel, by_columns ? args[0] : NULL);
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
	Rule	   *rule = new_rule(rel);
	MemoryContext old = MemoryContextSwitchTo(rule->private->context);

	fill_rule(rule, rel, info->trigger, info->by_columns, info->nargs, info->args, true);
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

/*
 * Take an entry out of the cache.  A rule without entries is unhooked too, and freed unless
 * it is in use.
 */
static void
unhook_entry(RuleEntry *entry)
{
	Rule	   *rule = entry->rule;

	Assert(rule->private->entries > 0 && nrules > 0);
	if (last_entry == entry)
		last_entry = NULL;
	dlist_delete(&entry->node);
	hash_search(cache, &entry->trigger, HASH_REMOVE, NULL);
	if (--rule->private->entries > 0)
		return;
	nrules--;
	dlist_delete(&rule->private->node);
	if (rule->private->users == 0)
		rule_discard(rule);
}

/* Free stale rules that are no longer asked for.  Called whenever a rule was compiled. */
static void
sweep(void)
{
	HASH_SEQ_STATUS status;
	RuleEntry  *entry;

	/* dynahash allows removing the entry that the scan has just returned. */
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->stale || entry->rule->private->stale)
			unhook_entry(entry);
	}
}

/* Take the oldest rule out of the cache. */
static void
drop_oldest(void)
{
	RulePrivate *head = dlist_container(RulePrivate, node, dlist_head_node(&all_rules));
	Rule	   *oldest = head->rule;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &all_entries)
	{
		RuleEntry  *entry = dlist_container(RuleEntry, node, iter.cur);

		if (entry->rule == oldest)
			unhook_entry(entry);
	}
}

static RuleEntry *
hook_rule(Rule *rule, Oid trigger, Oid relid)
{
	RuleEntry  *entry = hash_search(cache, &trigger, HASH_FIND, NULL);

	/* Counted before the old entry is unhooked, which may point to the same rule. */
	if (rule->private->entries++ == 0)
		nrules++;
	if (entry != NULL)
		unhook_entry(entry);
	entry = hash_search(cache, &trigger, HASH_ENTER, NULL);
	entry->relid = relid;
	entry->stale = false;
	entry->rule = rule;
	dlist_push_tail(&all_entries, &entry->node);
	Assert(rule->private->entries > 0 && rule->private->users == 0);
	return entry;
}

static inline bool
rule_is_usable(const Rule *rule)
{
	return !rule->private->stale && rule->private->users == 0 &&
		(!rule->runs_code || rule->private->user == GetUserId());
}

static inline bool
is_usable(const RuleEntry *entry, Oid trigger)
{
	return entry->trigger == trigger && !entry->stale && rule_is_usable(entry->rule);
}

/* Whether the columns that a rule reads are in the same places in another partition. */
static bool
has_used_columns(Relation rel, const RulePrivate *private)
{
	TupleDesc	desc = RelationGetDescr(rel);

	Assert(private->shareable);
	for (int i = 0; i < private->nused; i++)
	{
		const UsedColumn *used = &private->used[i];
		Form_pg_attribute att;

		if (used->number > desc->natts)
			return false;
		att = TupleDescAttr(desc, used->number - 1);
		if (att->attisdropped || strcmp(NameStr(att->attname), NameStr(used->name)) != 0 ||
			att->atttypid != used->type || att->atttypmod != used->typmod ||
			att->attcollation != used->collation || attribute_is_virtual(att))
			return false;
	}
	return true;
}

static bool
has_arguments(const Rule *rule, bool by_columns, int nargs, char **args)
{
	const char *columns_text = rule->private->columns_text;

	if ((columns_text != NULL) != by_columns ||
		(by_columns && strcmp(columns_text, args[0]) != 0))
		return false;
	if (by_columns)
	{
		nargs--;
		args++;
	}
	if (rule->ntemplates != nargs)
		return false;
	for (int i = 0; i < nargs; i++)
	{
		if (strcmp(rule->templates[i]->text, args[i]) != 0)
			return false;
	}
	return true;
}

/* The rule of another partition that serves this trigger as well, or NULL. */
static Rule *
find_shareable(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	Oid			relation;
	Oid			topmost;
	dlist_iter	iter;

	if (!rel->rd_rel->relispartition || nargs == 0)
		return NULL;
	topmost = rule_topmost(trigger, &relation);
	dlist_foreach(iter, &all_rules)
	{
		RulePrivate *private = dlist_container(RulePrivate, node, iter.cur);

		if (private->shareable && private->rule->topmost == topmost &&
			rule_is_usable(private->rule) && private->entries > 0 &&
			has_arguments(private->rule, by_columns, nargs, args) &&
			has_used_columns(rel, private))
			return private->rule;
	}
	return NULL;
}

static RuleEntry *
find_rule(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	RuleEntry  *entry;
	Rule	   *rule;

	if (cache == NULL)
		make_cache();
	entry = hash_search(cache, &trigger, HASH_FIND, NULL);
	if (entry != NULL && is_usable(entry, trigger))
		return entry;

	rule = find_shareable(rel, trigger, by_columns, nargs, args);
	if (rule == NULL)
	{
		rule = make_rule(rel, trigger, by_columns, nargs, args);
		sweep();
	}
	entry = hook_rule(rule, trigger, RelationGetRelid(rel));
	if (nrules > MAX_RULES)
		drop_oldest();
	return entry;
}

Rule *
rule_acquire(Relation rel, Oid trigger, bool by_columns, int nargs, char **args)
{
	Rule	   *rule;

	if (unlikely(last_entry == NULL || !is_usable(last_entry, trigger)))
		last_entry = find_rule(rel, trigger, by_columns, nargs, args);
	rule = last_entry->rule;
	Assert(rule->ntemplates > 0 && rule->private->users == 0);
	if (rule->runs_code)
		rule->private->users++;
	return rule;
}

void
rule_release(Rule *rule)
{
	if (!rule->runs_code)
		return;
	Assert(rule->private->users == 1);
	rule->private->users--;
	if (rule->private->users == 0 && rule->private->entries == 0)
		rule_discard(rule);
}
