/*
 * template_fuzz.c
 *	  Any text as a template, as far as it is cut into pieces.
 *
 * The pieces, put together again, must be the text; an error must say where.
 */
#include "postgres.h"

#include <setjmp.h>

#include "mb/pg_wchar.h"

#include "template/template_int.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* ------------------------------------------------------------------------
 * What the parser calls of the server
 * ------------------------------------------------------------------------
 */
#define MAX_CHUNKS	65536

static void *chunks[MAX_CHUNKS];
static int	nchunks;
static sigjmp_buf raised;
static int	said;				/* message and hint, of the error that is raised */

void *
palloc(Size size)
{
	if (nchunks == MAX_CHUNKS)
		abort();
	return chunks[nchunks++] = malloc(size);
}

void *
repalloc(void *chunk, Size size)
{
	for (int i = 0; i < nchunks; i++)
	{
		if (chunks[i] == chunk)
			return chunks[i] = realloc(chunk, size);
	}
	abort();
}

char *
pnstrdup(const char *in, Size len)
{
	char	   *copy = palloc(len + 1);

	memcpy(copy, in, len);
	copy[len] = '\0';
	return copy;
}

int
pg_mbstrlen_with_len(const char *text, int len)
{
	return len;
}

/* Only template_shown() calls these two, and no input gets there. */
int
pg_mbcliplen(const char *text, int len, int limit)
{
	return Min(len, limit);
}

char *
psprintf(const char *format,...)
{
	return unconstify(char *, format);
}

bool
errstart(int elevel, const char *domain)
{
	said = 0;
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	siglongjmp(raised, 1);
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *format,...)
{
	return said++;
}

int
errhint(const char *format,...)
{
	return said++;
}

/* ------------------------------------------------------------------------
 * Checks
 * ------------------------------------------------------------------------
 */

/* Append a segment as it must have been written. */
static char *
write_segment(char *to, const Segment *segment)
{
	if (segment->is_expr)
		*to++ = '{';
	for (int i = 0; i < segment->len; i++)
	{
		char		c = segment->text[i];

		if (!segment->is_expr && (c == '{' || c == '}'))
			*to++ = c;
		*to++ = c;
	}
	if (segment->is_expr)
		*to++ = '}';
	return to;
}

static void
check_segments(const Template *template, size_t len)
{
	char	   *again = malloc(2 * len + 1);
	char	   *to = again;

	for (int i = 0; i < template->nsegments; i++)
	{
		const Segment *segment = &template->segments[i];

		/* A literal is whole, and says where it begins. */
		if (segment->len < 1 || strlen(segment->text) != segment->len ||
			(i > 0 && !segment->is_expr && !segment[-1].is_expr) ||
			segment->position != to - again + 1 + (segment->is_expr ? 1 : 0))
			abort();
		to = write_segment(to, segment);
	}
	if (to - again != len || memcmp(again, template->text, len) != 0)
		abort();
	free(again);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *text = malloc(size + 1);
	Template	template = {.text = text};
	int			position = 0;
	size_t		len;

	memcpy(text, data, size);
	text[size] = '\0';
	len = strlen(text);
	if (sigsetjmp(raised, 0) == 0)
	{
		template_parse(&template, &position);
		check_segments(&template, len);
	}
	else if (said != 2 || position < 1 || position > (int) len + 1)
		abort();
	while (nchunks > 0)
		free(chunks[--nchunks]);
	free(text);
	return 0;
}
