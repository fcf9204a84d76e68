/*
 * log_throttle.h
 *	  How often the log hears that something still fails.
 *
 * While something cannot be used, each attempt fails, once a second or more often.  The
 * log hears the first reason at once, a different one as soon as it comes, and a reason
 * that it knows only after a pause, since several reasons may alternate.
 */
#ifndef UNCACHE_LOG_THROTTLE_H
#define UNCACHE_LOG_THROTTLE_H

#include "postgres.h"
#include "utils/timestamp.h"

#include "common/hashfn.h"

/* The usual pause: often enough to see in the log that a trouble lasts. */
#define LOG_THROTTLE_MS		(60 * 1000)

/* In one pause the log hears so many different reasons at most. */
#define LOG_THROTTLE_REASONS	5

/* All zero: the log has heard nothing. */
typedef struct LogThrottle
{
	TimestampTz until;			/* end of the pause, by clock_now() */
	int			count;
	uint32		known[LOG_THROTTLE_REASONS];	/* hashes of the reasons */
} LogThrottle;

/* The trouble is over: the log hears the next one at once. */
static inline void
log_throttle_reset(LogThrottle *throttle)
{
	throttle->until = 0;
}

/* Whether the pause is over, so that the log should hear a known reason again. */
static inline bool
log_throttle_is_due(const LogThrottle *throttle, TimestampTz now)
{
	return throttle->until == 0 || now >= throttle->until;
}

/*
 * Whether the log should hear this reason now; then it counts as heard.  "pause_ms" is
 * the time until it should be heard again.  A NULL reason makes no difference between
 * reasons.
 */
static inline bool
log_throttle_passes(LogThrottle *throttle, const char *reason, TimestampTz now, int pause_ms)
{
	uint32		hash = reason == NULL ? 0 :
		hash_bytes((const unsigned char *) reason, strlen(reason));

	Assert(throttle->count >= 0 && throttle->count <= LOG_THROTTLE_REASONS);
	if (log_throttle_is_due(throttle, now))
	{
		throttle->count = 0;
		throttle->until = TimestampTzPlusMilliseconds(now, pause_ms);
	}
	for (int i = 0; i < throttle->count; i++)
	{
		if (throttle->known[i] == hash)
			return false;
	}
	if (throttle->count == LOG_THROTTLE_REASONS)
		return false;
	throttle->known[throttle->count++] = hash;
	return true;
}

#endif							/* UNCACHE_LOG_THROTTLE_H */
