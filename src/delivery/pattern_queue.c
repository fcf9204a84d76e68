/*
 * pattern_queue.c
 *	  The patterns that wait to be delivered: when a pass over the keys begins, and for which.
 *
 * A pattern is a Job.  A pass (pattern_scan.c) serves every pattern that was waiting when it
 * began; equal patterns are served as one.  A pattern that comes while a pass runs waits for the
 * next one, which begins no sooner than after as long a pause as the last pass took, and a second
 * after it began: so a storm of TRUNCATEs keeps Redis busy half of the time at the most, and
 * readers can go on filling.  Whatever is done for each pattern is done for a few in a turn
 * of the worker.
 *
 * At the end of a pass a job ends its part of the delivery, or goes back to those that
 * wait: where keys were missed, and where slots of a cluster were on the
 * move in the first pass that it was in.  The pause doubles with each pass that missed keys.
 *
 * When a node's link breaks, or a node is away, the patterns of the pass are lost at
 * its end, and the rows that hold them are sent again; the same after a crash.  A pattern
 * that Redis refuses moves to the side table like a refused key, and so does one that is set
 * aside, since to look for its keys breaks the link.  How many jobs wait is bounded by the
 * rows that delivery_queue.c takes.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "delivery/pattern_scan.h"
#include "delivery/delivery_int.h"
#include "delivery/pattern_set.h"
#include "delivery/stream.h"

/* Least pause before a pass is made once more; doubles with each. */
#define AGAIN_FIRST_MS	100
#define AGAIN_LAST_MS	(60 * 1000)

/*
 * Least time from the beginning of a pass to that of the next one: each voids the tokens of all
 * readers that are about to fill, and a reader needs less than a second to fill.
 */
#define PASS_EVERY_MS	1000

/* Jobs that a turn deals with, at the beginning and the end of a pass: 200 microseconds. */
#define JOBS_PER_TURN	200

/* A pass takes patterns that come while it gathers, too, but not for longer than that. */
#define GATHER_MS		1000

/* A part of a delivery that waits for a pass, or is served by one. */
typedef struct Job
{
	dlist_node	node;
	Delivery   *delivery;
	Invalidation item;			/* bytes belong to the delivery */
	PassPattern *pattern;		/* of the running pass */
	bool		had_pass;		/* this is not the first one */
} Job;

static MemoryContext context;	/* jobs */
static MemoryContext pass_context;	/* patterns of the pass; reset at its end */

static dlist_head waiting = DLIST_STATIC_INIT(waiting);
static int	nwaiting = 0;

/* Of a pass: */
static enum
{
	PASS_NONE,
	PASS_GATHERS,				/* some of its patterns are in the set */
	PASS_RUNS,
	PASS_ENDED,					/* some of its jobs are not told yet */
}			stage = PASS_NONE;
static dlist_head served = DLIST_STATIC_INIT(served);
static PatternSet *patterns;
static TimestampTz gather_until;	/* meaningful in PASS_GATHERS */
static PatternPassEnd pass_end; /* meaningful in PASS_ENDED */

static TimestampTz next_pass_at = 0;
static Backoff again_backoff;

static void pass_ended(const PatternPassEnd *end);

void
pattern_queue_init(void)
{
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache patterns",
									ALLOCSET_DEFAULT_SIZES);
	pass_context = AllocSetContextCreate(context, "pg_uncache pattern pass",
										 ALLOCSET_DEFAULT_SIZES);
	pattern_scan_init(pass_ended);
}

void
pattern_queue_add(Delivery *delivery, const Invalidation *item)
{
	Job		   *job = MemoryContextAllocZero(context, sizeof(Job));

	Assert(invalidation_traits(item->kind)->command == INVALIDATION_SCAN);
	job->delivery = delivery;
	job->item = *item;
	dlist_push_tail(&waiting, &job->node);
	nwaiting++;
	pg_atomic_fetch_add_u32(&MyDatabaseState->stats.patterns_running, 1);
}

static void
finish_job(Job *job, PartOutcome outcome)
{
	dlist_delete(&job->node);
	pg_atomic_fetch_sub_u32(&MyDatabaseState->stats.patterns_running, 1);
	delivery_part_done(job->delivery, outcome, &job->item);
	pfree(job);
}

/* Put some of the jobs that waited into the set, or begin with the first. */
static void
gather_some(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(pass_context);

	Assert(stage == PASS_NONE || stage == PASS_GATHERS);
	if (stage == PASS_NONE)
	{
		stage = PASS_GATHERS;
		patterns = pattern_set_make();
		gather_until = TimestampTzPlusMilliseconds(clock_now(), GATHER_MS);
	}
	for (int i = 0; i < JOBS_PER_TURN && nwaiting > 0; i++)
	{
		Job		   *job = dlist_head_element(Job, node, &waiting);

		nwaiting--;
		job->pattern = pattern_set_add(patterns, &job->item);
		if (job->pattern == NULL)
		{
			ereport(LOG,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a key pattern in the outbox cannot be read and is left out: %.*s",
							(int) Min(job->item.len, 200), job->item.bytes)));
			finish_job(job, PART_DELIVERED);
			continue;
		}
		dlist_delete(&job->node);
		dlist_push_tail(&served, &job->node);
	}
	MemoryContextSwitchTo(old_context);
}

static void
begin_pass(void)
{
	MemoryContext old_context;

	Assert(stage == PASS_GATHERS);
	if (pattern_set_count(patterns) == 0)
	{
		stage = PASS_NONE;
		MemoryContextReset(pass_context);
		return;
	}
	stage = PASS_RUNS;
	old_context = MemoryContextSwitchTo(pass_context);
	pattern_scan_begin(patterns);
	MemoryContextSwitchTo(old_context);
}

/* The pause is as long as the pass was; longer where it must be made once more. */
static void
pass_ended(const PatternPassEnd *end)
{
	TimestampTz now = clock_now();

	Assert(stage == PASS_RUNS || stage == PASS_GATHERS);
	stage = PASS_ENDED;
	pass_end = *end;
	next_pass_at = Max(now + (now - end->began),
					   TimestampTzPlusMilliseconds(end->began, PASS_EVERY_MS));
	if (end->again)
		backoff_fail(&again_backoff, now, AGAIN_FIRST_MS, AGAIN_LAST_MS);
	else
		backoff_reset(&again_backoff);
	next_pass_at = Max(next_pass_at, again_backoff.until);
}

/* Others learn of the keys that were deleted by the pattern's glob. */
static void
announce(const Job *job)
{
	const char *glob = keypattern_glob(job->pattern->matcher);

	Assert(!job->pattern->refused && !job->pattern->aside);
	stream_add_pattern(job->delivery, glob, strlen(glob));
}

/* A job is finished, or goes back to those that wait for a pass. */
static void
leave_pass(Job *job)
{
	bool		lost = pass_end.outcome != PART_DELIVERED;
	bool		again = pass_end.again || (pass_end.moves && !job->had_pass);
	bool		refused = job->pattern->refused && !lost;

	Assert(stage == PASS_ENDED);
	if (job->pattern->aside || refused)
		finish_job(job, PART_REFUSED);
	else if (lost)
		finish_job(job, pass_end.outcome);
	else if (!again)
	{
		announce(job);
		finish_job(job, PART_DELIVERED);
	}
	else
	{
		job->had_pass = true;
		dlist_delete(&job->node);
		dlist_push_tail(&waiting, &job->node);
		nwaiting++;
	}
}

/* Tell some jobs the outcome of the pass. */
static void
leave_some(int most)
{
	int			n;

	Assert(stage == PASS_ENDED);
	for (n = 0; n < most && !dlist_is_empty(&served); n++)
		leave_pass(dlist_head_element(Job, node, &served));
	stream_send_patterns();
	if (!dlist_is_empty(&served) || !pattern_set_free_some(patterns, most - n))
		return;
	stage = PASS_NONE;
	MemoryContextReset(pass_context);
}

TimestampTz
pattern_queue_run(TimestampTz now)
{
	TimestampTz wake;

	if (stage == PASS_NONE && nwaiting > 0 && now < next_pass_at)
		return next_pass_at;
	if (stage == PASS_GATHERS || (stage == PASS_NONE && nwaiting > 0))
	{
		gather_some();
		if (nwaiting == 0 || clock_now() >= gather_until)
			begin_pass();
	}
	wake = pattern_scan_run();
	if (stage == PASS_ENDED)
		leave_some(JOBS_PER_TURN);
	if (stage == PASS_RUNS)
		return wake;
	return stage == PASS_NONE && nwaiting == 0 ? DT_NOEND : 0;
}

void
pattern_queue_forget(void)
{
	dlist_mutable_iter iter;

	if (stage == PASS_GATHERS)
		pass_ended(&(PatternPassEnd) {.outcome = PART_NO_REPLY});
	pattern_scan_break();
	if (stage == PASS_ENDED)
		leave_some(INT_MAX);
	Assert(stage == PASS_NONE);
	dlist_foreach_modify(iter, &waiting)
		finish_job(dlist_container(Job, node, iter.cur), PART_NO_REPLY);
	nwaiting = 0;
	next_pass_at = 0;
}
