/*
 * template_render.c
 *	  Making keys of a row.
 *
 * Most templates are literals and bare columns of a few types ("simple").  Their values are
 * written straight into the key buffer, and no memory is allocated.  For other templates
 * this file first turns all values into text, and then puts keys together.  This order
 * matters: evaluating may run a function that writes to another table with rules, which
 * renders while the first rendering is under way, and there is only one key buffer.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/invalidation.h"
#include "settings/settings.h"
#include "template/key_encoding.h"
#include "template/template_int.h"

/* Room for a number: a minus sign, 19 digits, a null byte. */
#define NUMBER_ROOM		24

/* The key being put together.  The buffer grows to the session's longest key. */
static char *buffer;
static uint32 buffer_size;
static uint32 buffer_used;

/* The texts of a segment for this row: one, or one for each element of an array. */
typedef struct Texts
{
	int			count;
	char	  **text;
} Texts;

/*
 * --------------------------------------------------------------------------
 * The key buffer
 * --------------------------------------------------------------------------
 */

static void
raise_key_too_long(const Template *template)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("key is longer than %d bytes", INVALIDATION_MAX_BYTES),
			 errdetail("Template \"%s\" of table \"%s\".",
					   template_shown(template->text), template->relation),
			 errhint("Put a hash of the long value into the template, such as {md5(column)}.")));
}

/* Make room for so many more bytes. */
static inline void
buffer_reserve(const Template *template, Size more)
{
	Size		need = buffer_used + more;

	Assert(buffer_used <= buffer_size);
	if (likely(need <= buffer_size))
		return;
	if (more > INVALIDATION_MAX_BYTES + NUMBER_ROOM ||
		buffer_used > INVALIDATION_MAX_BYTES)
		raise_key_too_long(template);
	need = Max(need * 2, 1024);
	buffer = buffer == NULL ? MemoryContextAlloc(TopMemoryContext, need) :
		repalloc(buffer, need);
	buffer_size = need;
	Assert(buffer_used + more <= buffer_size);
}

static inline void
buffer_append(const Template *template, const char *bytes, Size len)
{
	buffer_reserve(template, len);
	memcpy(buffer + buffer_used, bytes, len);
	buffer_used += len;
}

static void
buffer_begin(const Template *template)
{
	buffer_used = 0;
	if (setting_key_prefix != NULL && setting_key_prefix[0] != '\0')
		buffer_append(template, setting_key_prefix, strlen(setting_key_prefix));
}

static void
buffer_emit(const Template *template, KeySink *sink)
{
	char	   *key = buffer;
	uint32		len = buffer_used;

	if (++sink->nkeys > TEMPLATE_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row gives more than %d keys", TEMPLATE_MAX_KEYS),
				 errdetail("Template \"%s\" of table \"%s\".",
						   template_shown(template->text), template->relation),
				 errhint("Use shorter arrays, or fewer of them in one template.")));

	key = key_to_utf8(buffer, buffer_used);
	if (key != buffer)
		len = strlen(key);
	if (unlikely(len > INVALIDATION_MAX_BYTES))
		raise_key_too_long(template);
	sink->emit(sink, key, len);
}

/*
 * --------------------------------------------------------------------------
 * Simple templates
 * --------------------------------------------------------------------------
 */

static inline Datum
column_value(const Segment *segment, TupleTableSlot *slot, bool *isnull)
{
	if (unlikely(segment->column == TableOidAttributeNumber))
	{
		*isnull = !OidIsValid(slot->tts_tableOid);
		return ObjectIdGetDatum(slot->tts_tableOid);
	}
	return slot_getattr(slot, segment->column, isnull);
}

static void
append_uuid(const Template *template, const pg_uuid_t *uuid)
{
	static const char digits[] = "0123456789abcdef";
	char	   *to;

	buffer_reserve(template, 2 * UUID_LEN + 4);
	to = buffer + buffer_used;
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = digits[uuid->data[i] >> 4];
		*to++ = digits[uuid->data[i] & 0x0F];
	}
	buffer_used = to - buffer;
}

static void
append_text(const Template *template, Datum value)
{
	struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

	buffer_append(template, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
	if ((Pointer) text != DatumGetPointer(value))
		pfree(text);
}

static void
append_value(const Template *template, ValueForm form, Datum value)
{
	switch (form)
	{
		case FORM_TEXT:
			append_text(template, value);
			return;
		case FORM_UUID:
			append_uuid(template, DatumGetUUIDP(value));
			return;
		case FORM_BOOL:
			buffer_append(template, DatumGetBool(value) ? "t" : "f", 1);
			return;
		case FORM_INT2:
			buffer_reserve(template, NUMBER_ROOM);
			buffer_used += pg_ltoa(DatumGetInt16(value), buffer + buffer_used);
			return;
		case FORM_INT4:
			buffer_reserve(template, NUMBER_ROOM);
			buffer_used += pg_ltoa(DatumGetInt32(value), buffer + buffer_used);
			return;
		case FORM_INT8:
			buffer_reserve(template, NUMBER_ROOM);
			buffer_used += pg_lltoa(DatumGetInt64(value), buffer + buffer_used);
			return;
		case FORM_OID:
			buffer_reserve(template, NUMBER_ROOM);
			buffer_used += pg_ultoa_n(DatumGetObjectId(value), buffer + buffer_used);
			return;
		case FORM_OUTPUT:
		case FORM_ARRAY:
			break;
	}
	elog(ERROR, "value of form %d is not simple", (int) form);
}

static void
render_simple(const Template *template, TupleTableSlot *slot, KeySink *sink)
{
	buffer_begin(template);
	for (int i = 0; i < template->nsegments; i++)
	{
		const Segment *segment = &template->segments[i];
		Datum		value;
		bool		isnull;

		if (!segment->is_expr)
		{
			buffer_append(template, segment->text, segment->len);
			continue;
		}
		Assert(segment->expr == NULL && segment->column != 0);
		value = column_value(segment, slot, &isnull);
		if (isnull)
			return;
		append_value(template, segment->form, value);
	}
	buffer_emit(template, sink);
}

/*
 * --------------------------------------------------------------------------
 * Templates with expressions or arrays
 * --------------------------------------------------------------------------
 */

/*
 * The value of a segment for a row.  The ExprContext is made by hand for every row: memory
 * of the evaluation belongs to the row (CurrentMemoryContext), but what the expression keeps
 * for the next row belongs to the template (expr_context).
 */
static Datum
segment_value(const Segment *segment, TupleTableSlot *slot, bool *isnull)
{
	ExprContext econtext = {0};

	if (segment->expr == NULL)
		return column_value(segment, slot, isnull);

	econtext.type = T_ExprContext;
	econtext.ecxt_scantuple = slot;
	econtext.ecxt_per_query_memory = segment->expr_context;
	econtext.ecxt_per_tuple_memory = CurrentMemoryContext;
	econtext.caseValue_isNull = true;
	econtext.domainValue_isNull = true;
	return ExecEvalExpr(segment->expr, &econtext, isnull);
}

static void
array_texts(Segment *segment, Datum value, Texts *texts)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	Assert(segment->form == FORM_ARRAY);
	deconstruct_array(array, segment->element, segment->element_len,
					  segment->element_byval, segment->element_align,
					  &elements, &nulls, &count);
	/* One text more than the limit is enough for the ERROR of buffer_emit(). */
	texts->text = palloc(sizeof(char *) * Max(Min(count, TEMPLATE_MAX_KEYS + 1), 1));
	texts->count = 0;
	for (int i = 0; i < count && texts->count <= TEMPLATE_MAX_KEYS; i++)
	{
		if (!nulls[i])
			texts->text[texts->count++] = OutputFunctionCall(&segment->output, elements[i]);
	}
}

/* Evaluate all expressions; false if a NULL or an empty array means that there is no key. */
static bool
evaluate(Template *template, TupleTableSlot *slot, Texts *texts)
{
	for (int i = 0; i < template->nsegments; i++)
	{
		Segment    *segment = &template->segments[i];
		Datum		value;
		bool		isnull;

		texts[i].count = 1;
		texts[i].text = &segment->text;
		if (!segment->is_expr)
			continue;

		value = segment_value(segment, slot, &isnull);
		if (isnull)
			return false;
		if (segment->form == FORM_ARRAY)
			array_texts(segment, value, &texts[i]);
		else
		{
			texts[i].text = palloc(sizeof(char *));
			texts[i].text[0] = OutputFunctionCall(&segment->output, value);
		}
		if (texts[i].count == 0)
			return false;
	}
	return true;
}

/* Emit a key for every combination of texts; the last array changes fastest. */
static void
emit_combinations(const Template *template, const Texts *texts, KeySink *sink)
{
	int		   *at = palloc0(sizeof(int) * template->nsegments);
	int			i;

	do
	{
		CHECK_FOR_INTERRUPTS();
		buffer_begin(template);
		for (i = 0; i < template->nsegments; i++)
		{
			Assert(at[i] < texts[i].count);
			buffer_append(template, texts[i].text[at[i]], strlen(texts[i].text[at[i]]));
		}
		buffer_emit(template, sink);

		for (i = template->nsegments - 1; i >= 0; i--)
		{
			if (++at[i] < texts[i].count)
				break;
			at[i] = 0;
		}
	} while (i >= 0);
}

/* Error-context callback: name the template in errors of its expressions. */
static void
name_template(void *arg)
{
	const Template *template = arg;

	errcontext("template \"%s\" of table \"%s\"",
			   template_shown(template->text), template->relation);
}

void
template_render(Template *template, TupleTableSlot *slot, KeySink *sink)
{
	ErrorContextCallback callback = {error_context_stack, name_template, template};
	Texts	   *texts;

	Assert(sink->emit != NULL);
	if (template->simple)
	{
		render_simple(template, slot, sink);
		return;
	}
	error_context_stack = &callback;
	texts = palloc(sizeof(Texts) * template->nsegments);
	if (evaluate(template, slot, texts))
		emit_combinations(template, texts, sink);
	error_context_stack = callback.previous;
}
