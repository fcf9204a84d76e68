/*
 * keypattern.c
 *	  Which keys a template can produce: parsing key patterns, and matching.
 *
 * A pattern is a row of parts.  Matching goes from part to part and keeps, as
 * bits, the set of places in the key where the part may begin; the part turns it
 * into the set of places where the next one may begin.  So nothing is ever tried
 * twice, and no key can make the match slow.
 *
 * A class is described by shapes, any of which may fit.  A shape is a row of
 * elements, each a character or a set of them, with "?" behind it where it may
 * be missing and "+" where it may be repeated:
 *
 *		#	a digit			%	a lower-case hexadecimal digit
 *		@	what ISO dates and times are made of
 *		~	a sign			any other character: itself
 *
 * Nothing here raises; memory comes from malloc, because the worker keeps
 * patterns over transactions.
 */
#include "postgres.h"

#include "item.h"
#include "keypattern.h"

/* Most shapes of a class, most elements of a shape (a uuid has 36). */
#define MAX_SHAPES		6
#define MAX_ELEMENTS	40

typedef struct KeyClass
{
	const char *name;
	const char *shapes[MAX_SHAPES + 1]; /* none: anything fits */
} KeyClass;

static const KeyClass key_classes[] = {
	{"any", {NULL}},
	{"integer", {"-?#+", NULL}},
	{"uuid", {"%%%%%%%%-%%%%-%%%%-%%%%-%%%%%%%%%%%%", NULL}},
	{"boolean", {"t", "f", NULL}},
	{"number", {"-?#+", "-?#+.#+", "-?#+e~?#+", "-?#+.#+e~?#+", "-?Infinity", "NaN", NULL}},
	{"time", {"@+", "@+ BC", "-?infinity", NULL}},
};

typedef struct Part
{
	const KeyClass *class;		/* NULL: literal */
	const char *literal;		/* into the pattern's text */
	size_t		len;
} Part;

/* One bit for each place in a key, the place behind its end included. */
#define PLACE_BYTES		(ITEM_MAX_BYTES / 8 + 1)

struct KeyPattern
{
	char	   *text;			/* all literals, unescaped, one after the other */
	char	   *glob;
	size_t		globlen;
	Part	   *parts;
	int			nparts;
	bool		is_glob;		/* matched by the glob alone */
	size_t		head;			/* length of text's literal beginning */
	uint8	   *places[2];		/* PLACE_BYTES each; unused where is_glob */
};

/*
 * --------------------------------------------------------------------------
 * Making patterns
 * --------------------------------------------------------------------------
 */

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
	{
		pattern->parts = malloc((len + 1) * sizeof(Part));
		pattern->places[0] = malloc(PLACE_BYTES);
		pattern->places[1] = malloc(PLACE_BYTES);
	}
	if (pattern->text == NULL || pattern->glob == NULL ||
		(!is_glob && (pattern->parts == NULL || pattern->places[0] == NULL ||
					  pattern->places[1] == NULL)))
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
	free(pattern->places[0]);
	free(pattern->places[1]);
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

	if (strchr("*?[]\\", c) != NULL)
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

/*
 * --------------------------------------------------------------------------
 * Matching
 * --------------------------------------------------------------------------
 */

static inline bool
has_place(const uint8 *places, size_t at)
{
	return (places[at / 8] & (1 << (at % 8))) != 0;
}

static inline void
add_place(uint8 *places, size_t at)
{
	places[at / 8] |= 1 << (at % 8);
}

static bool
element_has(char element, char c)
{
	switch (element)
	{
		case '#':
			return c >= '0' && c <= '9';
		case '%':
			return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		case '@':
			return (c >= '0' && c <= '9') ||
				(c != '\0' && strchr(" :.+-", c) != NULL);
		case '~':
			return c == '+' || c == '-';
		default:
			return c == element;
	}
}

/* A shape taken apart: bit i of a mask stands for the element i. */
typedef struct Shape
{
	char		element[MAX_ELEMENTS];
	int			nelements;
	uint64		optional;
	uint64		repeated;
} Shape;

static void
read_shape(Shape *shape, const char *text)
{
	memset(shape, 0, sizeof(*shape));
	for (; *text; text++)
	{
		if (*text == '?')
			shape->optional |= UINT64CONST(1) << (shape->nelements - 1);
		else if (*text == '+' && shape->nelements > 0)
			shape->repeated |= UINT64CONST(1) << (shape->nelements - 1);
		else
			shape->element[shape->nelements++] = *text;
	}
	Assert(shape->nelements < MAX_ELEMENTS);
}

/* Bit i of "at": element i may come next.  Add what lies behind optional ones. */
static uint64
skip_optional(const Shape *shape, uint64 at)
{
	uint64		more = (at & shape->optional) << 1;

	while ((more & ~at) != 0)
	{
		at |= more;
		more = (at & shape->optional) << 1;
	}
	return at;
}

/* Add to "to" the places where the shape can end that begins at one of "from". */
static void
step_shape(const Shape *shape, const char *key, size_t len,
		   const uint8 *from, uint8 *to)
{
	uint64		done = UINT64CONST(1) << shape->nelements;
	uint64		at = 0;

	for (size_t k = 0; k <= len; k++)
	{
		uint64		next = 0;

		if (has_place(from, k))
			at |= skip_optional(shape, 1);
		if (at & done)
			add_place(to, k);
		if (k == len)
			break;
		for (int i = 0; i < shape->nelements && at != 0; i++)
		{
			uint64		bit = UINT64CONST(1) << i;

			if ((at & bit) != 0 && element_has(shape->element[i], key[k]))
				next |= (bit << 1) | (bit & shape->repeated);
		}
		at = skip_optional(shape, next);
	}
}

static void
step_any(size_t len, const uint8 *from, uint8 *to)
{
	bool		begun = false;

	for (size_t k = 0; k <= len; k++)
	{
		begun = begun || has_place(from, k);
		if (begun)
			add_place(to, k);
	}
}

static void
step_literal(const Part *part, const char *key, size_t len,
			 const uint8 *from, uint8 *to)
{
	for (size_t k = 0; k + part->len <= len; k++)
	{
		if (has_place(from, k) &&
			memcmp(key + k, part->literal, part->len) == 0)
			add_place(to, k + part->len);
	}
}

static void
step_part(const Part *part, const char *key, size_t len,
		  const uint8 *from, uint8 *to)
{
	if (part->class == NULL)
		step_literal(part, key, len, from, to);
	else if (part->class->shapes[0] == NULL)
		step_any(len, from, to);
	else
	{
		for (int i = 0; part->class->shapes[i] != NULL; i++)
		{
			Shape		shape;

			read_shape(&shape, part->class->shapes[i]);
			step_shape(&shape, key, len, from, to);
		}
	}
}

bool
keypattern_matches(const KeyPattern *pattern, const char *key, size_t len)
{
	uint8	   *from;
	uint8	   *to;
	size_t		bytes = len / 8 + 1;

	if (pattern->is_glob)
		return glob_matches(pattern->glob, pattern->globlen, key, len);

	/* No rule makes longer keys; and most candidates fail at the head. */
	if (len > ITEM_MAX_BYTES || len < pattern->head ||
		memcmp(key, pattern->text, pattern->head) != 0)
		return false;

	from = pattern->places[0];
	to = pattern->places[1];
	memset(from, 0, bytes);
	add_place(from, 0);
	for (int i = 0; i < pattern->nparts; i++)
	{
		uint8	   *swap = from;

		memset(to, 0, bytes);
		step_part(&pattern->parts[i], key, len, from, to);
		from = to;
		to = swap;
	}
	return has_place(from, len);
}
