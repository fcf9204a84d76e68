/*
 * template_analyze.c
 *	  What the value of an expression may depend on, besides its columns: volatile
 *	  functions and settings of the session.
 *
 * An expression or type that is not listed here counts as depending on all settings, so
 * a gap costs time and never a wrong key.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "template/template_int.h"

/*
 * --------------------------------------------------------------------------
 * Volatile functions
 * --------------------------------------------------------------------------
 */

static bool
is_volatile(Oid function, void *context)
{
	if (func_volatile(function) != PROVOLATILE_VOLATILE)
		return false;
	*(Oid *) context = function;
	return true;
}

static bool
find_volatile(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_volatile, context))
		return true;
	return expression_tree_walker(node, find_volatile, context);
}

Oid
template_volatile_function(Node *expr)
{
	Oid			function = InvalidOid;

	(void) find_volatile(expr, &function);
	return function;
}

/*
 * --------------------------------------------------------------------------
 * Settings
 * --------------------------------------------------------------------------
 */

int
template_output_settings(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case XIDOID:
		case XID8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case CHAROID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case BITOID:
		case VARBITOID:
			return SETTINGS_NONE;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
			return SETTINGS_TIME;
		case FLOAT4OID:
		case FLOAT8OID:
			return SETTINGS_FLOAT;
		case BYTEAOID:
			return SETTINGS_BYTEA;
		default:
			return type_is_enum(type) ? SETTINGS_NONE : SETTINGS_ALL;
	}
}

/*
 * The settings that a function depends on.  A declaration as IMMUTABLE does not prove that
 * there are none: users' declarations can be wrong, and so are PostgreSQL's own of age(),
 * which counts months and days in the session's time zone, and of quote_ident().
 */
static int
function_settings(Oid function)
{
	switch (function)
	{
		case F_DATE_TIMESTAMPTZ:
		case F_TIMESTAMP_TIMESTAMPTZ:
		case F_TIME_TIMESTAMPTZ:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
		case F_DATE_PART_TEXT_TIMESTAMPTZ:
		case F_EXTRACT_TEXT_TIMESTAMPTZ:
		case F_AGE_TIMESTAMPTZ_TIMESTAMPTZ:
			return SETTINGS_TIME;
		case F_QUOTE_IDENT:
			return SETTINGS_ALL;
		default:
			return function >= FirstNormalObjectId ||
				func_volatile(function) != PROVOLATILE_IMMUTABLE ?
				SETTINGS_ALL : SETTINGS_NONE;
	}
}

static bool
add_function_settings(Oid function, void *settings)
{
	*(int *) settings |= function_settings(function);
	return false;
}

/*
 * Add the settings that a value may depend on: all of them, unless every node of the
 * expression is listed here.
 */
static bool
add_settings(Node *node, void *context)
{
	int		   *settings = context;
	Node	   *arg;

	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, add_function_settings, context);
	switch (nodeTag(node))
	{
		case T_CoerceViaIO:
			arg = (Node *) ((CoerceViaIO *) node)->arg;
			*settings |= template_output_settings(getBaseType(exprType(arg)));
			break;
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_OpExpr:
		case T_BoolExpr:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_RelabelType:
		case T_SubscriptingRef:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ArrayExpr:
		case T_MinMaxExpr:
		case T_FieldSelect:
		case T_List:
			break;
		default:
			*settings = SETTINGS_ALL;
	}
	return expression_tree_walker(node, add_settings, context);
}

int
template_expr_settings(Node *expr)
{
	int			settings = SETTINGS_NONE;

	(void) add_settings(expr, &settings);
	Assert((settings & ~SETTINGS_ALL) == 0);
	return settings;
}
