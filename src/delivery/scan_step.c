/*
 * scan_step.c
 *	  How far a walk over the keys of one Redis server has come, and what its next SCAN asks for.
 *
 * Nothing here fails, and all of it is in memory: after a crash the walk begins anew.
 */
#include "postgres.h"

#include "delivery/scan_step.h"

/*
 * Buckets that one SCAN visits.  Sessions and readers wait in Redis behind each step, so steps are
 * small: with 1000 buckets the slowest commits beside a pass took five times as long as without,
 * with as many as now one and a half times.  The first step of a worker is smaller, since nothing
 * is known of the keys.
 */
#define COUNT_MOST		128
#define COUNT_FIRST		100

/* COUNT is divided by this after a break; two breaks lead from COUNT_MOST to 1. */
#define BREAK_FACTOR	10

/*
 * Bytes of keys that a step should have at the most: as many as a socket takes at once, and far
 * below any client-output-buffer-limit that lets a client live.
 */
#define BYTES_MOST		(128 * 1024)

/* A slow line makes small steps slow, too: the time alone goes no lower. */
#define COUNT_SLOW		10

void
scan_step_begin(ScanStep *step, int npatterns)
{
	Assert(npatterns > 0);
	if (step->count == 0)
		step->count = COUNT_FIRST;
	step->walking = true;
	strlcpy(step->cursor, "0", sizeof(step->cursor));
	step->apart = false;
	step->npatterns = npatterns;
}

ScanAsk
scan_step_next(const ScanStep *step)
{
	if (!step->walking)
		return SCAN_DONE;
	if (!step->apart)
		return SCAN_FOR_ALL;
	return step->has_next ? SCAN_FOR_RANGE : SCAN_FOR_NONE;
}

ScanRange
scan_step_range(const ScanStep *step)
{
	Assert(step->nranges > 0);
	return step->ranges[step->nranges - 1];
}

int
scan_step_aside(const ScanStep *step)
{
	return step->aside;
}

static void
go_to(ScanStep *step, const char *cursor)
{
	strlcpy(step->cursor, cursor, sizeof(step->cursor));
	step->apart = false;
	step->walking = strcmp(cursor, "0") != 0;
}

static void
adapt_count(ScanStep *step, size_t bytes, int ms, int most_ms)
{
	Assert(step->count > 0);
	if (bytes > BYTES_MOST)
		step->count = Max(step->count / 2, 1);
	else if (ms > most_ms / 4 && step->count > COUNT_SLOW)
		step->count = Max(step->count / 2, COUNT_SLOW);
	else if (bytes < BYTES_MOST / 2 && ms < most_ms / 8)
		step->count = Min(step->count * 2, COUNT_MOST);
}

bool
scan_step_answered(ScanStep *step, const char *cursor, size_t bytes, int ms, int most_ms)
{
	bool		same = true;

	Assert(step->walking && (!step->apart || !step->has_next || step->nranges > 0));
	if (!step->apart)
	{
		adapt_count(step, bytes, ms, most_ms);
		go_to(step, cursor);
		return true;
	}
	if (!step->has_next)
	{
		step->has_next = true;
		strlcpy(step->next, cursor, sizeof(step->next));
	}
	else
	{
		same = strcmp(step->next, cursor) == 0;
		step->nranges--;
	}
	if (step->nranges == 0)
		go_to(step, step->next);
	return same;
}

/* Ask for the halves of a range of which it is known that it breaks the link. */
static ScanBreak
halve(ScanStep *step, ScanRange range)
{
	int			half = range.count / 2;

	Assert(range.count > 0 && range.from + range.count <= step->npatterns);
	if (range.count == 1)
	{
		step->aside = range.from;
		return BREAK_ONE;
	}
	Assert(step->nranges + 2 <= SCAN_MAX_RANGES);
	step->ranges[step->nranges++] = (ScanRange) {range.from + half, range.count - half};
	step->ranges[step->nranges++] = (ScanRange) {range.from, half};
	return BREAK_REPEAT;
}

ScanBreak
scan_step_broke(ScanStep *step)
{
	ScanBreak	result;

	Assert(step->walking && step->count > 0);
	if (!step->apart && step->count > 1)
	{
		step->count = Max(step->count / BREAK_FACTOR, 1);
		return BREAK_REPEAT;
	}
	if (!step->apart)
	{
		step->apart = true;
		step->has_next = false;
		step->nranges = 0;
		return halve(step, (ScanRange) {0, step->npatterns});
	}
	if (!step->has_next)
	{
		step->walking = false;
		return BREAK_ALL;
	}
	Assert(step->nranges > 0);
	step->nranges--;
	result = halve(step, step->ranges[step->nranges]);
	if (step->nranges == 0)
		go_to(step, step->next);
	return result;
}
