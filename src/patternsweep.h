/*
 * patternsweep.h
 *	  SCAN and UNLINK at the nodes: the steps of a pass that delete keys.
 */
#ifndef UNCACHE_PATTERNSWEEP_H
#define UNCACHE_PATTERNSWEEP_H

#include "postgres.h"

#include "node.h"
#include "patternset.h"
#include "shmem.h"

/* How far it is, and what has gone wrong so far. */
typedef struct PatternSweep
{
	int			under_way;		/* commands without an answer; 0: every node is through */
	bool		lost;			/* a command was lost, or a link is of no use */
	bool		missed;			/* a key has moved in the cluster before it was deleted */
} PatternSweep;

/* Once, in the worker.  "answered" is called after each answer, when all is counted. */
extern void patternsweep_init(DatabaseSlot *slot, void (*answered) (void));

/*
 * Begin with no node yet.  The set must not be empty; it and the current memory context
 * must stay until the last answer.  "asking": keys may be at nodes of a cluster that do not
 * have their slots yet.  What is returned goes on changing until the next call of this.
 */
extern const PatternSweep *patternsweep_begin(PatternSet set, bool asking);

/* Walk the keys of a node that is open.  Where Redis says no, PassPattern.refused is set. */
extern void patternsweep_node(RedisNode *node);

/* What is under way will not be answered, and the set is going away. */
extern void patternsweep_end(void);

#endif							/* UNCACHE_PATTERNSWEEP_H */
