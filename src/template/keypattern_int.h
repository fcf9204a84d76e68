/*
 * keypattern_int.h
 *	  What the files keypattern*.c share.
 *
 * A pattern is a row of parts, literals and classes.
 */
#ifndef UNCACHE_KEYPATTERN_INT_H
#define UNCACHE_KEYPATTERN_INT_H

#include "base/invalidation.h"
#include "template/keypattern.h"

typedef struct KeyClassKind KeyClassKind;

/* A class with its numbers.  The text behind "list" belongs to whoever reads it. */
typedef struct KeyClass
{
	const KeyClassKind *kind;
	int64		low;			/* of an integer; of a numeric the digits before ... */
	int64		high;			/* ... and behind the point */
	const char *list;			/* texts of which it is one, each with its null byte */
	const char *list_end;
} KeyClass;

/* A set of places in a key, the place behind its end included. */
typedef struct Places
{
	uint8	   *bits;			/* of the places from "first" to "last" */
	size_t		first;			/* none: first > last */
	size_t		last;
	bool		all;			/* every place from first to last; bits mean nothing */
} Places;

static inline bool
places_has(const Places *places, size_t at)
{
	return at >= places->first && at <= places->last &&
		(places->all || (places->bits[at / 8] & (1 << (at % 8))) != 0);
}

/* In any order.  All bits must have been 0 when the set was empty. */
static inline void
places_add(Places *places, size_t at)
{
	places->bits[at / 8] |= 1 << (at % 8);
	places->first = Min(places->first, at);
	places->last = Max(places->last, at);
}

/*
 * Read what stands between the braces; false where it is no class.  "room" takes the
 * texts of a list, which are never longer than what they are read from.
 */
extern bool keypattern_class_parse(KeyClass *class, const char *text, size_t len, char *room);

/* Whether everything fits, the empty text included. */
extern bool keypattern_class_is_any(const KeyClass *class);

/*
 * Add to "to" the places where a text of the class can end that begins at one of "from".
 * Time grows with the length of the key, for a list times the list's.
 */
extern void keypattern_class_step(const KeyClass *class, const char *key, size_t len,
						  const Places *from, Places *to);

typedef struct Part
{
	bool		is_class;
	KeyClass	class;
	const char *literal;		/* into the pattern's text */
	size_t		len;
} Part;

struct KeyPattern
{
	char	   *text;			/* all literals, unescaped, one after the other */
	char	   *lists;			/* the texts of lists */
	char	   *glob;
	size_t		globlen;
	Part	   *parts;
	int			nparts;
	bool		is_glob;		/* matched by the glob alone */
	size_t		head;			/* length of text's literal beginning */
};

#endif							/* UNCACHE_KEYPATTERN_INT_H */
