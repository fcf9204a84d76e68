/*
 * scanstep_test.c
 *	  A walk with SCAN over a Redis that breaks links: what is found, what is set aside, and
 *	  in how many steps.
 */
#include "postgres.h"

#include "delivery/scan_step.h"
#include "tap.h"

#define BUCKETS		4096
#define PATTERNS	1000
#define LIMIT		(1024 * 1024)	/* bytes of an answer that break the link */
#define COUNT		128				/* buckets of a step at the most */

/*
 * A table of Redis as far as it matters here: each bucket has one key, of this many bytes,
 * that the pattern of this number covers (-1: nobody's).
 */
static struct
{
	size_t		bytes;
	int			pattern;
	bool		found;
}			table[BUCKETS];

typedef struct Walk
{
	ScanStep	step;
	int			steps;
	int			breaks;
	int			breaks_in_a_row;
	int			most_in_a_row;
	int			aside[PATTERNS];
	int			all;			/* walks that ended since nothing could be read */
	bool		changed;
} Walk;

static void
fill_table(size_t bytes)
{
	for (int i = 0; i < BUCKETS; i++)
	{
		table[i].bytes = bytes;
		table[i].pattern = i % PATTERNS;
		table[i].found = false;
	}
}

static bool
is_asked_for(ScanAsk what, ScanRange range, int pattern)
{
	if (what == SCAN_FOR_ALL)
		return true;
	return what == SCAN_FOR_RANGE && pattern >= range.from && pattern < range.from + range.count;
}

/* One SCAN. */
static void
take_step(Walk *walk)
{
	ScanAsk		what = scan_step_next(&walk->step);
	ScanRange	range = {0, 0};
	int			at = atoi(walk->step.cursor);
	int			end = Min(at + (int) walk->step.count, BUCKETS);
	size_t		bytes = 0;
	char		next[SCAN_CURSOR_BYTES];

	if (what == SCAN_FOR_RANGE)
		range = scan_step_range(&walk->step);
	walk->steps++;
	for (int i = at; i < end; i++)
		bytes += is_asked_for(what, range, table[i].pattern) ? table[i].bytes : 0;
	if (bytes > LIMIT)
	{
		walk->breaks++;
		walk->most_in_a_row = Max(walk->most_in_a_row, ++walk->breaks_in_a_row);
		switch (scan_step_broke(&walk->step))
		{
			case BREAK_REPEAT:
				break;
			case BREAK_ONE:
				walk->aside[scan_step_aside(&walk->step)]++;
				break;
			case BREAK_ALL:
				walk->all++;
				break;
		}
		return;
	}
	walk->breaks_in_a_row = 0;
	for (int i = at; i < end; i++)
		table[i].found |= is_asked_for(what, range, table[i].pattern);
	snprintf(next, sizeof(next), "%d", end == BUCKETS ? 0 : end);
	if (!scan_step_answered(&walk->step, next, bytes, 1, 1000))
		walk->changed = true;
}

static void
walk_all(Walk *walk)
{
	memset(walk, 0, sizeof(*walk));
	scan_step_begin(&walk->step, PATTERNS);
	while (scan_step_next(&walk->step) != SCAN_DONE && walk->steps < 100000)
		take_step(walk);
}

static int
count_found(void)
{
	int			n = 0;

	for (int i = 0; i < BUCKETS; i++)
		n += table[i].found;
	return n;
}

static int
count_aside(const Walk *walk)
{
	int			n = 0;

	for (int i = 0; i < PATTERNS; i++)
		n += walk->aside[i];
	return n;
}

static void
test_small_keys(void)
{
	Walk		walk;

	fill_table(20);
	walk_all(&walk);
	ok(count_found() == BUCKETS, "all keys are found");
	ok(walk.steps <= BUCKETS / COUNT + 2, "in few steps: %d", walk.steps);
	ok(walk.breaks == 0, "no step breaks");
}

static void
test_large_keys(void)
{
	Walk		walk;

	fill_table(17 * 1024);
	walk_all(&walk);
	ok(count_found() == BUCKETS, "of 17 kB each: all keys are found");
	ok(walk.breaks == 1, "the first step alone breaks: %d", walk.breaks);
	ok(walk.steps < BUCKETS, "steps are not of one key: %d", walk.steps);
	ok(count_aside(&walk) == 0, "nothing is set aside");
}

/* Every bucket at the limit: one key at a time, and no more. */
static void
test_one_at_a_time(void)
{
	Walk		walk;

	fill_table(LIMIT - 10);
	walk_all(&walk);
	ok(count_found() == BUCKETS, "one key fills an answer: all keys are found");
	ok(count_aside(&walk) == 0, "nothing is set aside");
	ok(walk.breaks <= 3, "few steps break: %d", walk.breaks);
}

static void
test_too_large(void)
{
	Walk		walk;

	fill_table(20);
	table[1234].bytes = LIMIT + 1;
	walk_all(&walk);
	ok(count_found() == BUCKETS - 1, "all keys are found but the one that no answer has room for");
	ok(!table[1234].found, "that one is not");
	ok(count_aside(&walk) == 1 && walk.aside[1234 % PATTERNS] == 1,
	   "its pattern alone is set aside");
	ok(walk.breaks <= 24, "its pattern is found by halves: %d breaks", walk.breaks);
	ok(walk.steps < 80, "and few steps: %d", walk.steps);
	ok(!walk.changed, "the table has not changed");
}

/* Two in one bucket's reach, at both ends of the patterns; and one at the very end of the table. */
static void
test_several_too_large(void)
{
	Walk		walk;

	fill_table(20);
	table[0].bytes = table[999].bytes = table[BUCKETS - 1].bytes = LIMIT + 1;
	walk_all(&walk);
	ok(count_found() == BUCKETS - 3, "three keys are not found");
	ok(count_aside(&walk) == 3, "three patterns are set aside");
	ok(walk.aside[0] == 1 && walk.aside[999] == 1 && walk.aside[(BUCKETS - 1) % PATTERNS] == 1,
	   "the right ones");
	ok(walk.steps < 200, "in %d steps", walk.steps);
}

/* One that nobody's pattern covers, but that SCAN's MATCH for all of them finds. */
static void
test_of_others(void)
{
	Walk		walk;

	fill_table(20);
	table[77].bytes = LIMIT + 1;
	table[77].pattern = -1;
	walk_all(&walk);
	ok(count_found() == BUCKETS - 1, "a key of others holds up no key");
	ok(count_aside(&walk) == 0, "and no pattern");
}

/* A link that breaks whatever is asked for there. */
static void
test_nothing_can_be_read(void)
{
	Walk		walk = {.steps = 0};

	scan_step_begin(&walk.step, PATTERNS);
	for (int i = 0; i < 100 && walk.all == 0; i++)
		walk.all = scan_step_broke(&walk.step) == BREAK_ALL;
	ok(walk.all == 1, "a link that breaks at each step ends the walk");
	ok(scan_step_next(&walk.step) == SCAN_DONE, "it is over");
	scan_step_begin(&walk.step, PATTERNS);
	ok(walk.step.count == 1 && scan_step_next(&walk.step) == SCAN_FOR_ALL,
	   "the next walk begins with one key");
}

static void
test_table_changes(void)
{
	ScanStep	step = {.count = 1};

	scan_step_begin(&step, 2);
	(void) scan_step_broke(&step);
	ok(scan_step_next(&step) == SCAN_FOR_NONE, "first the next cursor");
	ok(scan_step_answered(&step, "8", 0, 1, 1000), "is told");
	ok(scan_step_next(&step) == SCAN_FOR_RANGE && scan_step_range(&step).count == 1, "then a half");
	ok(!scan_step_answered(&step, "4", 10, 1, 1000),
	   "another cursor tells that the table has changed");
	ok(scan_step_answered(&step, "8", 10, 1, 1000), "the other half");
	is(step.cursor, "8", "the walk goes on");
}

/* Slow answers make small steps, but not so small that a slow line would never end. */
static void
test_slow(void)
{
	ScanStep	step = {.count = COUNT};

	scan_step_begin(&step, 1);
	for (int i = 0; i < 20; i++)
		(void) scan_step_answered(&step, "1", 100, 600, 1000);
	ok(step.count == 10, "slow answers: COUNT %u", step.count);
	for (int i = 0; i < 20; i++)
		(void) scan_step_answered(&step, "1", 100, 10, 1000);
	ok(step.count == COUNT, "quick ones: COUNT %u", step.count);
}

int
main(void)
{
	test_small_keys();
	test_large_keys();
	test_one_at_a_time();
	test_too_large();
	test_several_too_large();
	test_of_others();
	test_nothing_can_be_read();
	test_table_changes();
	test_slow();
	return done_testing();
}
