/*
 * patternset.h
 *	  The patterns that one pass over the keys of Redis serves.
 */
#ifndef UNCACHE_PATTERNSET_H
#define UNCACHE_PATTERNSET_H

#include "postgres.h"

#include "item.h"
#include "keypattern.h"

typedef struct PassPattern
{
	struct PassPattern *next;
	PackedItem	item;			/* of the first that asked for it; not a copy */
	KeyPattern *matcher;
	bool		refused;		/* Redis has said no to it */
} PassPattern;

/* An empty set is NULL. */
typedef PassPattern *PatternSet;

/*
 * The pattern of an item in the set: equal items have the same one, and it is made,
 * in the current memory context, where it is new.  NULL where the item can't be read.
 */
extern PassPattern *patternset_add(PatternSet *set, const PackedItem *item);

/*
 * What to ask SCAN for, to find the keys of all patterns: palloc'd.  The set must not
 * be empty.
 */
extern char *patternset_glob(PatternSet set);

/* Free what the memory context does not hold, and leave the set empty. */
extern void patternset_free(PatternSet *set);

#endif							/* UNCACHE_PATTERNSET_H */
