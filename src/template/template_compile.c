/*
 * template_compile.c
 *	  Binding a template's expressions to a table.
 *
 * An expression is parsed and planned as PostgreSQL does it for a CHECK constraint or an
 * index, under the fixed settings (render_settings.c), and can then be evaluated for a row
 * of the table.  A bare column needs no expression: rendering reads it from the row.
 *
 * Planning calls functions of the template to compute what is constant.  So only code that
 * runs with the rights of the user who changes a row, or who gives the text of the template
 * himself, may compile.  All other code inspects (template_inspect.c).
 *
 * After an ERROR the caller's memory context frees everything.  The caller holds a lock on
 * the table, and compiles again when the table, a type or a function has changed.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "template/template_int.h"

/*
 * --------------------------------------------------------------------------
 * Errors
 * --------------------------------------------------------------------------
 */

/* A hint for the author of the expression: PostgreSQL's own knows nothing of templates. */
static char *
hint_at_expression(const ErrorData *edata, const Compiler *compiler)
{
	const char *column = compiler->segment == NULL ? NULL :
		template_unquoted_column(compiler->rel, compiler->segment);
	const char *schemas = _("The search_path of a template is pg_catalog: give other objects with "
							"their schema.");

	if (edata->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
		edata->sqlerrcode == ERRCODE_UNDEFINED_OBJECT)
		return edata->hint == NULL ? pstrdup(schemas) : psprintf("%s %s", edata->hint, schemas);
	if (edata->sqlerrcode == ERRCODE_SYNTAX_ERROR && column != NULL)
		return psprintf(_("Put the column's name in double quotes: {\"%s\"}."), column);
	if (edata->sqlerrcode == ERRCODE_UNDEFINED_TABLE && edata->cursorpos > 0)
		return pstrdup(_("A template names columns of its own table only, without NEW, OLD or an "
						 "alias: {id}."));
	if (edata->hint == NULL && edata->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE)
		return pstrdup(_("Write an SQL expression over the table's columns between the braces, "
						 "such as {id} or {lower(email)}."));
	return edata->hint;
}

/*
 * Add template, table and position to an error that any code has raised.  The error's own
 * cursor position is relative to the expression; a client would take it for a position in
 * its statement, so it is removed.
 */
static void
complete_error(ErrorData *edata, Compiler *compiler)
{
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
	int			position = compiler->position;
	char	   *where;

	Assert(position >= 1);

	/* Errors of these categories do not come from the template. */
	if (category == ERRCODE_OPERATOR_INTERVENTION ||
		category == ERRCODE_INSUFFICIENT_RESOURCES ||
		category == ERRCODE_SYSTEM_ERROR ||
		category == ERRCODE_INTERNAL_ERROR)
		return;

	if (compiler->segment != NULL && edata->cursorpos > 0)
		position += edata->cursorpos - 1;
	where = psprintf(_("Template \"%s\" of table \"%s\", position %d."),
					 template_shown(compiler->template->text), compiler->template->relation,
					 position);
	edata->detail = edata->detail == NULL ? where :
		psprintf("%s\n%s", where, edata->detail);
	edata->hint = hint_at_expression(edata, compiler);
	edata->cursorpos = 0;
}

/*
 * --------------------------------------------------------------------------
 * Compiling
 * --------------------------------------------------------------------------
 */

/* How values of a type, which is no array, become text. */
static ValueForm
form_of_type(Oid type)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return FORM_TEXT;
		case INT2OID:
			return FORM_INT2;
		case INT4OID:
			return FORM_INT4;
		case INT8OID:
			return FORM_INT8;
		case OIDOID:
			return FORM_OID;
		case BOOLOID:
			return FORM_BOOL;
		case UUIDOID:
			return FORM_UUID;
		default:
			return FORM_OUTPUT;
	}
}

/* Set how values of the expression's type become text. */
static void
compile_output(Template *template, Segment *segment, Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_element_type(base);
	Oid			output;
	bool		is_varlena;

	if (OidIsValid(element))
	{
		segment->element = element;
		get_typlenbyvalalign(element, &segment->element_len,
							 &segment->element_byval, &segment->element_align);
		base = getBaseType(element);
	}
	segment->form = OidIsValid(element) ? FORM_ARRAY : form_of_type(base);

	getTypeOutputInfo(base, &output, &is_varlena);
	fmgr_info(output, &segment->output);
	template->settings |= template_output_settings(base);
	if (segment->form == FORM_ARRAY || segment->form == FORM_OUTPUT)
		template->simple = false;
}

static void
compile_planned(Template *template, Segment *segment, Expr *planned)
{
	if (IsA(planned, Var) && ((Var *) planned)->varattno != 0)
	{
		segment->column = ((Var *) planned)->varattno;
		return;
	}
	Assert(segment->column == 0);
	segment->expr_context = CurrentMemoryContext;
	segment->expr = ExecInitExpr(copyObject(planned), NULL);
	template->simple = false;
	template->settings |= template_expr_settings((Node *) planned);
	if (contain_mutable_functions((Node *) planned))
		template->queries = true;
}

/* The caller resets "scratch", which holds the memory of parsing and planning. */
static void
compile_segment(Compiler *compiler, Segment *segment, MemoryContext scratch)
{
	MemoryContext lasting = MemoryContextSwitchTo(scratch);
	Bitmapset  *columns = NULL;
	Node	   *expr;
	Expr	   *planned;

	compiler->position = segment->position;
	compiler->segment = segment;
	expr = template_transform(compiler, segment);
	pull_varattnos(expr, 1, &columns);
	template_check_columns(compiler, columns);
	planned = compiler->inspect ? (Expr *) template_add_defaults(expr) :
		expression_planner((Expr *) expr);

	/* Planning has filled in defaults of arguments, which may be volatile. */
	template_check_volatile((Node *) planned);

	MemoryContextSwitchTo(lasting);
	compiler->columns = bms_add_members(compiler->columns, columns);
	compile_output(compiler->template, segment, exprType((Node *) planned));
	template_choose_class(segment, expr);
	Assert((segment->key_class != NULL) + OidIsValid(segment->key_enum) +
		   (segment->constant != NULL) == 1);
	if (!compiler->inspect)
		compile_planned(compiler->template, segment, planned);
}

static void
collect_columns(Template *template, const Bitmapset *columns)
{
	int			i = -1;

	Assert(template->ncolumns == 0);
	template->constant = bms_is_empty(columns);
	template->columns = palloc(sizeof(AttrNumber) * (bms_num_members(columns) + 1));
	while ((i = bms_next_member(columns, i)) >= 0)
		template->columns[template->ncolumns++] = i + FirstLowInvalidHeapAttributeNumber;
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns))
		template->ncolumns = -1;
}

static void
compile_segments(Compiler *compiler)
{
	Template   *template = compiler->template;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_uncache template being compiled",
												  ALLOCSET_DEFAULT_SIZES);
	int			nest_level;

	template_parse(template, &compiler->position);
	nest_level = render_settings_begin(SETTINGS_ALL);
	for (int i = 0; i < template->nsegments; i++)
	{
		if (!template->segments[i].is_expr)
			continue;
		CHECK_FOR_INTERRUPTS();
		compile_segment(compiler, &template->segments[i], scratch);
		MemoryContextReset(scratch);
	}
	render_settings_end(nest_level);

	/*
	 * Output functions and casts can call functions of users in many ways, so a template that is
	 * not simple counts as calling one.  Being wrong costs little.
	 */
	template->runs_code = !template->simple;
	collect_columns(template, compiler->columns);
	MemoryContextDelete(scratch);
}

static Template *
compile(const char *text, Relation rel, const char *alias, bool inspect)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback *callers = error_context_stack;
	Compiler	compiler = {0};

	compiler.template = palloc0(sizeof(Template));
	compiler.template->text = pstrdup(text);
	compiler.template->relation = pstrdup(RelationGetRelationName(rel));
	compiler.template->simple = true;
	compiler.rel = rel;
	compiler.position = 1;
	compiler.inspect = inspect;
	if (alias != NULL && strcmp(alias, RelationGetRelationName(rel)) != 0)
		compiler.alias = makeAlias(alias, NIL);

	PG_TRY();
	{
		/*
		 * Error-context callbacks are off here: a caller's callback (PL/pgSQL has one) would
		 * take the error's position for one in its own text.  They run when the completed error
		 * is thrown again.
		 */
		error_context_stack = NULL;
		compile_segments(&compiler);
		error_context_stack = callers;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		complete_error(edata, &compiler);
		ThrowErrorData(edata);
	}
	PG_END_TRY();

	return compiler.template;
}

Template *
template_compile(const char *text, Relation rel, const char *alias)
{
	return compile(text, rel, alias, false);
}

Template *
template_inspect(const char *text, Relation rel, const char *alias)
{
	return compile(text, rel, alias, true);
}
