/*
 * render_function.c
 *	  uncache.render(): the keys that a template yields for a row.
 *
 * The compiled template is kept in fn_extra from row to row of a query, and replaced when
 * the template or the row's type is another one, or the type has changed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "template/key_encoding.h"
#include "template/template.h"

typedef struct RenderState
{
	MemoryContext context;		/* holds all of this */
	Oid			type;			/* of the row */
	uint64		identifier;		/* of the type's version: it changes with the type */
	Oid			relation;		/* whose row type it is */
	Template   *template;
	TupleTableSlot *slot;
} RenderState;

/* A KeySink that gathers keys into an array. */
typedef struct ArraySink
{
	KeySink		sink;
	ArrayBuildState *keys;
} ArraySink;

SQL_FUNCTION(uncache_render);

static void
add_to_array(KeySink *sink, const char *key, size_t len)
{
	ArraySink  *array = (ArraySink *) sink;
	char	   *text = pnstrdup(key, len);

	text = key_from_utf8(text, len);
	Assert(sink->emit == add_to_array);
	array->keys = accumArrayResult(array->keys, CStringGetTextDatum(text), false,
								   TEXTOID, CurrentMemoryContext);
}

/* The table whose row type this is; an ERROR if it is none. */
static Oid
table_of_type(Oid type)
{
	Oid			relation = InvalidOid;

	if (type != RECORDOID && type_is_rowtype(type))
		relation = get_typ_typrelid(type);
	if (!OidIsValid(relation))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("cannot render a value of type %s", format_type_be(type)),
				 errhint("Give a row of a table: "
						 "SELECT uncache.render('user:{id}', u) FROM users u.")));
	return relation;
}

/* Refuse tableoid if the row may come from another table: a row does not say from which. */
static void
check_tableoid(const Template *template, Relation rel)
{
	for (int i = 0; i < template->ncolumns; i++)
	{
		if (template->columns[i] == TableOidAttributeNumber &&
			(rel->rd_rel->relkind != RELKIND_RELATION || has_subclass(RelationGetRelid(rel))))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot render tableoid of a row of \"%s\"",
							RelationGetRelationName(rel)),
					 errdetail("The row may come from any table below it."),
					 errhint("Render rows of that table instead.")));
	}
}

static RenderState *
make_state(FunctionCallInfo fcinfo, const char *text, Oid type, uint64 identifier)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_uncache render", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RenderState *state = palloc0(sizeof(RenderState));
	Relation	rel;
	TupleDesc	desc;

	state->context = context;
	state->type = type;
	state->identifier = identifier;
	state->relation = table_of_type(type);

	rel = relation_open(state->relation, AccessShareLock);
	state->template = template_compile(text, rel, NULL);
	check_tableoid(state->template, rel);
	relation_close(rel, AccessShareLock);

	desc = lookup_rowtype_tupdesc_copy(type, -1);
	state->slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	MemoryContextSwitchTo(old);

	if (fcinfo->flinfo->fn_extra != NULL)
		MemoryContextDelete(((RenderState *) fcinfo->flinfo->fn_extra)->context);
	MemoryContextSetParent(context, fcinfo->flinfo->fn_mcxt);
	fcinfo->flinfo->fn_extra = state;
	return state;
}

static RenderState *
get_state(FunctionCallInfo fcinfo, Oid row_type)
{
	RenderState *state = fcinfo->flinfo->fn_extra;
	char	   *template = TextDatumGetCString(PG_GETARG_DATUM(0));
	Oid			type = getBaseType(row_type);
	uint64		identifier;

	(void) table_of_type(type);
	identifier = assign_record_type_identifier(type, -1);
	if (state != NULL && state->type == type && state->identifier == identifier &&
		strcmp(state->template->text, template) == 0)
		return state;
	return make_state(fcinfo, template, type, identifier);
}

static void
render_row(RenderState *state, Datum row, ArraySink *array)
{
	int			nest_level = 0;

	ExecStoreHeapTupleDatum(row, state->slot);
	state->slot->tts_tableOid = state->relation;

	if (state->template->settings)
		nest_level = render_settings_begin(state->template->settings);
	template_render(state->template, state->slot, &array->sink);
	if (state->template->settings)
		render_settings_end(nest_level);
	ExecClearTuple(state->slot);
}

/* render(template text, row anyelement) returns text[]; strict */
Datum
uncache_render(PG_FUNCTION_ARGS)
{
	ArraySink	array = {{add_to_array, 0}, NULL};
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);
	Datum		row;

	if (!type_is_rowtype(type))
		(void) table_of_type(type);
	row = PointerGetDatum(PG_DETOAST_DATUM(PG_GETARG_DATUM(1)));
	type = HeapTupleHeaderGetTypeId((HeapTupleHeader) DatumGetPointer(row));
	render_row(get_state(fcinfo, type), row, &array);

	if (array.keys == NULL)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	PG_RETURN_DATUM(makeArrayResult(array.keys, CurrentMemoryContext));
}
