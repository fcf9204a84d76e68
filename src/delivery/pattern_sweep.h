/*
 * pattern_sweep.h
 *	  SCAN and UNLINK at the nodes: the steps of a pass that delete keys.
 */
#ifndef UNCACHE_PATTERN_SWEEP_H
#define UNCACHE_PATTERN_SWEEP_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"
#include "delivery/pattern_set.h"
#include "shmem/shmem.h"

/* Failures of the running sweep. */
typedef struct PatternSweep
{
	bool		lost;			/* a command was not answered, or a node refused to walk */
	bool		missed;			/* a key may have been missed: it moved, or the table changed */
} PatternSweep;

/* Once, in the worker.  "answered" is called after each answer, when all is counted. */
extern void pattern_sweep_init(void (*answered) (void));

/*
 * Begin with no node yet.  The set must not be empty; it and the current memory context
 * must stay until pattern_sweep_end().  "asking": keys may be at nodes of a cluster that do
 * not have their slots yet.
 */
extern void pattern_sweep_begin(PatternSet *set, bool asking);

/*
 * Walk the keys of a node that is open.  Where Redis says no, PassPattern.refused is set;
 * where a look for the keys of a pattern breaks the link, PassPattern.aside.
 */
extern void pattern_sweep_node(RedisNode *node);

/* The node's link is gone: if it was not walked to the end the sweep is lost. */
extern void pattern_sweep_leave(RedisNode *node);

/* Do the next slice.  Returns when to call it again; DT_NOEND: when an answer has come. */
extern TimestampTz pattern_sweep_run(void);

/* Whether every node is through, and all commands are answered. */
extern bool pattern_sweep_is_done(void);
extern PatternSweep pattern_sweep_state(void);

/* The set is going away.  Answers that are still due are ignored. */
extern void pattern_sweep_end(void);

#endif							/* UNCACHE_PATTERN_SWEEP_H */
