/*
 * template_parse.c
 *	  Cutting a template into literals and expressions.
 *
 * An expression ends at the first "}" that is not inside an SQL string, a quoted
 * identifier or a comment, so these have to be told apart here just as
 * PostgreSQL's scanner does (with standard_conforming_strings on).  Bytes can be
 * looked at one by one: in no server encoding is an ASCII byte a part of a longer
 * character.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "template_int.h"

typedef struct Scanner
{
	const char *text;
	int			len;
	int			at;
	int		   *position;		/* for the error message */
} Scanner;

/* Where a byte is, as a human counts. */
static int
position_of(const Scanner *scan, int at)
{
	return pg_mbstrlen_with_len(scan->text, at) + 1;
}

static void
raise_at(const Scanner *scan, int at, const char *message, const char *hint)
{
	*scan->position = position_of(scan, at);
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("%s", message),
			 errhint("%s", hint)));
}

static bool
is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '_' || IS_HIGHBIT_SET(c);
}

/* Whether the text goes on with these two characters. */
static bool
looking_at(const Scanner *scan, const char *two)
{
	return scan->at + 1 < scan->len &&
		scan->text[scan->at] == two[0] && scan->text[scan->at + 1] == two[1];
}

/* Stands on the quote; moves behind the closing one, or to the end. */
static void
skip_quoted(Scanner *scan, char quote, bool backslashes)
{
	for (scan->at++; scan->at < scan->len; scan->at++)
	{
		if (backslashes && scan->text[scan->at] == '\\')
			scan->at++;
		else if (scan->text[scan->at] == quote)
		{
			scan->at++;
			if (scan->at >= scan->len || scan->text[scan->at] != quote)
				return;
		}
	}
	scan->at = scan->len;
}

static bool
opens_escape_string(const Scanner *scan)
{
	return scan->at >= 1 &&
		(scan->text[scan->at - 1] == 'e' || scan->text[scan->at - 1] == 'E') &&
		(scan->at == 1 || !is_word(scan->text[scan->at - 2]));
}

static void
skip_line_comment(Scanner *scan)
{
	while (scan->at < scan->len &&
		   scan->text[scan->at] != '\n' && scan->text[scan->at] != '\r')
		scan->at++;
}

static void
skip_block_comment(Scanner *scan)
{
	int			depth = 0;

	do
	{
		if (looking_at(scan, "/*"))
		{
			depth++;
			scan->at += 2;
		}
		else if (looking_at(scan, "*/"))
		{
			depth--;
			scan->at += 2;
		}
		else
			scan->at++;
	} while (depth > 0 && scan->at < scan->len);
}

/* Stands on a dollar; moves behind the string it opens, or behind the dollar. */
static void
skip_dollar(Scanner *scan)
{
	int			start = scan->at;
	int			end = start + 1;
	int			taglen;

	if ((start > 0 && is_word(scan->text[start - 1])) ||
		(end < scan->len && scan->text[end] >= '0' && scan->text[end] <= '9'))
	{
		scan->at++;
		return;
	}
	while (end < scan->len && is_word(scan->text[end]))
		end++;
	if (end >= scan->len || scan->text[end] != '$')
	{
		scan->at++;
		return;
	}
	taglen = end + 1 - start;
	for (scan->at = end + 1; scan->at + taglen <= scan->len; scan->at++)
	{
		if (memcmp(scan->text + scan->at, scan->text + start, taglen) == 0)
		{
			scan->at += taglen;
			return;
		}
	}
	scan->at = scan->len;
}

/* Stands behind the opening brace; moves to the closing one. */
static void
scan_expression(Scanner *scan)
{
	int			open = scan->at - 1;

	while (scan->at < scan->len && scan->text[scan->at] != '}')
	{
		char		c = scan->text[scan->at];

		if (c == '\'')
			skip_quoted(scan, c, opens_escape_string(scan));
		else if (c == '"')
			skip_quoted(scan, c, false);
		else if (c == '$')
			skip_dollar(scan);
		else if (looking_at(scan, "--"))
			skip_line_comment(scan);
		else if (looking_at(scan, "/*"))
			skip_block_comment(scan);
		else if (c == '{')
			raise_at(scan, scan->at, "unexpected brace in an expression of a template",
					 "Close the expression with } first, or write {{ for a literal brace outside of it.");
		else
			scan->at++;
	}
	if (scan->at >= scan->len)
		raise_at(scan, open, "unbalanced brace in a template",
				 "Close the expression with }, or write {{ for a literal brace.");
}

static Segment *
add_segment(Template *template, bool is_expr, int position)
{
	Segment    *segment = &template->segments[template->nsegments++];

	memset(segment, 0, sizeof(*segment));
	segment->is_expr = is_expr;
	segment->position = position;
	return segment;
}

static void
add_literal(Template *template, const Scanner *scan, char c)
{
	Segment    *segment;

	if (template->nsegments == 0 ||
		template->segments[template->nsegments - 1].is_expr)
	{
		segment = add_segment(template, false, position_of(scan, scan->at));
		segment->text = palloc(scan->len - scan->at + 1);
	}
	segment = &template->segments[template->nsegments - 1];
	segment->text[segment->len++] = c;
	segment->text[segment->len] = '\0';
}

/* Stands on the opening brace; moves behind the closing one. */
static void
add_expression(Template *template, Scanner *scan)
{
	int			start = ++scan->at;
	Segment    *segment;
	int			blanks;

	scan_expression(scan);
	blanks = strspn(scan->text + start, " \t\r\n\f\v");
	if (start + blanks == scan->at)
		raise_at(scan, start - 1, "empty expression in a template",
				 "Put the name of a column between the braces, or write {{ and }} for literal braces.");

	segment = add_segment(template, true, position_of(scan, start));
	segment->len = scan->at - start;
	segment->text = pnstrdup(scan->text + start, segment->len);
	scan->at++;
}

void
template_parse(Template *template, int *position)
{
	Scanner		scan = {template->text, strlen(template->text), 0, position};
	int			most = 1;

	if (scan.len == 0)
		raise_at(&scan, 0, "a template cannot be empty",
				 "Write literal text and columns in braces, such as user:{id}.");

	/* Each brace can begin a segment, and end it. */
	for (int i = 0; i < scan.len; i++)
		most += scan.text[i] == '{' ? 2 : 0;
	template->segments = palloc(most * sizeof(Segment));

	while (scan.at < scan.len)
	{
		char		c = scan.text[scan.at];

		if (looking_at(&scan, "{{") || looking_at(&scan, "}}"))
		{
			add_literal(template, &scan, c);
			scan.at += 2;
		}
		else if (c == '{')
			add_expression(template, &scan);
		else if (c == '}')
			raise_at(&scan, scan.at, "unbalanced brace in a template",
					 "Write }} for a literal brace.");
		else
		{
			add_literal(template, &scan, c);
			scan.at++;
		}
	}
}
