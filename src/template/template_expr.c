/*
 * template_expr.c
 *	  From the text of an expression in a template to a checked expression tree.
 *
 * The text is parsed as PostgreSQL parses a CHECK constraint.  A construct that a template
 * cannot use is an ERROR, with a hint that names another way.  An error carries its position
 * in the expression; template_compile.c adds the template and the table.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/heap.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "template/template_int.h"

/*
 * --------------------------------------------------------------------------
 * Names
 * --------------------------------------------------------------------------
 */

/* True if a name means a column of the template's table, alone or behind the table's name. */
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
 * Hook of the parser, called for every name with what PostgreSQL has found for it.  For an
 * unknown column it raises an ERROR that says more than PostgreSQL's.
 */
static Node *
check_column(ParseState *pstate, ColumnRef *cref, Node *found)
{
	Compiler   *compiler = pstate->p_ref_hook_state;
	const char *name;

	if (found != NULL || !names_own_column(compiler, cref))
		return NULL;
	name = strVal(llast(cref->fields));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist",
					name, compiler->template->relation),
			 column_hint(compiler->rel, name, true,
						 "A template names columns of its own table only."),
			 parser_errposition(pstate, cref->location)));
	return NULL;
}

static void
refuse(Compiler *compiler, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a template cannot use %s", what),
			 errhint("Write a function that is STABLE or IMMUTABLE, and call it in the "
					 "template.")));
}

/*
 * --------------------------------------------------------------------------
 * Checks of an expression
 * --------------------------------------------------------------------------
 */

void
template_check_columns(Compiler *compiler, Bitmapset *columns)
{
	TupleDesc	desc = RelationGetDescr(compiler->rel);
	int			i = -1;

	while ((i = bms_next_member(columns, i)) >= 0)
	{
		AttrNumber	column = i + FirstLowInvalidHeapAttributeNumber;

		Assert(column <= desc->natts);
		if (column < 0 && column != TableOidAttributeNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a template cannot use the system column \"%s\"",
							NameStr(SystemAttributeDefinition(column)->attname)),
					 errhint("Of the system columns only tableoid stays the same while a row "
							 "lives.")));
		for (int a = 1; a <= desc->natts; a++)
		{
			if ((a == column || column == 0) &&
				attribute_is_virtual(TupleDescAttr(desc, a - 1)))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("a template cannot use the virtual generated column \"%s\"",
								NameStr(TupleDescAttr(desc, a - 1)->attname)),
						 errhint("Write the column's expression into the template, or make the "
								 "column STORED.")));
		}
	}
}

void
template_check_volatile(Node *expr)
{
	Oid			function = template_volatile_function(expr);

	if (OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a template cannot use the volatile function %s()",
						get_func_name(function)),
				 errhint("A key must be the same whenever it is rendered; if the function's result "
						 "is, declare it STABLE or IMMUTABLE.")));
}

static void
check_expression(Compiler *compiler, ParseState *pstate, Node *expr)
{
	Oid			type = exprType(expr);

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
	template_check_volatile(expr);
}

/*
 * --------------------------------------------------------------------------
 * Parsing
 * --------------------------------------------------------------------------
 */

static bool
has_subquery(Node *raw, void *context)
{
	if (raw == NULL)
		return false;
	return IsA(raw, SubLink) || raw_expression_tree_walker(raw, has_subquery, context);
}

/* The raw form of an expression.  Any clause of a SELECT beside it is refused. */
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
				 errmsg("\"%s\" is not a single expression",
						template_shown(segment->text))));
	return target->val;
}

const char *
template_unquoted_column(Relation rel, const Segment *segment)
{
	const char *blanks = " \t\r\n\f\v";
	const char *begin = segment->text + strspn(segment->text, blanks);
	char	   *name = downcase_identifier(begin, strcspn(begin, blanks), false, false);

	Assert(segment->is_expr);
	if (begin[strlen(name) + strspn(begin + strlen(name), blanks)] != '\0')
		return NULL;
	return column_hint_exists(rel, name) ? name : NULL;
}

/*
 * SQL reads {user} as CURRENT_USER.  If the table has a column of that name the template
 * means the column, so refuse it and say how to write it.
 */
static void
check_keyword(Compiler *compiler, const Segment *segment, Node *raw)
{
	const char *name = template_unquoted_column(compiler->rel, segment);

	if (IsA(raw, SQLValueFunction) && name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("\"%s\" is an SQL keyword and does not stand for the column here", name),
				 errhint("Put the column's name in double quotes: {\"%s\"}.", name)));
}

Node *
template_transform(Compiler *compiler, const Segment *segment)
{
	Node	   *raw = parse_expression(compiler, segment);
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node	   *expr;

	Assert(compiler->segment == segment);
	check_keyword(compiler, segment, raw);
	/* Before transformExpr(), which would complain about the tables of the subquery. */
	if (has_subquery(raw, NULL))
		refuse(compiler, "a subquery");
	pstate->p_sourcetext = segment->text;
	pstate->p_post_columnref_hook = check_column;
	pstate->p_ref_hook_state = compiler;
	if (compiler->inspect)
		template_hide_literals(compiler, pstate, raw);
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
