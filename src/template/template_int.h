/*
 * template_int.h
 *	  What the files template_*.c share.
 */
#ifndef UNCACHE_TEMPLATE_INT_H
#define UNCACHE_TEMPLATE_INT_H

#include "fmgr.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "parser/parse_node.h"

#include "template/template.h"

/* How a value becomes text. */
typedef enum ValueForm
{
	FORM_TEXT,					/* text, varchar, char(n) */
	FORM_INT2,
	FORM_INT4,
	FORM_INT8,
	FORM_OID,
	FORM_BOOL,
	FORM_UUID,
	FORM_OUTPUT,				/* by the type's output function */
	FORM_ARRAY,					/* each element by its output function */
} ValueForm;

typedef struct Segment
{
	/* Filled by the parser. */
	bool		is_expr;
	char	   *text;			/* literal, or source of the expression */
	int			len;
	int			position;		/* in the template; characters, from 1 */

	/* Filled by the compiler, of an expression only. */
	AttrNumber	column;			/* a bare column; 0: see expr */
	ExprState  *expr;
	MemoryContext expr_context; /* lives as long as expr */
	ValueForm	form;
	char	   *key_class;		/* see keypattern.h */
	Oid			key_enum;		/* instead of it: one of the labels of this enum */
	char	   *constant;		/* instead of both: the text of all values */
	FmgrInfo	output;			/* FORM_OUTPUT, FORM_ARRAY */
	Oid			element;		/* FORM_ARRAY, this and the next three */
	int16		element_len;
	bool		element_byval;
	char		element_align;
} Segment;

/* A template being compiled. */
typedef struct Compiler
{
	Template   *template;
	Relation	rel;
	Alias	   *alias;			/* NULL: the table's own name */
	Bitmapset  *columns;		/* offset as usual for system columns */
	int			position;		/* of what is being looked at */
	const Segment *segment;		/* errors count from "position" in it; NULL: none */
	bool		inspect;		/* nothing is to be run: template_inspect() */
	List	   *literals;		/* char *; of the segment being inspected */
} Compiler;

/*
 * Cut template->text into template->segments.  Raises an ERROR where it is
 * malformed; *position is then the place in the template, in characters.
 */
extern void template_parse(Template *template, int *position);

/*
 * The expression of a segment, checked but for its columns; then these.  Raise an
 * ERROR for what a template cannot use.
 */
extern Node *template_transform(Compiler *compiler, const Segment *segment);
extern void template_check_columns(Compiler *compiler, Bitmapset *columns);
extern void template_check_volatile(Node *expr);

/*
 * The column that stands alone and unquoted in a segment, or NULL: where the parser
 * finds something else in it, its name is a keyword.
 */
extern const char *template_unquoted_column(Relation rel, const Segment *segment);

/*
 * For a template that is only looked at.  Keep the parser from running what reads
 * the literals in a raw expression; fill in defaults of arguments, as planning
 * would.
 */
extern void template_hide_literals(Compiler *compiler, ParseState *pstate, Node *raw);
extern Node *template_add_defaults(Node *expr);

/*
 * Set of the three "key_class", "key_enum" and "constant" of a segment the one that
 * says most of the values of its expression.
 */
extern void template_choose_class(Segment *segment, Node *expr);

/* A volatile function in an expression, or InvalidOid. */
extern Oid	template_volatile_function(Node *expr);

/*
 * The settings (render_settings.h) that the text of a type's values depends on
 * (not for domains), and those that the value of an expression depends on.
 */
extern int	template_output_settings(Oid type);
extern int	template_expr_settings(Node *expr);

#endif							/* UNCACHE_TEMPLATE_INT_H */
