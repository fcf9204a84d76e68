/*
 * keypattern_int.h
 *	  Private to keypattern*.c: a pattern is a sequence of parts, literals and classes.
 *
 * A class must match every text that the type's output gives under the fixed settings, or
 * keys would stay in Redis.  It should match as little else as it can, or keys of other
 * applications would be deleted.
 */
#ifndef UNCACHE_KEYPATTERN_INT_H
#define UNCACHE_KEYPATTERN_INT_H

#include "base/invalidation.h"
#include "template/keypattern.h"

typedef struct KeyClassKind KeyClassKind;

/* A class with its numbers.  The texts of a list lie in KeyPattern.lists. */
typedef struct KeyClass
{
	const KeyClassKind *kind;
	int64		low;			/* of an integer; of a numeric the digits before ... */
	int64		high;			/* ... and behind the point */
	const char *list;			/* of {=...}: its texts, each with its null byte */
	const char *list_end;		/* NULL, as list, for any other class */
} KeyClass;

/* A set of positions in a key: 0 to its length, which is the position behind its end. */
typedef struct Positions
{
	uint8	   *bits;			/* of the positions from "first" to "last" */
	size_t		first;			/* first > last: the set is empty */
	size_t		last;
	bool		all;			/* all from first to last; bits mean nothing */
} Positions;

static inline bool
positions_has(const Positions *positions, size_t at)
{
	return at >= positions->first && at <= positions->last &&
		(positions->all || (positions->bits[at / 8] & (1 << (at % 8))) != 0);
}

/* The set must have been empty with all bits 0 at first; positions come in any order. */
static inline void
positions_add(Positions *positions, size_t at)
{
	Assert(!positions->all && at <= INVALIDATION_MAX_BYTES);
	positions->bits[at / 8] |= 1 << (at % 8);
	positions->first = Min(positions->first, at);
	positions->last = Max(positions->last, at);
}

/*
 * Parse the text between the braces of a class; false if it is malformed.  "room" gets the
 * texts of a list; it must have len bytes, which are never too few.
 */
extern bool keypattern_class_parse(KeyClass *class, const char *text, size_t len, char *room);

/* True for {any}, which matches every text, the empty one included. */
extern bool keypattern_class_is_any(const KeyClass *class);

/*
 * Add to "to" the positions where a text of the class can end that begins at a position of
 * "from".  Time grows with the length of the key; for a list, times the list's length.
 */
extern void keypattern_class_step(const KeyClass *class, const char *key, size_t len,
								  const Positions *from, Positions *to);

/* A literal or a class of a pattern. */
typedef struct Part
{
	bool		is_class;
	KeyClass	class;
	const char *literal;		/* into KeyPattern.text; not null-terminated */
	size_t		len;
} Part;

struct KeyPattern
{
	char	   *text;			/* all literals, unescaped, one after the other */
	char	   *lists;			/* the texts of all lists */
	char	   *glob;
	size_t		globlen;
	Part	   *parts;
	int			nparts;
	bool		is_glob;		/* the glob decides; there are no parts */
	size_t		head;			/* length of the literal beginning of text */
};

#endif							/* UNCACHE_KEYPATTERN_INT_H */
