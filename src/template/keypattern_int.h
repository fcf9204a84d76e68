/*
 * keypattern_int.h
 *	  What the files keypattern*.c share.
 *
 * A pattern is a row of parts, literals and classes.
 */
#ifndef UNCACHE_KEYPATTERN_INT_H
#define UNCACHE_KEYPATTERN_INT_H

#include "base/invalidation.h"
#include "template/key_class.h"
#include "template/keypattern.h"

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
