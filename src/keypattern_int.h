/*
 * keypattern_int.h
 *	  What the files keypattern*.c share.
 *
 * A pattern is a row of parts, literals and classes.  A class is described by
 * shapes, any of which may fit.  A shape is a row of elements, each a character or a
 * set of them, with "?" behind it where it may be missing and "+" where it may be
 * repeated:
 *
 *		#	a digit			%	a lower-case hexadecimal digit
 *		@	what ISO dates and times are made of
 *		~	a sign			any other character: itself
 */
#ifndef UNCACHE_KEYPATTERN_INT_H
#define UNCACHE_KEYPATTERN_INT_H

#include "item.h"
#include "keypattern.h"

/* Most shapes of a class, most elements of a shape (a uuid has 36). */
#define KEYCLASS_MAX_SHAPES		6
#define KEYCLASS_MAX_ELEMENTS	40

typedef struct KeyClass
{
	const char *name;
	const char *shapes[KEYCLASS_MAX_SHAPES + 1]; /* none: anything fits */
} KeyClass;

typedef struct Part
{
	const KeyClass *class;		/* NULL: literal */
	const char *literal;		/* into the pattern's text */
	size_t		len;
} Part;

struct KeyPattern
{
	char	   *text;			/* all literals, unescaped, one after the other */
	char	   *glob;
	size_t		globlen;
	Part	   *parts;
	int			nparts;
	bool		is_glob;		/* matched by the glob alone */
	size_t		head;			/* length of text's literal beginning */
};

#endif							/* UNCACHE_KEYPATTERN_INT_H */
