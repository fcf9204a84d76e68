/*
 * template_inspect.c
 *	  Reading an expression without running anything of it.
 *
 * Who looks at a rule (a view, DDL of somebody else, the worker) may have more
 * rights than who wrote it, so nothing that users wrote may be called meanwhile.
 * PostgreSQL does call such code before an expression is evaluated:
 *
 *		planning computes what is constant, IMMUTABLE functions included; so a
 *		template that is only looked at is not planned, and gets no state to be
 *		evaluated with (which would plan the constraints of domains)
 *
 *		parsing calls the input function of a literal's type, and that of a
 *		composite type, array or range checks the constraints of the domains in
 *		it; so such a literal is taken for NULL of its type here
 *
 * What is left to do of planning is to fill in arguments that have defaults.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_node.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "template/template_int.h"

/*
 * --------------------------------------------------------------------------
 * Literals
 * --------------------------------------------------------------------------
 */

/*
 * Whether the input function of a type calls nothing but C.  Of a domain by itself
 * that is the base type's, but within another type it is the domain's own.
 */
static bool
reads_by_itself(Oid type)
{
	Oid			element = get_element_type(type);

	if (type < FirstNormalObjectId)
		return true;
	if (OidIsValid(element))
		return reads_by_itself(element);
	return get_typtype(type) == TYPTYPE_BASE || get_typtype(type) == TYPTYPE_ENUM;
}

/* A literal stands as a parameter until its type is known: this is the type. */
static Node *
literal_of_type(ParseState *pstate, Param *param, Oid type, int32 typmod, int location)
{
	Compiler   *compiler = pstate->p_ref_hook_state;
	char	   *text = list_nth(compiler->literals, param->paramid);
	bool		keep = reads_by_itself(getBaseType(type));
	Const	   *literal = makeConst(UNKNOWNOID, -1, InvalidOid, -2,
									keep ? CStringGetDatum(text) : (Datum) 0,
									!keep, false);

	literal->location = param->location;
	return coerce_type(pstate, (Node *) literal, UNKNOWNOID, type, typmod,
					   COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, location);
}

static Node *
literal_without_type(ParseState *pstate, ParamRef *ref)
{
	Param	   *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = ref->number;
	param->paramtype = UNKNOWNOID;
	param->paramtypmod = -1;
	param->location = ref->location;
	return (Node *) param;
}

/* A template has no parameters of its own: "$1" keeps being refused. */
static bool
refuse_parameters(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, ParamRef))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("there is no parameter $%d", ((ParamRef *) node)->number)));
	return raw_expression_tree_walker(node, refuse_parameters, context);
}

/* What must stay a constant for the parser becomes NULL. */
static bool
empty_literals(Node *node, void *context)
{
	if (node == NULL || IsA(node, TypeName))
		return false;
	if (IsA(node, A_Const))
	{
		((A_Const *) node)->isnull |= IsA(&((A_Const *) node)->val, String);
		return false;
	}
	return raw_expression_tree_walker(node, empty_literals, context);
}

/* In place: the node of a parameter is smaller than that of a constant. */
static bool
replace_literals(Node *node, void *context)
{
	Compiler   *compiler = context;
	A_Const    *constant = (A_Const *) node;
	int			location;

	StaticAssertStmt(sizeof(ParamRef) <= sizeof(A_Const), "ParamRef is too large");

	/* The modifiers of a type are not expressions, though they look so. */
	if (node == NULL || IsA(node, TypeName))
		return false;
	if (is_json_behavior(node))
		return empty_literals(node, NULL);
	if (!IsA(node, A_Const))
		return raw_expression_tree_walker(node, replace_literals, context);
	if (constant->isnull || !IsA(&constant->val, String))
		return false;

	location = constant->location;
	compiler->literals = lappend(compiler->literals, strVal(&constant->val));
	memset(node, 0, sizeof(ParamRef));
	NodeSetTag(node, T_ParamRef);
	((ParamRef *) node)->number = list_length(compiler->literals) - 1;
	((ParamRef *) node)->location = location;
	return false;
}

void
template_hide_literals(Compiler *compiler, ParseState *pstate, Node *raw)
{
	(void) refuse_parameters(raw, NULL);
	compiler->literals = NIL;
	(void) replace_literals(raw, compiler);
	pstate->p_paramref_hook = literal_without_type;
	pstate->p_coerce_param_hook = literal_of_type;
}

/*
 * --------------------------------------------------------------------------
 * Defaults of arguments
 * --------------------------------------------------------------------------
 */

static Node *
add_defaults(Node *node, void *context)
{
	FuncExpr   *call;
	HeapTuple	function;

	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, add_defaults, context);
	if (!IsA(node, FuncExpr))
		return node;

	call = (FuncExpr *) node;
	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);
	call->args = expand_function_arguments(call->args, false, call->funcresulttype, function);
	ReleaseSysCache(function);
	return node;
}

Node *
template_add_defaults(Node *expr)
{
	return add_defaults(expr, NULL);
}
