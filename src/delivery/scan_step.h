/*
 * scan_step.h
 *	  How far a walk over the keys of one Redis server has come, and what its next SCAN asks for.
 *
 * A SCAN can break the link that its answer comes by: the answer is larger than the link
 * takes (redis_reply.c) or than Redis keeps for a client (client-output-buffer-limit), or it
 * takes longer than command_timeout.  The step is then repeated smaller:
 *
 *		COUNT n		walks n buckets of Redis's table; n adapts itself to the answers
 *		COUNT 1		breaks the link: the patterns are taken apart, in halves, each half with
 *					the MATCH that fits it, down to one pattern
 *		one pattern breaks the link by itself: it is set aside, and the walk goes on
 *
 * How a walk gets past a bucket that it can't read: the cursor that SCAN returns depends on
 * the table alone, so a MATCH that no key fits tells the next one.
 *
 * Patterns are numbered from 0 on here, in the order of their literal heads.  Needs nothing
 * of a running server, so that it can be tested by itself.
 */
#ifndef UNCACHE_SCAN_STEP_H
#define UNCACHE_SCAN_STEP_H

#include "postgres.h"

/* A cursor has 20 digits at the most. */
#define SCAN_CURSOR_BYTES	24

/* Halving a range of that many patterns: 32 times; each time one half waits. */
#define SCAN_MAX_RANGES		34

typedef struct ScanRange
{
	int			from;
	int			count;
} ScanRange;

typedef enum ScanAsk
{
	SCAN_FOR_ALL,				/* keys that any pattern may cover */
	SCAN_FOR_NONE,				/* the next cursor alone */
	SCAN_FOR_RANGE,				/* keys that the patterns of scan_step_range() may cover */
	SCAN_DONE,					/* nothing: the walk is over */
} ScanAsk;

typedef enum ScanBreak
{
	BREAK_REPEAT,				/* ask again: scan_step_next() asks for less */
	BREAK_ONE,					/* a pattern is to be set aside: scan_step_aside() */
	BREAK_ALL,					/* no key can be read there, of whatever pattern; the walk is
								 * over */
} ScanBreak;

typedef struct ScanStep
{
	uint32		count;			/* COUNT of the next SCAN; kept from walk to walk */
	bool		walking;
	char		cursor[SCAN_CURSOR_BYTES];

	/* While a bucket is read by parts of the patterns. */
	bool		apart;
	int			npatterns;
	bool		has_next;
	char		next[SCAN_CURSOR_BYTES];	/* meaningful if has_next */
	ScanRange	ranges[SCAN_MAX_RANGES];	/* still to be asked for, the last one first */
	int			nranges;
	int			aside;			/* the last pattern that was set aside */
} ScanStep;

/* Begin a walk.  *step was zero before the first one. */
extern void scan_step_begin(ScanStep *step, int npatterns);

/* The next SCAN: at step->cursor, with COUNT step->count. */
extern ScanAsk scan_step_next(const ScanStep *step);
extern ScanRange scan_step_range(const ScanStep *step);

/*
 * An answer came: with this cursor, bytes of keys, after so many ms of which "most_ms" may
 * not be reached.  Returns false where the table has changed while its bucket was read by
 * parts, so that keys may have been missed.
 */
extern bool scan_step_answered(ScanStep *step, const char *cursor, size_t bytes, int ms,
							   int most_ms);

/* The link broke, and there was no answer. */
extern ScanBreak scan_step_broke(ScanStep *step);
extern int	scan_step_aside(const ScanStep *step);

#endif							/* UNCACHE_SCAN_STEP_H */
