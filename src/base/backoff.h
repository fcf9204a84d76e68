/*
 * backoff.h
 *	  How long to wait before something that failed is tried again.
 *
 * The pause doubles with every failure in a row.
 */
#ifndef UNCACHE_PAUSE_H
#define UNCACHE_PAUSE_H

#include "postgres.h"
#include "utils/timestamp.h"

#include "base/clock.h"

/*
 * Long enough that a worker which fails at every start does not fill the log, and
 * short enough that one whose trouble is over is back soon.
 */
#define PAUSE_FIRST_MS		1000
#define PAUSE_LONGEST_MS	10000

/* All zero: no failure, no pause. */
typedef struct Pause
{
	int			failures;		/* in a row */
	TimestampTz until;
} Pause;

static inline void
pause_more(Pause *pause)
{
	int			ms = PAUSE_FIRST_MS << Min(pause->failures, 8);

	pause->failures++;
	pause->until = TimestampTzPlusMilliseconds(clock_now(),
											   Min(ms, PAUSE_LONGEST_MS));
}

static inline void
pause_reset(Pause *pause)
{
	pause->failures = 0;
	pause->until = 0;
}

/* Milliseconds until the next attempt; 0: now. */
static inline long
pause_left(const Pause *pause)
{
	return TimestampDifferenceMilliseconds(clock_now(), pause->until);
}

#endif							/* UNCACHE_PAUSE_H */
