/*
 * template_pattern.c
 *	  The key pattern of a template (see keypattern.h).
 */
#include "postgres.h"

#include "item.h"
#include "keytext.h"
#include "settings.h"
#include "template_int.h"

static bool
head_is_usable(const Template *template)
{
	const Segment *head = &template->segments[0];
	int			found = 0;

	if (head->is_expr)
		return false;
	for (int i = 0; i < head->len;)
	{
		/* A character beyond ASCII counts as a letter. */
		if (IS_HIGHBIT_SET(head->text[i]) || isalnum((unsigned char) head->text[i]))
			found++;
		i += pg_mblen(head->text + i);
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

char *
template_keypattern(const Template *template)
{
	StringInfoData text;

	if (!head_is_usable(template))
		return NULL;

	initStringInfo(&text);
	append_literal(&text, setting_key_prefix ? setting_key_prefix : "");
	for (int i = 0; i < template->nsegments; i++)
	{
		const Segment *segment = &template->segments[i];

		if (segment->is_expr)
			appendStringInfo(&text, "{%s}", segment->key_class);
		else
			append_literal(&text, segment->text);
	}
	if (text.len > ITEM_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("template is too long"),
				 errdetail("Template \"%.100s...\" of table \"%s\".",
						   template->text, template->relation)));
	return key_to_utf8(text.data, text.len);
}
