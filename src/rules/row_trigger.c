/*
 * row_trigger.c
 *	  The trigger functions: they add the keys of a changed row to the pending set.
 *
 * The row trigger is called for every row that is written, so its usual path looks
 * nothing up and allocates nothing: the rule is the one of the row before, its templates
 * are rendered straight into the key buffer, and the pending set copies the bytes.
 *
 * An ERROR fails the user's statement; its rollback takes out what was added.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "pending/pending_set.h"
#include "rules/rules_int.h"
#include "rules/size_limit.h"
#include "settings/settings.h"
#include "template/template.h"

/* Adds keys to the pending set. */
typedef struct PendingSink
{
	KeySink		sink;
	Oid			rule;
	uint64	   *bytes;			/* added for this row so far, old and new version together */
} PendingSink;

/* Gathers the keys of one version of a row, to compare them. */
typedef struct TextSink
{
	KeySink		sink;
	Oid			rule;
	StringInfoData text;		/* each key followed by a null byte */
} TextSink;

SQL_FUNCTION(uncache_invalidate);
SQL_FUNCTION(uncache_invalidate_columns);

/*
 * --------------------------------------------------------------------------
 * What an UPDATE has changed
 * --------------------------------------------------------------------------
 */

/*
 * Values are compared byte by byte and not with the type's "=", to which different texts
 * may be equal (citext, numeric).  Two values that differ only in how they are stored,
 * compressed or in the TOAST table, are the same.
 */

/*
 * Whether two values of variable length are stored alike.  For a value in the TOAST table
 * this compares the pointers, so that nothing is fetched for a column that the UPDATE
 * has not touched.
 */
static inline bool
stored_alike(Datum oldvalue, Datum newvalue)
{
	Pointer		old = DatumGetPointer(oldvalue);
	Pointer		new = DatumGetPointer(newvalue);
	Size		size = VARSIZE_ANY(old);

	return size == VARSIZE_ANY(new) && memcmp(old, new, size) == 0;
}

static inline bool
column_differs(TupleTableSlot *oldslot, TupleTableSlot *newslot, AttrNumber column)
{
	Form_pg_attribute att;
	Datum		oldvalue;
	Datum		newvalue;
	bool		oldnull;
	bool		newnull;

	if (column == TableOidAttributeNumber)
		return false;			/* moving to another table is a DELETE and an INSERT */
	oldvalue = slot_getattr(oldslot, column, &oldnull);
	newvalue = slot_getattr(newslot, column, &newnull);
	if (oldnull || newnull)
		return oldnull != newnull;

	att = TupleDescAttr(oldslot->tts_tupleDescriptor, column - 1);
	if (att->attbyval)
		return oldvalue != newvalue;
	if (att->attlen == -1 && stored_alike(oldvalue, newvalue))
		return false;
	return !datum_image_eq(oldvalue, newvalue, false, att->attlen);
}

static bool
columns_differ(TupleTableSlot *oldslot, TupleTableSlot *newslot,
			   const AttrNumber *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		if (column_differs(oldslot, newslot, columns[i]))
			return true;
	}
	return false;
}

/* Whether two tuples are equal but for the transactional part of their heads. */
static inline bool
same_bytes(HeapTuple oldtuple, HeapTuple newtuple)
{
	HeapTupleHeader old = oldtuple->t_data;
	HeapTupleHeader new = newtuple->t_data;

	return oldtuple->t_len == newtuple->t_len &&
		old->t_hoff == new->t_hoff &&
		HeapTupleHeaderGetNatts(old) == HeapTupleHeaderGetNatts(new) &&
		(old->t_infomask & ~HEAP_XACT_MASK) == (new->t_infomask & ~HEAP_XACT_MASK) &&
		memcmp((char *) old + SizeofHeapTupleHeader,
			   (char *) new + SizeofHeapTupleHeader,
			   oldtuple->t_len - SizeofHeapTupleHeader) == 0;
}

/* Whether a column differs, of those with values of fixed length, or of all others. */
static inline bool
any_differs(TupleTableSlot *oldslot, TupleTableSlot *newslot, bool fixed_length)
{
	TupleDesc	desc = oldslot->tts_tupleDescriptor;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && (att->attlen > 0) == fixed_length &&
			column_differs(oldslot, newslot, i + 1))
			return true;
	}
	return false;
}

static bool
row_is_same(HeapTuple oldtuple, HeapTuple newtuple,
			TupleTableSlot *oldslot, TupleTableSlot *newslot)
{
	if (same_bytes(oldtuple, newtuple))
		return true;

	/* Columns whose values may have to be fetched from the TOAST table come last. */
	return !any_differs(oldslot, newslot, true) &&
		!any_differs(oldslot, newslot, false);
}

/*
 * --------------------------------------------------------------------------
 * Rows
 * --------------------------------------------------------------------------
 */

static void
add_to_pending(KeySink *sink, const char *key, size_t len)
{
	PendingSink *pending = (PendingSink *) sink;

	if (!pending_set_add(INVALIDATION_KEY, pending->rule, key, len))
		return;
	*pending->bytes += len;
	size_limit_check_row(pending->rule, *pending->bytes);
}

static void
add_to_text(KeySink *sink, const char *key, size_t len)
{
	TextSink   *gathered = (TextSink *) sink;

	/* The null byte keeps {ab, c} and {a, bc} apart. */
	appendBinaryStringInfo(&gathered->text, key, len);
	appendStringInfoChar(&gathered->text, '\0');
	size_limit_check_row(gathered->rule, gathered->text.len);
}

static void
record_row(Rule *rule, TupleTableSlot *slot)
{
	uint64		bytes = 0;
	PendingSink sink = {{add_to_pending, 0}, rule->topmost, &bytes};

	for (int i = 0; i < rule->ntemplates; i++)
		template_render(rule->templates[i], slot, &sink.sink);
}

/* Record the keys of both versions; where a template's columns are equal, one will do. */
static void
record_both(Rule *rule, TupleTableSlot *oldslot, TupleTableSlot *newslot)
{
	uint64		bytes = 0;
	PendingSink oldsink = {{add_to_pending, 0}, rule->topmost, &bytes};
	PendingSink newsink = {{add_to_pending, 0}, rule->topmost, &bytes};

	Assert(OidIsValid(rule->topmost));
	for (int i = 0; i < rule->ntemplates; i++)
	{
		Template   *template = rule->templates[i];

		if (template->ncolumns < 0 ||
			columns_differ(oldslot, newslot, template->columns, template->ncolumns))
			template_render(template, oldslot, &oldsink.sink);
		template_render(template, newslot, &newsink.sink);
	}
}

/* Whether a template gives other keys for the new row than for the old one. */
static bool
keys_differ(Rule *rule, TupleTableSlot *oldslot, TupleTableSlot *newslot)
{
	TextSink	oldkeys = {{add_to_text, 0}, rule->topmost};
	TextSink	newkeys = {{add_to_text, 0}, rule->topmost};

	initStringInfo(&oldkeys.text);
	initStringInfo(&newkeys.text);
	for (int i = 0; i < rule->ntemplates; i++)
	{
		Template   *template = rule->templates[i];

		if (template->ncolumns >= 0 &&
			!columns_differ(oldslot, newslot, template->columns, template->ncolumns))
			continue;
		template_render(template, oldslot, &oldkeys.sink);
		template_render(template, newslot, &newkeys.sink);
		if (oldkeys.text.len != newkeys.text.len ||
			memcmp(oldkeys.text.data, newkeys.text.data, oldkeys.text.len) != 0)
			return true;
	}
	return false;
}

static void
record_update(Rule *rule, TriggerData *trigdata)
{
	TupleTableSlot *oldslot = trigdata->tg_trigslot;
	TupleTableSlot *newslot = trigdata->tg_newslot;

	Assert(!TupIsNull(oldslot) && !TupIsNull(newslot));
	if (rule->ncolumns > 0 &&
		!columns_differ(oldslot, newslot, rule->columns, rule->ncolumns) &&
		!keys_differ(rule, oldslot, newslot))
		return;
	record_both(rule, oldslot, newslot);
}

static void
record_event(Rule *rule, TriggerData *trigdata)
{
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		record_update(rule, trigdata);
	else
		record_row(rule, trigdata->tg_trigslot);
}

/*
 * A function in a template that queries sees the rows of the statement that fired the
 * trigger, as it would in a trigger written in PL/pgSQL.
 */
static void
record_with_snapshot(Rule *rule, TriggerData *trigdata)
{
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	record_event(rule, trigdata);
	PopActiveSnapshot();
}

static void
record_in_environment(Rule *rule, TriggerData *trigdata)
{
	int			nest_level = rule->settings ? render_settings_begin(rule->settings) : 0;

	Assert(rule->ntemplates > 0);

	if (rule->queries)
		record_with_snapshot(rule, trigdata);
	else
		record_event(rule, trigdata);
	if (rule->settings)
		render_settings_end(nest_level);
}

static void
invalidate_row(TriggerData *trigdata, bool by_columns)
{
	Trigger    *trigger = trigdata->tg_trigger;
	Rule	   *rule;

	/* Before the rule is looked up: an UPDATE that changes nothing needs none. */
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) &&
		row_is_same(trigdata->tg_trigtuple, trigdata->tg_newtuple,
					trigdata->tg_trigslot, trigdata->tg_newslot))
		return;

	rule = rule_acquire(trigdata->tg_relation, trigger->tgoid, by_columns,
						trigger->tgnargs, trigger->tgargs);
	if (!rule_may_reenter(rule))
	{
		record_in_environment(rule, trigdata);
		rule_release(rule);
		return;
	}
	PG_TRY();
	{
		record_in_environment(rule, trigdata);
	}
	PG_FINALLY();
	{
		rule_release(rule);
	}
	PG_END_TRY();
}

/*
 * --------------------------------------------------------------------------
 * TRUNCATE
 * --------------------------------------------------------------------------
 */

static void
invalidate_truncated(TriggerData *trigdata, bool by_columns)
{
	Relation	rel = trigdata->tg_relation;
	Trigger    *trigger = trigdata->tg_trigger;
	Rule	   *rule;

	if (setting_on_truncate == ON_TRUNCATE_IGNORE)
		return;
	if (setting_on_truncate == ON_TRUNCATE_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("Its rule \"%s\" deletes keys, and uncache.on_truncate is \"error\".",
						   trigger->tgname),
				 errhint("Use DELETE, which deletes the keys of each row, or set "
						 "uncache.on_truncate to \"pattern\" or \"ignore\".")));

	rule = rule_acquire(rel, trigger->tgoid, by_columns,
						trigger->tgnargs, trigger->tgargs);
	PG_TRY();
	{
		rule_flush_rule(rule, WARNING);
	}
	PG_FINALLY();
	{
		rule_release(rule);
	}
	PG_END_TRY();
}

/*
 * --------------------------------------------------------------------------
 * Entry
 * --------------------------------------------------------------------------
 */

static void
check_protocol(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("uncache.%s() must be called as a trigger", function)));
	if (!TRIGGER_FIRED_AFTER(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("uncache.%s() must be called after the event", function),
				 errhint("Create the trigger with AFTER.")));
	if (!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) &&
		!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("uncache.%s() must be called for each row", function),
				 errhint("Create the trigger with FOR EACH ROW.")));
}

static Datum
invalidate(FunctionCallInfo fcinfo, bool by_columns)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	check_protocol(fcinfo, by_columns ? "invalidate_columns" : "invalidate");
	if (!setting_enabled)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		invalidate_truncated(trigdata, by_columns);
	else
		invalidate_row(trigdata, by_columns);
	return PointerGetDatum(NULL);
}

Datum
uncache_invalidate(PG_FUNCTION_ARGS)
{
	return invalidate(fcinfo, false);
}

Datum
uncache_invalidate_columns(PG_FUNCTION_ARGS)
{
	return invalidate(fcinfo, true);
}
