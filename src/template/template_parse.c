/*
 * template_parse.c
 *	  Cutting a template into literals and expressions.
 *
 * An expression ends at the first "}" that is not inside an SQL string, a quoted
 * identifier or a comment, so this file recognizes these as PostgreSQL's scanner does (with
 * standard_conforming_strings on).  It may look at single bytes: in a server encoding no
 * ASCII byte is part of a longer character.
 *
 * Each byte is read a fixed number of times, so the time grows with the length of the
 * template, which is limited.  template_compile.c checks for interrupts between the
 * expressions, each of which costs far more than its parsing here.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "template/template_int.h"

typedef struct Scanner
{
	const char *text;
	int			len;
	int			at;
	int			counted;		/* so many bytes are counted already ... */
	int			characters;		/* ... and are so many characters */
	int		   *position;		/* set for the error message */
} Scanner;

/*
 * The position of a byte in characters, from 1.  Callers ask in rising order, except for
 * errors, so each byte is counted once.
 */
static int
position_of(Scanner *scan, int at)
{
	Assert(at >= 0 && at <= scan->len);
	if (at < scan->counted)
		return pg_mbstrlen_with_len(scan->text, at) + 1;
	scan->characters += pg_mbstrlen_with_len(scan->text + scan->counted, at - scan->counted);
	scan->counted = at;
	return scan->characters + 1;
}

static void
raise_at(Scanner *scan, int at, const char *message, const char *hint)
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

/* True if the text continues with these two characters. */
static bool
looking_at(const Scanner *scan, const char *two)
{
	return scan->at + 1 < scan->len &&
		scan->text[scan->at] == two[0] && scan->text[scan->at + 1] == two[1];
}

/* From the opening quote to behind the closing one, or to the end if there is none. */
static void
skip_quoted(Scanner *scan, char quote, bool backslashes)
{
	Assert(scan->text[scan->at] == quote);
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

/* True if the quote here opens E'...', in which a backslash escapes. */
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

	Assert(looking_at(scan, "/*"));
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

/* From a dollar to behind the string that it opens, or behind the dollar if it opens none. */
static void
skip_dollar(Scanner *scan)
{
	int			start = scan->at;
	int			end = start + 1;
	int			taglen;

	Assert(scan->text[start] == '$');
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

/* From behind the opening brace to the closing one. */
static void
scan_expression(Scanner *scan)
{
	int			open = scan->at - 1;

	Assert(scan->text[open] == '{');
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
					 "Close the expression with } first, or write {{ for a literal brace outside "
					 "of it.");
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
	Segment    *segment;

	if (template->nsegments == template->segments_room)
	{
		template->segments_room *= 2;
		template->segments = repalloc(template->segments,
									  template->segments_room * sizeof(Segment));
	}
	segment = &template->segments[template->nsegments++];
	memset(segment, 0, sizeof(*segment));
	segment->is_expr = is_expr;
	segment->position = position;
	return segment;
}

/* True if literal text continues here; of a doubled brace the first one is skipped. */
static bool
at_literal(Scanner *scan)
{
	if (scan->at >= scan->len)
		return false;
	if (looking_at(scan, "{{") || looking_at(scan, "}}"))
	{
		scan->at++;
		return true;
	}
	if (scan->text[scan->at] == '}')
		raise_at(scan, scan->at, "unbalanced brace in a template",
				 "Write }} for a literal brace.");
	return scan->text[scan->at] != '{';
}

/* From the beginning of literal text to behind it. */
static void
add_literal(Template *template, Scanner *scan)
{
	int			start = scan->at;
	int			len = 0;
	Segment    *segment = add_segment(template, false, position_of(scan, start));

	for (; at_literal(scan); scan->at++)
		len++;
	segment->text = palloc(len + 1);
	for (scan->at = start; at_literal(scan); scan->at++)
		segment->text[segment->len++] = scan->text[scan->at];
	Assert(segment->len == len && len > 0);
	segment->text[len] = '\0';
}

/* From the opening brace to behind the closing one. */
static void
add_expression(Template *template, Scanner *scan)
{
	int			start = ++scan->at;
	int			position = position_of(scan, start);
	Segment    *segment;
	int			blanks;

	scan_expression(scan);
	Assert(scan->text[scan->at] == '}');
	blanks = strspn(scan->text + start, " \t\r\n\f\v");
	if (start + blanks == scan->at)
		raise_at(scan, start - 1, "empty expression in a template",
				 "Put the name of a column between the braces, or write {{ and }} for literal "
				 "braces.");

	segment = add_segment(template, true, position);
	segment->len = scan->at - start;
	segment->text = pnstrdup(scan->text + start, segment->len);
	scan->at++;
}

void
template_parse(Template *template, int *position)
{
	Scanner		scan = {.text = template->text, .len = strlen(template->text),
	.position = position};

	if (scan.len == 0)
		raise_at(&scan, 0, "a template cannot be empty",
				 "Write literal text and columns in braces, such as user:{id}.");
	if (scan.len > TEMPLATE_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a template cannot be longer than %d bytes", TEMPLATE_MAX_BYTES),
				 errhint("Move the long part into a function, and call that in the template.")));

	/* Most templates have at most literal, column, literal, column. */
	template->segments_room = 4;
	template->segments = palloc(template->segments_room * sizeof(Segment));
	while (scan.at < scan.len)
	{
		if (scan.text[scan.at] == '{' && !looking_at(&scan, "{{"))
			add_expression(template, &scan);
		else
			add_literal(template, &scan);
	}
}

/* Most bytes of a template that a message shows: enough to recognize it. */
#define SHOWN_BYTES		300

const char *
template_shown(const char *text)
{
	int			len = strlen(text);

	if (len <= SHOWN_BYTES)
		return text;
	return psprintf("%.*s...", pg_mbcliplen(text, len, SHOWN_BYTES), text);
}
