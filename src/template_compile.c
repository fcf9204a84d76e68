/*
 * template_compile.c
 *	  Binding a template's expressions to a table.
 *
 * An expression is parsed and planned as PostgreSQL does it for a CHECK
 * constraint or an index, under the fixed settings, and is ready to be evaluated
 * over a row of the table.  A bare column gets no expression at all.
 *
 * An ERROR leaves nothing behind that the caller's memory context does not free.
 * Whoever calls keeps a lock on the table, and compiles again when the table, a
 * type or a function has changed.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/heap.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "compat.h"
#include "fixed_settings.h"
#include "template_int.h"

/* A misspelt column is at most this many changes away from the one meant. */
#define MAX_SUGGESTION_DISTANCE	3

typedef struct Compiler
{
	Template   *template;
	Relation	rel;
	Alias	   *alias;			/* NULL: the table's own name */
	Bitmapset  *columns;		/* offset as usual for system columns */
	int			position;		/* of what is being looked at */
	bool		at_expression;	/* error positions count from "position" */
} Compiler;

/*
 * --------------------------------------------------------------------------
 * Errors
 * --------------------------------------------------------------------------
 */

/* The column whose name is most like "name", or NULL. */
static const char *
similar_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char *best = NULL;
	int			best_distance = MAX_SUGGESTION_DISTANCE + 1;
	int			len = strlen(name);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int			distance;

		if (att->attisdropped)
			continue;
		distance = varstr_levenshtein_less_equal(name, len,
												 NameStr(att->attname),
												 strlen(NameStr(att->attname)),
												 1, 1, 1,
												 best_distance, true);

		/* Where more than half would have to change, nothing is alike. */
		if (distance < best_distance && distance <= Max(len / 2, 1))
		{
			best_distance = distance;
			best = NameStr(att->attname);
		}
	}
	return best;
}

static bool
has_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return true;
	}
	return false;
}

/* Whether a name can only be that of a column, perhaps behind the table's name. */
static bool
names_own_column(const Compiler *compiler, const ColumnRef *cref)
{
	const char *table = compiler->alias ? compiler->alias->aliasname :
		RelationGetRelationName(compiler->rel);

	return IsA(llast(cref->fields), String) &&
		(list_length(cref->fields) == 1 ||
		 (list_length(cref->fields) == 2 &&
		  strcmp(strVal(linitial(cref->fields)), table) == 0));
}

/*
 * Called for every name with what PostgreSQL has found for it: say more about
 * unknown columns than PostgreSQL would.
 */
static Node *
check_column(ParseState *pstate, ColumnRef *cref, Node *found)
{
	Compiler   *compiler = pstate->p_ref_hook_state;
	const char *name;
	const char *similar;

	if (found != NULL || !names_own_column(compiler, cref))
		return NULL;
	name = strVal(llast(cref->fields));
	similar = similar_column(compiler->rel, name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist",
					name, compiler->template->relation),
			 similar ? errhint("Perhaps you meant \"%s\".", similar) :
			 errhint("A template names columns of its own table only."),
			 parser_errposition(pstate, cref->location)));
	return NULL;
}

static void
refuse(Compiler *compiler, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a template cannot use %s", what),
			 errhint("Write a function that is STABLE or IMMUTABLE, and call it in the template.")));
}

/*
 * Add to an error, whoever raised it, which template it is about and where.  The
 * cursor position that it may carry would point into some other statement.
 */
static void
complete_error(ErrorData *edata, Compiler *compiler)
{
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
	int			position = compiler->position;
	char	   *where;

	/* Not the template's fault. */
	if (category == ERRCODE_OPERATOR_INTERVENTION ||
		category == ERRCODE_INSUFFICIENT_RESOURCES ||
		category == ERRCODE_SYSTEM_ERROR ||
		category == ERRCODE_INTERNAL_ERROR)
		return;

	if (compiler->at_expression && edata->cursorpos > 0)
		position += edata->cursorpos - 1;
	edata->cursorpos = 0;
	where = psprintf(_("Template \"%s\" of table \"%s\", position %d."),
					 compiler->template->text, compiler->template->relation, position);
	edata->detail = edata->detail == NULL ? where :
		psprintf("%s\n%s", where, edata->detail);
	if (edata->hint == NULL && edata->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE)
		edata->hint = pstrdup(_("Between braces stands an SQL expression over the table's columns, such as {id} or {lower(email)}."));
}

/*
 * --------------------------------------------------------------------------
 * What an expression may be
 * --------------------------------------------------------------------------
 */

static void
check_columns(Compiler *compiler, Bitmapset *columns)
{
	TupleDesc	desc = RelationGetDescr(compiler->rel);
	int			i = -1;

	while ((i = bms_next_member(columns, i)) >= 0)
	{
		AttrNumber	column = i + FirstLowInvalidHeapAttributeNumber;

		if (column < 0 && column != TableOidAttributeNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a template cannot use the system column \"%s\"",
							NameStr(SystemAttributeDefinition(column)->attname)),
					 errhint("Of the system columns only tableoid stays the same while a row lives.")));
		for (int a = 1; a <= desc->natts; a++)
		{
			if ((a == column || column == 0) &&
				attribute_is_virtual(TupleDescAttr(desc, a - 1)))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("a template cannot use the virtual generated column \"%s\"",
								NameStr(TupleDescAttr(desc, a - 1)->attname)),
						 errhint("Write the column's expression into the template, or make the column STORED.")));
		}
	}
}

static void
check_expression(Compiler *compiler, ParseState *pstate, Node *expr)
{
	Oid			function = template_volatile_function(expr);
	Oid			type = exprType(expr);

	if (pstate->p_hasSubLinks)
		refuse(compiler, "a subquery");
	if (pstate->p_hasAggs)
		refuse(compiler, "an aggregate function");
	if (pstate->p_hasWindowFuncs)
		refuse(compiler, "a window function");
	if (expression_returns_set(expr))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a template cannot use a function that returns a set"),
				 errhint("Use a function that returns an array: it gives one key per element.")));
	if (get_typtype(type) == TYPTYPE_PSEUDO && type != RECORDOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("an expression in a template cannot have the pseudo-type %s",
						format_type_be(type))));
	if (OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a template cannot use the volatile function %s()",
						get_func_name(function)),
				 errhint("A key must be the same whenever it is rendered; if the function is, declare it STABLE or IMMUTABLE.")));
}

/*
 * --------------------------------------------------------------------------
 * Compiling
 * --------------------------------------------------------------------------
 */

/* The raw form of an expression; what else could follow a SELECT is refused. */
static Node *
parse_expression(Compiler *compiler, const Segment *segment)
{
	List	   *list = raw_parser(segment->text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = castNode(SelectStmt, linitial_node(RawStmt, list)->stmt);
	ResTarget  *target = select->targetList == NIL ? NULL : linitial(select->targetList);

	if (select->op != SETOP_NONE || list_length(select->targetList) != 1 ||
		target->name != NULL || select->distinctClause != NIL ||
		select->fromClause != NIL || select->whereClause != NULL ||
		select->groupClause != NIL || select->havingClause != NULL ||
		select->windowClause != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL ||
		select->lockingClause != NIL ||
		(IsA(target->val, ColumnRef) &&
		 IsA(llast(((ColumnRef *) target->val)->fields), A_Star)))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("\"%s\" is not a single expression", segment->text)));
	return target->val;
}

/*
 * {user} is CURRENT_USER to SQL: no use in a key, and where the table has such a
 * column surely not meant.
 */
static void
check_keyword(Compiler *compiler, const Segment *segment, Node *raw)
{
	const char *name = segment->text;

	if (IsA(raw, SQLValueFunction) && has_column(compiler->rel, name))
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("\"%s\" is an SQL keyword and does not stand for the column here", name),
				 errhint("Put the column's name in double quotes: {\"%s\"}.", name)));
}

static Node *
transform_expression(Compiler *compiler, const Segment *segment)
{
	Node	   *raw = parse_expression(compiler, segment);
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node	   *expr;

	check_keyword(compiler, segment, raw);
	pstate->p_sourcetext = segment->text;
	pstate->p_post_columnref_hook = check_column;
	pstate->p_ref_hook_state = compiler;
	item = addRangeTableEntryForRelation(pstate, compiler->rel, AccessShareLock,
										 compiler->alias, false, true);
	addNSItemToQuery(pstate, item, true, true, true);

	expr = transformExpr(pstate, raw, EXPR_KIND_OTHER);
	if (exprType(expr) == UNKNOWNOID)
		expr = coerce_to_specific_type(pstate, expr, TEXTOID, "template");
	assign_expr_collations(pstate, expr);
	check_expression(compiler, pstate, expr);
	free_parsestate(pstate);
	return expr;
}

/* The class of a type's text, and how to write it. */
static void
choose_form(Template *template, Segment *segment, Oid type)
{
	static const struct
	{
		Oid			type;
		ValueForm	form;
		const char *key_class;
	}			forms[] = {
		{TEXTOID, FORM_TEXT, "any"},
		{VARCHAROID, FORM_TEXT, "any"},
		{BPCHAROID, FORM_TEXT, "any"},
		{INT2OID, FORM_INT2, "integer"},
		{INT4OID, FORM_INT4, "integer"},
		{INT8OID, FORM_INT8, "integer"},
		{OIDOID, FORM_OID, "integer"},
		{BOOLOID, FORM_BOOL, "boolean"},
		{UUIDOID, FORM_UUID, "uuid"},
		{NUMERICOID, FORM_OUTPUT, "number"},
		{FLOAT4OID, FORM_OUTPUT, "number"},
		{FLOAT8OID, FORM_OUTPUT, "number"},
		{DATEOID, FORM_OUTPUT, "time"},
		{TIMEOID, FORM_OUTPUT, "time"},
		{TIMETZOID, FORM_OUTPUT, "time"},
		{TIMESTAMPOID, FORM_OUTPUT, "time"},
		{TIMESTAMPTZOID, FORM_OUTPUT, "time"},
	};

	segment->form = FORM_OUTPUT;
	segment->key_class = "any";
	for (int i = 0; i < lengthof(forms); i++)
	{
		if (forms[i].type == type)
		{
			segment->form = forms[i].form;
			segment->key_class = forms[i].key_class;
		}
	}
}

/* Settle how values of the expression's type become text. */
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
	choose_form(template, segment, base);
	if (OidIsValid(element))
		segment->form = FORM_ARRAY;

	getTypeOutputInfo(base, &output, &is_varlena);
	fmgr_info(output, &segment->output);
	template->settings |= template_output_settings(base);
	if (output >= FirstNormalObjectId || type_is_rowtype(base) ||
		OidIsValid(get_element_type(base)) || get_typtype(base) == TYPTYPE_RANGE ||
		get_typtype(base) == TYPTYPE_MULTIRANGE)
		template->runs_code = true;
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
	segment->expr_context = CurrentMemoryContext;
	segment->expr = ExecInitExpr(copyObject(planned), NULL);
	template->simple = false;
	template->settings |= template_expr_settings((Node *) planned);
	if (template_expr_runs_code((Node *) planned))
		template->runs_code = true;
	if (contain_mutable_functions((Node *) planned))
		template->queries = true;
}

/* "scratch" takes what need not last. */
static void
compile_segment(Compiler *compiler, Segment *segment, MemoryContext scratch)
{
	MemoryContext lasting = MemoryContextSwitchTo(scratch);
	Bitmapset  *columns = NULL;
	Node	   *expr;
	Expr	   *planned;

	compiler->position = segment->position;
	compiler->at_expression = true;
	expr = transform_expression(compiler, segment);
	pull_varattnos(expr, 1, &columns);
	check_columns(compiler, columns);
	planned = expression_planner((Expr *) expr);

	/* Planning fills in defaults of arguments, which may be volatile. */
	if (OidIsValid(template_volatile_function((Node *) planned)))
		refuse(compiler, "a volatile function");

	MemoryContextSwitchTo(lasting);
	compiler->columns = bms_add_members(compiler->columns, columns);
	compile_output(compiler->template, segment, exprType((Node *) planned));
	compile_planned(compiler->template, segment, planned);
}

static void
collect_columns(Template *template, const Bitmapset *columns)
{
	int			i = -1;

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
												  "uncache template being compiled",
												  ALLOCSET_DEFAULT_SIZES);
	int			nest_level;

	template_parse(template, &compiler->position);
	nest_level = fixed_settings_begin(SETTINGS_ALL);
	for (int i = 0; i < template->nsegments; i++)
	{
		if (template->segments[i].is_expr)
			compile_segment(compiler, &template->segments[i], scratch);
	}
	fixed_settings_end(nest_level);
	collect_columns(template, compiler->columns);
	MemoryContextDelete(scratch);
}

Template *
template_compile(const char *text, Relation rel, const char *alias)
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
	if (alias != NULL && strcmp(alias, RelationGetRelationName(rel)) != 0)
		compiler.alias = makeAlias(alias, NIL);

	PG_TRY();
	{
		/*
		 * Whoever called us would take the position of an error for one in his
		 * own text; he is asked when the error is thrown again.
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
