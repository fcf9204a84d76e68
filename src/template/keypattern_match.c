/*
 * keypattern_match.c
 *	  Which keys a template can produce: whether a key is one of them.
 *
 * Matching goes from part to part and keeps the set of places in the key where the part
 * may begin; the part turns it into the set of places where the next one may begin.
 * So nothing is ever tried twice, and no key can make the match slow.
 *
 * The set is kept as bits, but behind {any} it is every place from one on.  Then the
 * first place where a literal stands will do if {any} follows again, and the last one if
 * nothing does; so a template of many texts costs what looking for its literals
 * costs, in their order.
 */
#include "postgres.h"

#include <limits.h>

#include "template/keypattern_int.h"

/* Bits of the two sets of a match, for the longest key; one match at a time needs them. */
#define PLACE_BYTES		(INVALIDATION_MAX_BYTES / 8 + 1)
static uint8 place_bits[2][PLACE_BYTES];

static void
make_empty(Places *places, size_t len)
{
	memset(places->bits, 0, len / 8 + 1);
	places->first = len + 1;
	places->last = 0;
	places->all = false;
}

/* Where the literal stands first, from a place on; len + 1 where it does not. */
static size_t
find_literal(const Part *part, const char *key, size_t len, size_t at)
{
	while (at + part->len <= len)
	{
		const char *found = memchr(key + at, part->literal[0], len - part->len - at + 1);

		if (found == NULL)
			break;
		at = found - key;
		if (memcmp(found, part->literal, part->len) == 0)
			return at;
		at++;
	}
	return len + 1;
}

/* Behind {any}.  "next" is the part that follows, NULL for none. */
static void
step_literal_anywhere(const Part *part, const Part *next, const char *key, size_t len,
					  const Places *from, Places *to)
{
	size_t		at = from->first;

	if (next == NULL)
		at = Max(at, len - Min(len, part->len));
	while ((at = find_literal(part, key, len, at)) <= len)
	{
		places_add(to, at + part->len);
		if (next != NULL && next->is_class && keypattern_class_is_any(&next->class))
			break;
		at++;
	}
}

static void
step_literal(const Part *part, const Part *next, const char *key, size_t len,
			 const Places *from, Places *to)
{
	if (from->all)
	{
		step_literal_anywhere(part, next, key, len, from, to);
		return;
	}
	for (size_t k = from->first; k <= from->last && k + part->len <= len; k++)
	{
		if (places_has(from, k) &&
			memcmp(key + k, part->literal, part->len) == 0)
			places_add(to, k + part->len);
	}
}

static void
step_part(const Part *part, const Part *next, const char *key, size_t len,
		  const Places *from, Places *to)
{
	if (!part->is_class)
		step_literal(part, next, key, len, from, to);
	else if (keypattern_class_is_any(&part->class))
	{
		to->first = from->first;
		to->last = len;
		to->all = true;
	}
	else
		keypattern_class_step(&part->class, key, len, from, to);
}

/* Most keys fail at the beginning, or at the end. */
static bool
ends_fit(const KeyPattern *pattern, const char *key, size_t len)
{
	const Part *last;

	if (len < pattern->head || memcmp(key, pattern->text, pattern->head) != 0)
		return false;
	if (pattern->nparts == 0)
		return len == 0;
	last = &pattern->parts[pattern->nparts - 1];
	return last->is_class ||
		(len >= last->len &&
		 memcmp(key + len - last->len, last->literal, last->len) == 0);
}

int
keypattern_work(const KeyPattern *pattern, size_t len)
{
	size_t		parts = pattern->is_glob ? 1 : pattern->nparts;
	size_t		bytes = Min(len, INVALIDATION_MAX_BYTES) + 1;

	return (int) Min(parts * bytes, INT_MAX);
}

bool
keypattern_matches(const KeyPattern *pattern, const char *key, size_t len)
{
	Places		sets[2] = {{place_bits[0]}, {place_bits[1]}};
	Places	   *from = &sets[0];
	Places	   *to = &sets[1];

	if (pattern->is_glob)
		return keypattern_match_glob(pattern->glob, pattern->globlen, key, len);

	/* No rule makes longer keys. */
	if (len > INVALIDATION_MAX_BYTES || !ends_fit(pattern, key, len))
		return false;

	make_empty(from, len);
	places_add(from, 0);
	for (int i = 0; i < pattern->nparts && from->first <= from->last; i++)
	{
		Places	   *swap = from;

		make_empty(to, len);
		step_part(&pattern->parts[i],
				  i + 1 < pattern->nparts ? &pattern->parts[i + 1] : NULL,
				  key, len, from, to);
		from = to;
		to = swap;
	}
	return places_has(from, len);
}

/*
 * --------------------------------------------------------------------------
 * Redis's globs
 * --------------------------------------------------------------------------
 */

/*
 * Match one character against the class that begins behind "[" at *at, and move
 * *at behind its "]".  As in Redis a class that is not closed ends with the glob,
 * and a range may be written backwards.
 */
static bool
glob_class_has(const char *glob, size_t globlen, size_t *at, unsigned char c)
{
	size_t		i = *at;
	bool		negated = i < globlen && glob[i] == '^';
	bool		found = false;

	if (negated)
		i++;
	while (i < globlen && glob[i] != ']')
	{
		unsigned char low;
		unsigned char high;

		if (glob[i] == '\\' && i + 1 < globlen)
		{
			low = high = (unsigned char) glob[i + 1];
			i += 2;
		}
		else if (i + 2 < globlen && glob[i + 1] == '-')
		{
			low = Min((unsigned char) glob[i], (unsigned char) glob[i + 2]);
			high = Max((unsigned char) glob[i], (unsigned char) glob[i + 2]);
			i += 3;
		}
		else
		{
			low = high = (unsigned char) glob[i];
			i++;
		}
		if (c >= low && c <= high)
			found = true;
	}
	*at = i < globlen ? i + 1 : i;
	return found != negated;
}

/* Match one character against the element at *at, which is no star. */
static bool
glob_element_has(const char *glob, size_t globlen, size_t *at, char c)
{
	char		first = glob[(*at)++];

	if (first == '?')
		return true;
	if (first == '[')
		return glob_class_has(glob, globlen, at, (unsigned char) c);
	if (first == '\\' && *at < globlen)
		first = glob[(*at)++];
	return first == c;
}

bool
keypattern_match_glob(const char *glob, size_t globlen, const char *key, size_t len)
{
	size_t		g = 0;
	size_t		k = 0;
	size_t		behind_star = 0;	/* 0: no star seen yet */
	size_t		star_key = 0;

	/* Only the last star ever has to be stretched: it can take all that others could. */
	while (k < len)
	{
		if (g < globlen && glob[g] == '*')
		{
			behind_star = ++g;
			star_key = k;
			continue;
		}
		if (g < globlen && glob_element_has(glob, globlen, &g, key[k]))
		{
			k++;
			continue;
		}
		if (behind_star == 0)
			return false;
		g = behind_star;
		k = ++star_key;
	}
	while (g < globlen && glob[g] == '*')
		g++;
	return g == globlen;
}
