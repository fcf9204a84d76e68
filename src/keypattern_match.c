/*
 * keypattern_match.c
 *	  Which keys a template can produce: whether a key is one of them.
 *
 * Matching goes from part to part and keeps, as bits, the set of places in the key
 * where the part may begin; the part turns it into the set of places where the next
 * one may begin.  So nothing is ever tried twice, and no key can make the match slow.
 */
#include "postgres.h"

#include "keypattern_int.h"

/*
 * The places before a part and behind it, one bit for each place in a key, the place behind
 * its end included.  All patterns share them, since a worker may hold tens of thousands.
 */
#define PLACE_BYTES		(ITEM_MAX_BYTES / 8 + 1)
static uint8 room[2][PLACE_BYTES];

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

/* Whether any place is set.  Of a pattern with many parts most keys fail early. */
static bool
has_any(const uint8 *places, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
	{
		if (places[i] != 0)
			return true;
	}
	return false;
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
	char		element[KEYCLASS_MAX_ELEMENTS];
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
	Assert(shape->nelements < KEYCLASS_MAX_ELEMENTS);
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

	from = room[0];
	to = room[1];
	memset(from, 0, bytes);
	add_place(from, 0);
	for (int i = 0; i < pattern->nparts; i++)
	{
		uint8	   *swap = from;

		memset(to, 0, bytes);
		step_part(&pattern->parts[i], key, len, from, to);
		if (!has_any(to, bytes))
			return false;
		from = to;
		to = swap;
	}
	return has_place(from, len);
}
