/*
 * clock.h
 *	  The clock of deadlines and pauses.
 *
 * The time of day is set: by an operator, by NTP, by a host that wakes up.  Set back
 * by an hour it would delay what is due in a second by an hour; set forward it would
 * end every wait at once.  So times that are only compared within this server come from
 * a clock that cannot be set, and the time of day (GetCurrentTimestamp()) is for times
 * that people read and that are stored.
 *
 * Both are TimestampTz, so that the same functions compute deadlines: never compare
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
