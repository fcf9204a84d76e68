/*
 * pattern_scan.h
 *	  One walk over all keys of all nodes, which deletes those that patterns cover.
 */
#ifndef UNCACHE_PATTERN_SCAN_H
#define UNCACHE_PATTERN_SCAN_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "delivery/delivery_int.h"
#include "topology/node.h"
#include "delivery/pattern_set.h"

/* The result of a pass. */
typedef struct PatternPassEnd
{
	TimestampTz began;
	PartOutcome outcome;		/* of all patterns: PART_DELIVERED, _NO_REPLY or _RETRY_SOON */
	bool		again;			/* it has missed keys that it knows of: does not count */
	bool		moves;			/* slots were on the move: a second pass is needed */
} PatternPassEnd;

typedef void (*PatternPassEnded) (const PatternPassEnd *end);

/* Once, in the worker.  Every pass ends with one call of "ended", which may not begin another. */
extern void pattern_scan_init(PatternPassEnded ended);

/*
 * Begin a pass for these patterns.  None may be running, and the set must not be empty.
 * The set, and the current memory context, must stay until the end of the pass, which sets
 * PassPattern.refused where Redis has said no, and .aside.  The end is not within this call.
 */
extern void pattern_scan_begin(PatternSet *set);

extern bool pattern_scan_is_running(void);

/*
 * Do the next slice of the pass, and end it if nothing is under way any more.  Returns when
 * to call it again; DT_NOEND: when an answer has come.
 */
extern TimestampTz pattern_scan_run(void);

/* Nodes have got other keys than before. */
extern void pattern_scan_note_moves(void);

/* A node's link is gone: with the next one it takes part in the next pass. */
extern void pattern_scan_leave_out(RedisNode *node);

/* All links are gone, and have answered everything: a pass that runs ends, lost. */
extern void pattern_scan_break(void);

#endif							/* UNCACHE_PATTERN_SCAN_H */
