/*
 * backoff.h
 *	  How long to wait before something that failed is tried again.
 *
 * The pause doubles with every failure in a row, up to a longest one.
 */
#ifndef UNCACHE_BACKOFF_H
#define UNCACHE_BACKOFF_H

#include "postgres.h"

#include <limits.h>

#include "utils/timestamp.h"

#include "base/clock.h"

/* All zero: no failure, no pause. */
typedef struct Backoff
{
	int			ms;				/* the last pause; 0: no failure since the last success */
	TimestampTz until;			/* by clock_now() */
} Backoff;

/*
 * It has failed once more.  The pause is first_ms long after the first failure, then
 * twice as long as the one before it, longest_ms at most.
 */
static inline void
backoff_fail(Backoff *backoff, TimestampTz now, int first_ms, int longest_ms)
{
	Assert(first_ms > 0 && first_ms <= longest_ms && longest_ms <= PG_INT32_MAX / 2);
	backoff->ms = backoff->ms == 0 ? first_ms : Min(backoff->ms * 2, longest_ms);
	backoff->until = TimestampTzPlusMilliseconds(now, backoff->ms);
}

/* It has succeeded, or the next attempt is to be made at once. */
static inline void
backoff_reset(Backoff *backoff)
{
	backoff->ms = 0;
	backoff->until = 0;
}

/* Milliseconds until the next attempt; 0: now. */
static inline long
backoff_left(const Backoff *backoff)
{
	return TimestampDifferenceMilliseconds(clock_now(), backoff->until);
}

#endif							/* UNCACHE_BACKOFF_H */
