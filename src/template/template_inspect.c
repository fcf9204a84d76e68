/*
 * template_inspect.c
 *	  Reading an expression without running code that users wrote.
 *
 * The session that inspects a rule (for a view, for another user's DDL, in the worker) may
 * have more rights than the rule's author, so it must not call code that users wrote.
 * PostgreSQL does call such code before an expression is evaluated:
 *
 *		Planning calls IMMUTABLE functions to compute what is constant.  So an inspected
 *		template is not planned.  It gets no state for evaluation either, since making one
 *		plans the constraints of domains.
 *
 *		Parsing calls the input function of a literal's type.  That of a composite type,
 *		array or range checks the constraints of the domains in it.  So this file replaces
 *		such a literal by a NULL of its type.
 *
 * One part of planning is done here by hand: filling in defaults of arguments.
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
 * True if the input function of a type calls C code only.  A domain alone is read by the
 * function of its base type, but a domain inside another type by its own, which checks
 * constraints.  So this returns false for a domain; callers pass getBaseType().
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

/* Hook of the parser: the type of a hidden literal is known, so make a constant again. */
static Node *
literal_of_type(ParseState *pstate, Param *param, Oid type, int32 typmod, int location)
{
	Compiler   *compiler = pstate->p_ref_hook_state;
	char	   *text = list_nth(compiler->literals, param->paramid);
	bool		keep = reads_by_itself(getBaseType(type));
	Const	   *literal = makeConst(UNKNOWNOID, -1, InvalidOid, -2,
									keep ? CStringGetDatum(text) : (Datum) 0,
									!keep, false);

	Assert(compiler->inspect);
	literal->location = param->location;
	return coerce_type(pstate, (Node *) literal, UNKNOWNOID, type, typmod,
					   COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, location);
}

/* Hook of the parser: a hidden literal is a parameter until its type is known. */
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

/* Refuse "$1", as compiling does: a template has no parameters. */
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

/* Replace literals that the parser wants to be constants by NULL. */
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

/*
 * Replace each literal by a parameter, whose number is its index in compiler->literals.  This
 * is done in place, since the node of a parameter is smaller than that of a constant.
 */
static bool
replace_literals(Node *node, void *context)
{
	Compiler   *compiler = context;
	A_Const    *constant = (A_Const *) node;
	int			location;

	StaticAssertStmt(sizeof(ParamRef) <= sizeof(A_Const), "ParamRef is too large");

	/* The modifiers of a type look like expressions, but must stay literals. */
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
	Assert(compiler->inspect);
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
