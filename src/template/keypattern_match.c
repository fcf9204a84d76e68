/*
 * keypattern_match.c
 *	  Which keys a template can produce: whether a key is one of them.  And Redis's globs.
 *
 * Matching goes through the parts in their order.  It keeps the set of positions in the key
 * at which the part may begin; the part turns this set into the set of positions at which
 * the next part may begin.  So nothing is tried twice, and no key can make a match slow.
 *
 * The set is kept as bits, but behind {any} it is every position from the first one on.  A
 * literal that follows is then searched for: if {any} comes next, its first occurrence is
 * enough; if nothing comes next, only the key's end counts.  So a template of many texts
 * costs as much as searching for its literals one after the other.
 */
#include "postgres.h"

#include <limits.h>

#include "template/keypattern_int.h"

/* Bits of the two sets of a match, large enough for the longest key.  Matches do not nest. */
#define POSITION_BYTES		(INVALIDATION_MAX_BYTES / 8 + 1)
static uint8 position_bits[2][POSITION_BYTES];

static void
make_empty(Positions *positions, size_t len)
{
	memset(positions->bits, 0, len / 8 + 1);
	positions->first = len + 1;
	positions->last = 0;
	positions->all = false;
}

/* The first position of a literal, from "at" on; len + 1 if there is none. */
static size_t
find_literal(const Part *part, const char *key, size_t len, size_t at)
{
	Assert(!part->is_class && part->len > 0);
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

/* A literal behind {any}.  "next" is the part that follows, or NULL. */
static void
step_literal_anywhere(const Part *part, const Part *next, const char *key, size_t len,
					  const Positions *from, Positions *to)
{
	size_t		at = from->first;

	Assert(from->last == len);	/* as {any} leaves it */
	if (next == NULL)
		at = Max(at, len - Min(len, part->len));
	while ((at = find_literal(part, key, len, at)) <= len)
	{
		positions_add(to, at + part->len);
		if (next != NULL && next->is_class && keypattern_class_is_any(&next->class))
			break;
		at++;
	}
}

static void
step_literal(const Part *part, const Part *next, const char *key, size_t len,
			 const Positions *from, Positions *to)
{
	if (from->all)
	{
		step_literal_anywhere(part, next, key, len, from, to);
		return;
	}
	for (size_t k = from->first; k <= from->last && k + part->len <= len; k++)
	{
		if (positions_has(from, k) &&
			memcmp(key + k, part->literal, part->len) == 0)
			positions_add(to, k + part->len);
	}
}

static void
step_part(const Part *part, const Part *next, const char *key, size_t len,
		  const Positions *from, Positions *to)
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

/* A cheap test first, which most keys fail: the literals at the beginning and at the end. */
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
	Positions	sets[2] = {{position_bits[0]}, {position_bits[1]}};
	Positions  *from = &sets[0];
	Positions  *to = &sets[1];

	if (pattern->is_glob)
		return keypattern_match_glob(pattern->glob, pattern->globlen, key, len);

	/* No rule makes longer keys, and position_bits has no room for them. */
	if (len > INVALIDATION_MAX_BYTES || !ends_fit(pattern, key, len))
		return false;

	make_empty(from, len);
	positions_add(from, 0);
	for (int i = 0; i < pattern->nparts && from->first <= from->last; i++)
	{
		Positions  *swap = from;

		make_empty(to, len);
		step_part(&pattern->parts[i],
				  i + 1 < pattern->nparts ? &pattern->parts[i + 1] : NULL,
				  key, len, from, to);
		from = to;
		to = swap;
	}
	return positions_has(from, len);
}

/*
 * --------------------------------------------------------------------------
 * Redis's globs
 * --------------------------------------------------------------------------
 */

/*
 * True if the set that begins behind "[" at *at has the character; moves *at behind its "]".
 * As in Redis, the end of the glob closes a set, too, and a range may be written backwards.
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

/* True if the element at *at, which is no star, matches the character; moves behind it. */
static bool
glob_element_has(const char *glob, size_t globlen, size_t *at, char c)
{
	char		first = glob[(*at)++];

	Assert(first != '*' && *at <= globlen);
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
	size_t		behind_star = 0;	/* 0: there was no star yet */
	size_t		star_key = 0;

	/* After a mismatch the last star takes one more character; earlier stars need not. */
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
		Assert(glob[behind_star - 1] == '*' && star_key < len);
		g = behind_star;
		k = ++star_key;
	}
	while (g < globlen && glob[g] == '*')
		g++;
	return g == globlen;
}
