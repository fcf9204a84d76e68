/*
 * template_keypattern.c
 *	  The key pattern of a template (keypattern.h): literal text, and for each expression
 *	  the class of its values, or the text that they all have.
 *
 * The class follows from the type, and from the few functions that say more about their
 * results.  It is taken from the expression before planning, so that compiling and
 * inspecting give the same key pattern.  A class must match every text that rendering can
 * give: if that is not certain, it is "any".
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "base/invalidation.h"
#include "settings/settings.h"
#include "template/key_encoding.h"
#include "template/template_int.h"

/*
 * --------------------------------------------------------------------------
 * The class of an expression
 * --------------------------------------------------------------------------
 */

/*
 * The class of a built-in type, whose output function belongs to PostgreSQL; NULL for any
 * other type, since its values may be any text.
 */
static const char *
class_by_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return "boolean";
		case INT2OID:
			return "integer -32768 32767";
		case INT4OID:
			return "integer -2147483648 2147483647";
		case INT8OID:
			return "integer";
		case OIDOID:
		case XIDOID:
		case CIDOID:
			return "integer 0 4294967295";
		case XID8OID:
			return "numeric";
		case FLOAT4OID:
		case FLOAT8OID:
			return "float";
		case CASHOID:
			return "money";
		case UUIDOID:
			return "uuid";
		case DATEOID:
			return "date";
		case TIMEOID:
			return "time";
		case TIMETZOID:
			return "timetz";
		case TIMESTAMPOID:
			return "timestamp";
		case TIMESTAMPTZOID:
			return "timestamptz";
		case INETOID:
			return "inet";
		case CIDROID:
			return "cidr";
		case MACADDROID:
			return "macaddr";
		case MACADDR8OID:
			return "macaddr8";
		case BYTEAOID:
			return "bytea";
		case BITOID:
		case VARBITOID:
			return "bits";
		case JSONBOID:
			return "json";
		default:
			return NULL;
	}
}

/* numeric(p,s), unpacked from a type modifier as numeric.c does it; s may be negative. */
static char *
class_of_numeric(int32 typmod)
{
	int			precision;
	int			scale;

	if (typmod < (int32) VARHDRSZ)
		return pstrdup("numeric");
	precision = ((typmod - VARHDRSZ) >> 16) & 0xFFFF;
	scale = (((typmod - VARHDRSZ) & 0x7FF) ^ 1024) - 1024;
	return psprintf("decimal %d %d", Max(precision - scale, 1), Max(scale, 0));
}

/* The class of a type that has no class of its own. */
static char *
class_by_sort(Oid type)
{
	switch (get_typtype(type))
	{
		case TYPTYPE_RANGE:
			return pstrdup("range");
		case TYPTYPE_MULTIRANGE:
			return pstrdup("multirange");
		case TYPTYPE_COMPOSITE:
			return pstrdup("row");
		default:
			return pstrdup(type == RECORDOID ? "row" : "any");
	}
}

/* The class of a type's values; of an array that of its elements. */
static void
choose_by_type(Segment *segment, Oid type, int32 typmod)
{
	Oid			base = getBaseTypeAndTypmod(type, &typmod);
	Oid			element = get_element_type(base);
	const char *class;

	if (OidIsValid(element))
		base = getBaseTypeAndTypmod(element, &typmod);
	class = class_by_type(base);
	if (class != NULL)
		segment->key_class = pstrdup(class);
	else if (base == NUMERICOID)
		segment->key_class = class_of_numeric(typmod);
	else if (type_is_enum(base))
		segment->key_enum = base;
	else
		segment->key_class = class_by_sort(base);
}

/*
 * The text of a constant, or NULL.  Only for types whose literals always mean the same:
 * 'today' is a constant, too, and means another date tomorrow.
 */
static char *
text_of_constant(const Const *constant)
{
	Oid			output;
	bool		is_varlena;

	if (constant->constisnull)
		return NULL;
	switch (constant->consttype)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case UUIDOID:
			getTypeOutputInfo(constant->consttype, &output, &is_varlena);
			return OidOutputFunctionCall(output, constant->constvalue);
		default:
			return NULL;
	}
}

/* Read a constant whole number, perhaps one that is cast to a larger type. */
static bool
read_integer(Node *node, int64 *value)
{
	while (IsA(node, FuncExpr) &&
		   (((FuncExpr *) node)->funcid == F_INT8_INT4 ||
			((FuncExpr *) node)->funcid == F_INT8_INT2 ||
			((FuncExpr *) node)->funcid == F_INT4_INT2))
		node = linitial(((FuncExpr *) node)->args);
	if (!IsA(node, Const) || ((Const *) node)->constisnull)
		return false;
	switch (((Const *) node)->consttype)
	{
		case INT2OID:
			*value = DatumGetInt16(((Const *) node)->constvalue);
			return true;
		case INT4OID:
			*value = DatumGetInt32(((Const *) node)->constvalue);
			return true;
		case INT8OID:
			*value = DatumGetInt64(((Const *) node)->constvalue);
			return true;
		default:
			return false;
	}
}

/* The class of a function's results, or NULL if only their type is known. */
static char *
class_by_function(Oid function, List *args)
{
	int64		divisor;

	switch (function)
	{
		case F_MD5_TEXT:
		case F_MD5_BYTEA:
			return pstrdup("md5");
		case F_INT2MOD:
		case F_INT4MOD:
		case F_INT8MOD:
		case F_MOD_INT2_INT2:
		case F_MOD_INT4_INT4:
		case F_MOD_INT8_INT8:
			if (!read_integer(lsecond(args), &divisor) || divisor == 0 ||
				divisor == PG_INT64_MIN)
				return NULL;
			divisor = (divisor > 0 ? divisor : -divisor) - 1;
			Assert(divisor >= 0);
			return psprintf("integer " INT64_FORMAT " " INT64_FORMAT, -divisor, divisor);
		default:
			return NULL;
	}
}

/* An expression without a cast to text, which calls the output function of the value's type. */
static Node *
strip_output(Node *expr)
{
	CoerceViaIO *coerce = (CoerceViaIO *) expr;

	if (IsA(expr, CoerceViaIO) &&
		(coerce->resulttype == TEXTOID || coerce->resulttype == VARCHAROID) &&
		!OidIsValid(get_element_type(getBaseType(exprType((Node *) coerce->arg)))))
		return (Node *) coerce->arg;
	return expr;
}

void
template_choose_class(Segment *segment, Node *expr)
{
	Assert(segment->is_expr && segment->key_class == NULL && !OidIsValid(segment->key_enum));
	if (IsA(expr, Const))
		segment->constant = text_of_constant((Const *) expr);
	if (segment->constant != NULL)
		return;
	expr = strip_output(expr);
	if (IsA(expr, FuncExpr))
		segment->key_class = class_by_function(((FuncExpr *) expr)->funcid,
											   ((FuncExpr *) expr)->args);
	else if (IsA(expr, OpExpr))
		segment->key_class = class_by_function(((OpExpr *) expr)->opfuncid,
											   ((OpExpr *) expr)->args);
	if (segment->key_class == NULL)
		choose_by_type(segment, exprType(expr), exprTypmod(expr));
}

/*
 * --------------------------------------------------------------------------
 * The key pattern of a template
 * --------------------------------------------------------------------------
 */

/*
 * A pattern gets the labels of an enum while it is no longer than this many bytes: it should
 * fit into one outbox row, and each key that SCAN finds is compared with all labels.
 */
#define MAX_WITH_LABELS		4096

/* The text that a segment has in all keys, or NULL. */
static const char *
fixed_text(const Segment *segment)
{
	return segment->is_expr ? segment->constant : segment->text;
}

/* True if the template begins with fixed text that holds two letters or digits. */
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

/* Append literal text; a key pattern has its braces doubled. */
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

/* Append an element of a list of texts, with backslashes as keypattern.h says. */
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

/* Append the list of an enum's present labels, or "any" if it is too long. */
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
	{
		Assert(segment->key_class != NULL);
		appendStringInfo(to, "{%s}", segment->key_class);
	}
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
