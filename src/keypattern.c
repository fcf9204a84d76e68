/*
 * keypattern.c
 *	  Which keys a template can produce: parsing key patterns.
 *
 * Nothing here raises; memory comes from malloc, because the worker keeps
 * patterns over transactions.
 */
#include "postgres.h"

#include "keypattern_int.h"

static const KeyClass key_classes[] = {
	{"any", {NULL}},
	{"integer", {"-?#+", NULL}},
	{"uuid", {"%%%%%%%%-%%%%-%%%%-%%%%-%%%%%%%%%%%%", NULL}},
	{"boolean", {"t", "f", NULL}},
	{"number", {"-?#+", "-?#+.#+", "-?#+e~?#+", "-?#+.#+e~?#+", "-?Infinity", "NaN", NULL}},
	{"time", {"@+", "@+ BC", "-?infinity", NULL}},
};

/*
 * A pattern with room for what a text of "len" bytes can need: a glob in which
 * every byte is escaped, and a part for every byte.
 */
static KeyPattern *
make_pattern(size_t len, bool is_glob)
{
	KeyPattern *pattern = calloc(1, sizeof(KeyPattern));

	if (pattern == NULL)
		return NULL;
	pattern->is_glob = is_glob;
	pattern->text = malloc(len + 1);
	pattern->glob = malloc(2 * len + 1);
	if (!is_glob)
		pattern->parts = malloc((len + 1) * sizeof(Part));
	if (pattern->text == NULL || pattern->glob == NULL || (!is_glob && pattern->parts == NULL))
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
	free(pattern);
}

static const KeyClass *
find_class(const char *name, size_t len)
{
	for (int i = 0; i < lengthof(key_classes); i++)
	{
		if (strlen(key_classes[i].name) == len &&
			memcmp(key_classes[i].name, name, len) == 0)
			return &key_classes[i];
	}
	return NULL;
}

static void
add_literal(KeyPattern *pattern, char **to, char c)
{
	Part	   *part;

	if (pattern->nparts == 0 || pattern->parts[pattern->nparts - 1].class != NULL)
	{
		part = &pattern->parts[pattern->nparts++];
		part->class = NULL;
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

static void
add_class(KeyPattern *pattern, const KeyClass *class)
{
	Part	   *part = &pattern->parts[pattern->nparts++];

	part->class = class;
	part->literal = NULL;
	part->len = 0;
	if (pattern->globlen == 0 || pattern->parts[pattern->nparts - 2].class == NULL)
		pattern->glob[pattern->globlen++] = '*';
}

/* Fill the parts; false where the text is malformed. */
static bool
parse_parts(KeyPattern *pattern, const char *text, size_t len)
{
	char	   *to = pattern->text;

	for (size_t i = 0; i < len; i++)
	{
		const char *end;
		const KeyClass *class;

		if (text[i] == '\0')
			return false;
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
			(end = memchr(text + i, '}', len - i)) == NULL ||
			(class = find_class(text + i + 1, end - (text + i + 1))) == NULL)
			return false;
		add_class(pattern, class);
		i = end - text;
	}
	pattern->glob[pattern->globlen] = '\0';
	pattern->head = pattern->nparts > 0 ? pattern->parts[0].len : 0;
	return true;
}

KeyPattern *
keypattern_parse(const char *text, size_t len)
{
	KeyPattern *pattern = make_pattern(len, false);

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
		(pattern = make_pattern(len, true)) == NULL)
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
