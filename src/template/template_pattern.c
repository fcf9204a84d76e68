/*
 * template_pattern.c
 *	  The key pattern of a template (see keypattern.h).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_enum.h"
#include "lib/stringinfo.h"
#include "utils/fmgroids.h"

#include "base/invalidation.h"
#include "template/key_encoding.h"
#include "settings/settings.h"
#include "template/template_int.h"

/*
 * The labels of an enum go into a pattern as long as it is no longer than this: it should
 * fit into one outbox row, and each key that may be meant is compared with all of them.
 */
#define MAX_WITH_LABELS		4096

/* The text that stands there in all keys, or NULL. */
static const char *
fixed_text(const Segment *segment)
{
	return segment->is_expr ? segment->constant : segment->text;
}

static bool
head_is_usable(const Template *template)
{
	int			found = 0;

	for (int i = 0; i < template->nsegments && found < 2; i++)
	{
		const char *text = fixed_text(&template->segments[i]);

		if (text == NULL)
			return false;
		for (; *text; text += pg_mblen(text))
		{
			/* A character beyond ASCII counts as a letter. */
			if (IS_HIGHBIT_SET(*text) || isalnum((unsigned char) *text))
				found++;
		}
	}
	return found >= 2;
}

/* Append literal text, with its braces doubled. */
static void
append_literal(StringInfo to, const char *text)
{
	for (; *text; text++)
	{
		if (*text == '{' || *text == '}')
			appendStringInfoChar(to, *text);
		appendStringInfoChar(to, *text);
	}
}

static void
append_label(StringInfo to, const char *label)
{
	for (; *label; label++)
	{
		if (*label == '|' || *label == '\\' || *label == '}')
			appendStringInfoChar(to, '\\');
		appendStringInfoChar(to, *label);
	}
}

/* The labels that an enum has at this moment; "any" where they are too long. */
static void
append_enum(StringInfo to, Oid type)
{
	Relation	catalog = table_open(EnumRelationId, AccessShareLock);
	int			start = to->len;
	int			count = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(type));
	scan = systable_beginscan(catalog, EnumTypIdLabelIndexId, true, NULL, 1, &key);
	while (to->len <= MAX_WITH_LABELS && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		appendStringInfoString(to, count++ == 0 ? "{=" : "|");
		append_label(to, NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	appendStringInfoChar(to, '}');
	if (count > 0 && to->len <= MAX_WITH_LABELS)
		return;
	to->len = start;
	appendStringInfoString(to, "{any}");
}

static void
append_segment(StringInfo to, const Segment *segment)
{
	if (fixed_text(segment) != NULL)
		append_literal(to, fixed_text(segment));
	else if (OidIsValid(segment->key_enum))
		append_enum(to, segment->key_enum);
	else
		appendStringInfo(to, "{%s}", segment->key_class);
}

char *
template_full_keypattern(const Template *template)
{
	StringInfoData text;
	char	   *utf8;

	initStringInfo(&text);
	append_literal(&text, setting_key_prefix ? setting_key_prefix : "");
	for (int i = 0; i < template->nsegments; i++)
		append_segment(&text, &template->segments[i]);
	utf8 = key_to_utf8(text.data, text.len);
	if (strlen(utf8) > INVALIDATION_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("template is too long"),
				 errdetail("Template \"%s\" of table \"%s\".",
						   template_shown(template->text), template->relation)));
	return utf8;
}

char *
template_keypattern(const Template *template)
{
	return head_is_usable(template) ? template_full_keypattern(template) : NULL;
}
