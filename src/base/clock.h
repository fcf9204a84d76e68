/*
 * clock.h
 *	  The clock of deadlines and pauses.
 *
 * The time of day is set: by an operator, by NTP, by a host that wakes up.  Set back
 * by an hour it would keep what is to be done in a second from being done for an
 * hour; set forward it would end every wait at once.  So what is only compared within
 * this server is told by a clock that nobody sets, and the time of day
 * (GetCurrentTimestamp()) is for what people read and what is stored.
 *
 * Both are TimestampTz, so that deadlines can be reckoned with alike: never compare
 * one with the other.  Times of this clock are the same in all processes, count from
 * some moment before their start, and mean nothing after the next start of the machine.
 *
 * Not instr_time.h: from PostgreSQL 19 on its clock is changed by a setting.
 */
#ifndef UNCACHE_CLOCK_H
#define UNCACHE_CLOCK_H

#include "postgres.h"

#include <time.h>

#include "datatype/timestamp.h"

/* In microseconds. */
static inline TimestampTz
clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (TimestampTz) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

#endif							/* UNCACHE_CLOCK_H */
