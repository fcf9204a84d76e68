/*
 * key_class.h
 *	  What may stand in a key where a template has an expression: classes.
 *
 * A class is written in the braces of a key pattern (keypattern.h), as a name, and for
 * some with numbers behind it.  It must take whatever the type's output gives under the
 * fixed settings, or keys would be left; and it should take as little else as it can, so
 * that other people's keys are left.
 *
 * These functions need nothing of a running server.
 */
#ifndef UNCACHE_KEYCLASS_H
#define UNCACHE_KEYCLASS_H

#include "postgres.h"

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
extern bool key_class_parse(KeyClass *class, const char *text, size_t len, char *room);

/* Whether everything fits, the empty text included. */
extern bool key_class_is_any(const KeyClass *class);

/*
 * Add to "to" the places where a text of the class can end that begins at one of "from".
 * Time grows with the length of the key, for a list times the list's.
 */
extern void key_class_step(const KeyClass *class, const char *key, size_t len,
						  const Places *from, Places *to);

#endif							/* UNCACHE_KEYCLASS_H */
