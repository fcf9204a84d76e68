/*
 * template_int.h
 *	  Private to template_*.c: segments, and the state of compiling.
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
	/* template_parse() sets these. */
	bool		is_expr;
	char	   *text;			/* literal, or source of the expression */
	int			len;
	int			position;		/* in the template, in characters, from 1 */

	/* template_compile.c sets these, of an expression only. */
	AttrNumber	column;			/* of a bare column; 0: evaluate expr */
	ExprState  *expr;
	MemoryContext expr_context; /* lives as long as expr */
	ValueForm	form;

	/* template_choose_class() sets exactly one of these. */
	char	   *key_class;		/* class of the values (keypattern.h) */
	Oid			key_enum;		/* the values are the labels of this enum */
	char	   *constant;		/* all values have this text */

	FmgrInfo	output;			/* FORM_OUTPUT, FORM_ARRAY */
	Oid			element;		/* of FORM_ARRAY, as the next three */
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
	Bitmapset  *columns;		/* offset by FirstLowInvalidHeapAttributeNumber */
	int			position;		/* of the segment, or of the parser's error */
	const Segment *segment;		/* being compiled; NULL while the text is parsed */
	bool		inspect;		/* run nothing: template_inspect() */
	List	   *literals;		/* char *, of the segment, if "inspect" */
} Compiler;

/*
 * Cut template->text into template->segments.  Raises an ERROR if it is malformed, with
 * *position set to the place of the error, in characters.
 */
extern void template_parse(Template *template, int *position);

/*
 * template_transform() makes an expression tree of a segment's text and checks all of it but
 * its columns; template_check_columns() checks these.  template_check_volatile() looks for
 * volatile functions, which planning can add.  Each raises an ERROR for a
 * construct that a template cannot use.
 */
extern Node *template_transform(Compiler *compiler, const Segment *segment);
extern void template_check_columns(Compiler *compiler, Bitmapset *columns);
extern void template_check_volatile(Node *expr);

/*
 * The column whose name stands alone and unquoted in a segment, or NULL.  If the parser has
 * read such a segment as something else, the column's name is a keyword.
 */
extern const char *template_unquoted_column(Relation rel, const Segment *segment);

/*
 * For template_inspect(): keep the parser from calling input functions for the literals of
 * a raw expression; fill in defaults of arguments, as planning would.
 */
extern void template_hide_literals(Compiler *compiler, ParseState *pstate, Node *raw);
extern Node *template_add_defaults(Node *expr);

/*
 * Set one of key_class, key_enum and constant of a segment, the one that describes the
 * values of its expression most closely.
 */
extern void template_choose_class(Segment *segment, Node *expr);

/* A volatile function that an expression calls, or InvalidOid. */
extern Oid	template_volatile_function(Node *expr);

/*
 * The settings (SETTINGS_*) that the text of a type's values depends on, for a type that is
 * no domain; and those that the value of an expression depends on.
 */
extern int	template_output_settings(Oid type);
extern int	template_expr_settings(Node *expr);

#endif							/* UNCACHE_TEMPLATE_INT_H */
