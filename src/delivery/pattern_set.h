/*
 * pattern_set.h
 *	  The patterns that one pass over the keys of Redis serves, found by a key's beginning.
 */
#ifndef UNCACHE_PATTERN_SET_H
#define UNCACHE_PATTERN_SET_H

#include "postgres.h"

#include "base/invalidation.h"
#include "template/keypattern.h"

typedef struct PassPattern
{
	struct PassPattern *next;	/* in the set */
	struct PassPattern *next_of_head;	/* with the same literal head */
	Invalidation item;			/* of the first that asked for it; not a copy */
	KeyPattern *matcher;
	bool		refused;		/* Redis has said no to it */
	bool		aside;			/* to look for its keys breaks the link */
} PassPattern;

typedef struct PatternSet PatternSet;

/* An empty one, in the current memory context. */
extern PatternSet *pattern_set_make(void);

/*
 * The pattern of an item in the set: equal items have the same one.  The item's bytes must
 * stay as long as the set.  NULL where the item can't be read.
 */
extern PassPattern *pattern_set_add(PatternSet *set, const Invalidation *item);

extern int	pattern_set_count(const PatternSet *set);
extern PassPattern *pattern_set_first(const PatternSet *set);

/*
 * The MATCH of a SCAN that finds the keys of all patterns; or of "count" of them, from the
 * one of this number on, in the order of their heads (the first call sorts them).  In the
 * current memory context.  The set must not be empty.
 */
extern char *pattern_set_glob(const PatternSet *set);
extern char *pattern_set_glob_of(PatternSet *set, int from, int count);

/* The pattern of this number in the order of their heads. */
extern PassPattern *pattern_set_nth(PatternSet *set, int n);

/*
 * A search for the patterns that may cover a key: those whose literal head it begins with.
 * The key must stay.  Each call does a little: it returns false at the end, else sets
 * *candidate, to NULL where it has not found one yet.
 */
typedef struct PatternSearch
{
	const PatternSet *set;
	const char *key;
	size_t		len;
	int			nlengths;		/* lengths of heads that were looked at */
	size_t		hashed;			/* bytes of the key in "hash" */
	uint32		hash;
	PassPattern *more;			/* candidates not given yet */
} PatternSearch;

extern void pattern_set_search(PatternSearch *search, const PatternSet *set, const char *key,
							   size_t len);
extern bool pattern_set_next(PatternSearch *search, PassPattern **candidate);

/*
 * Free memory of at most so many patterns that is not in the memory context of the set.
 * Returns whether nothing is left.  In between the set can't be used otherwise.
 */
extern bool pattern_set_free_some(PatternSet *set, int most);

#endif							/* UNCACHE_PATTERN_SET_H */
