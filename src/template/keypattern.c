/*
 * keypattern.c
 *	  Which keys a template can produce: parsing key patterns.
 *
 * Nothing here raises an ERROR.  Memory comes from malloc(), because the worker keeps
 * patterns longer than a transaction.
 */
#include "postgres.h"

#include "template/keypattern_int.h"

/* Most parts that a text can have: each brace may open a class with a literal before it. */
static size_t
count_parts(const char *text, size_t len)
{
	size_t		count = 1;

	for (size_t i = 0; i < len; i++)
		count += text[i] == '{' ? 2 : 0;
	return count;
}

/* Allocate a pattern for a text.  A glob may need a backslash before every byte. */
static KeyPattern *
make_pattern(const char *text, size_t len, bool is_glob)
{
	KeyPattern *pattern = calloc(1, sizeof(KeyPattern));

	if (pattern == NULL)
		return NULL;
	pattern->is_glob = is_glob;
	pattern->text = malloc(len + 1);
	pattern->glob = malloc(2 * len + 1);
	if (!is_glob)
	{
		pattern->parts = malloc(count_parts(text, len) * sizeof(Part));
		pattern->lists = malloc(len + 1);
	}
	if (pattern->text == NULL || pattern->glob == NULL ||
		(!is_glob && (pattern->parts == NULL || pattern->lists == NULL)))
	{
		keypattern_free(pattern);
		return NULL;
	}
	return pattern;
}

void
keypattern_free(KeyPattern *pattern)
{
	if (pattern == NULL)
		return;
	free(pattern->text);
	free(pattern->glob);
	free(pattern->parts);
	free(pattern->lists);
	free(pattern);
}

/* The brace that closes a class, or NULL; in a list a brace behind a backslash does not. */
static const char *
end_of_class(const char *text, const char *end)
{
	if (text < end && *text != '=')
		return memchr(text, '}', end - text);
	for (; text < end; text++)
	{
		if (*text == '}')
			return text;
		if (*text == '\\')
			text++;
	}
	return NULL;
}

/* Append a literal byte to the last part, or to a new one behind a class. */
static void
add_literal(KeyPattern *pattern, char **to, char c)
{
	Part	   *part;

	if (pattern->nparts == 0 || pattern->parts[pattern->nparts - 1].is_class)
	{
		part = &pattern->parts[pattern->nparts++];
		part->is_class = false;
		part->literal = *to;
		part->len = 0;
	}
	part = &pattern->parts[pattern->nparts - 1];
	part->len++;
	*(*to)++ = c;

	if (glob_is_special(c))
		pattern->glob[pattern->globlen++] = '\\';
	pattern->glob[pattern->globlen++] = c;
}

/* Append the class that stands in braces; false if it is malformed. */
static bool
add_class(KeyPattern *pattern, const char *text, size_t len, char **lists)
{
	Part	   *part = &pattern->parts[pattern->nparts++];

	memset(part, 0, sizeof(*part));
	part->is_class = true;
	if (!keypattern_class_parse(&part->class, text, len, *lists))
		return false;
	if (part->class.list != NULL)
		*lists += part->class.list_end - part->class.list;
	if (pattern->nparts == 1 || !part[-1].is_class)
		pattern->glob[pattern->globlen++] = '*';
	return true;
}

/* Fill the parts and the glob; false if the text is malformed. */
static bool
parse_parts(KeyPattern *pattern, const char *text, size_t len)
{
	char	   *to = pattern->text;
	char	   *lists = pattern->lists;

	if (memchr(text, '\0', len) != NULL)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		const char *end;

		if (text[i] != '{' && text[i] != '}')
		{
			add_literal(pattern, &to, text[i]);
			continue;
		}
		if (i + 1 < len && text[i + 1] == text[i])
		{
			add_literal(pattern, &to, text[i++]);
			continue;
		}
		if (text[i] == '}' ||
			(end = end_of_class(text + i + 1, text + len)) == NULL ||
			!add_class(pattern, text + i + 1, end - (text + i + 1), &lists))
			return false;
		i = end - text;
	}
	Assert(to - pattern->text <= len && lists - pattern->lists <= len);
	Assert(pattern->nparts <= count_parts(text, len) && pattern->globlen <= 2 * len);
	pattern->glob[pattern->globlen] = '\0';
	pattern->head = pattern->nparts > 0 && !pattern->parts[0].is_class ?
		pattern->parts[0].len : 0;
	return true;
}

KeyPattern *
keypattern_parse(const char *text, size_t len)
{
	KeyPattern *pattern = make_pattern(text, len, false);

	if (pattern != NULL && !parse_parts(pattern, text, len))
	{
		keypattern_free(pattern);
		pattern = NULL;
	}
	return pattern;
}

KeyPattern *
keypattern_from_glob(const char *glob, size_t len)
{
	KeyPattern *pattern;
	size_t		at = 0;

	if (memchr(glob, '\0', len) != NULL ||
		(pattern = make_pattern(glob, len, true)) == NULL)
		return NULL;
	memcpy(pattern->glob, glob, len);
	pattern->glob[len] = '\0';
	pattern->globlen = len;

	while (at < len && strchr("*?[", glob[at]) == NULL)
	{
		if (glob[at] == '\\' && at + 1 < len)
			at++;
		pattern->text[pattern->head++] = glob[at++];
	}
	Assert(pattern->head <= len);
	return pattern;
}

const char *
keypattern_glob(const KeyPattern *pattern)
{
	return pattern->glob;
}

const char *
keypattern_literal_head(const KeyPattern *pattern, size_t *len)
{
	*len = pattern->head;
	return pattern->text;
}
