/*
 * patternscan.c
 *	  The patterns that wait to be delivered: when a pass over the keys begins, and for which.
 *
 * A pattern is a Job.  A pass (patternpass.c) serves every pattern that was waiting when it
 * began; equal patterns are served as one.  What comes while a pass runs waits for the next
 * one, which begins no sooner than after as long a pause as the last pass took: so a storm
 * of TRUNCATEs keeps Redis busy half of the time at the most.
 *
 * At the end of a pass a job is finished, with the outcome that deliver.c is told, or goes
 * back to those that wait: where keys were missed, and where slots of a cluster were on the
 * move in the first pass that it was in.  The pause doubles with each pass that missed keys.
 *
 * When a node's link breaks, or a node is away, the patterns of the pass are lost at
 * its end, and the rows that hold them are sent again; the same after a crash.  A pattern
 * that Redis refuses moves to the side table like a refused key.  How many jobs wait
 * is bounded by the rows that deliver.c takes.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "patternpass.h"
#include "patternscan.h"
#include "patternset.h"

/* Before a pass is made once more, at the least; doubles with each. */
#define AGAIN_FIRST_MS	100
#define AGAIN_LAST_MS	(60 * 1000)

/* A part of a delivery that waits for a pass, or is served by one. */
typedef struct Job
{
	dlist_node	node;
	Delivery   *delivery;
	PackedItem	item;			/* bytes belong to the delivery */
	PassPattern *pattern;		/* of the running pass */
	bool		had_pass;		/* this is not the first one */
} Job;

static DatabaseSlot *slot;
static MemoryContext context;	/* jobs */
static MemoryContext pass_context;	/* patterns of the pass; reset at its end */

static dlist_head waiting = DLIST_STATIC_INIT(waiting);
static int	nwaiting = 0;

/* Of the running pass. */
static dlist_head served = DLIST_STATIC_INIT(served);
static PatternSet patterns;

static TimestampTz next_pass_at = 0;
static int	again_ms = AGAIN_FIRST_MS;

static void pass_ended(const PatternPassEnd *end);

void
patternscan_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache patterns",
									ALLOCSET_DEFAULT_SIZES);
	pass_context = AllocSetContextCreate(context, "pg_uncache pattern pass",
										 ALLOCSET_DEFAULT_SIZES);
	patternpass_init(slot, pass_ended);
}

void
patternscan_add(Delivery *delivery, const PackedItem *item)
{
	Job		   *job = MemoryContextAllocZero(context, sizeof(Job));

	job->delivery = delivery;
	job->item = *item;
	dlist_push_tail(&waiting, &job->node);
	nwaiting++;
	pg_atomic_fetch_add_u32(&slot->stats.patterns_running, 1);
}

static void
finish_job(Job *job, PartOutcome outcome)
{
	dlist_delete(&job->node);
	pg_atomic_fetch_sub_u32(&slot->stats.patterns_running, 1);
	deliver_part_done(job->delivery, outcome, &job->item);
	pfree(job);
}

static void
begin_pass(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(pass_context);
	dlist_mutable_iter iter;

	patterns = NULL;
	dlist_foreach_modify(iter, &waiting)
	{
		Job		   *job = dlist_container(Job, node, iter.cur);

		job->pattern = patternset_add(&patterns, &job->item);
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
	nwaiting = 0;

	if (patterns != NULL)
		patternpass_begin(patterns);
	MemoryContextSwitchTo(old_context);
}

/* A job is finished, or goes back to those that wait for a pass. */
static void
leave_pass(Job *job, const PatternPassEnd *end)
{
	bool		lost = end->outcome != PART_DELIVERED;
	bool		again = end->again || (end->moves && !job->had_pass);

	if (again && !lost && !job->pattern->refused)
	{
		job->had_pass = true;
		dlist_delete(&job->node);
		dlist_push_tail(&waiting, &job->node);
		nwaiting++;
	}
	else
		finish_job(job, lost ? end->outcome :
				   job->pattern->refused ? PART_REFUSED : PART_DELIVERED);
}

/* The pause is as long as the pass was; longer where it must be made once more. */
static void
pass_ended(const PatternPassEnd *end)
{
	TimestampTz now = clock_now();
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &served)
		leave_pass(dlist_container(Job, node, iter.cur), end);
	patternset_free(&patterns);
	MemoryContextReset(pass_context);

	next_pass_at = now + (now - end->began);
	if (end->again)
		next_pass_at = Max(next_pass_at, TimestampTzPlusMilliseconds(now, again_ms));
	again_ms = end->again ? Min(again_ms * 2, AGAIN_LAST_MS) : AGAIN_FIRST_MS;
}

TimestampTz
patternscan_turn(void)
{
	patternpass_turn();
	if (patternpass_is_running() || nwaiting == 0)
		return DT_NOEND;
	if (clock_now() < next_pass_at)
		return next_pass_at;
	begin_pass();
	patternpass_turn();
	return nwaiting > 0 ? next_pass_at : DT_NOEND;
}

void
patternscan_forget(void)
{
	dlist_mutable_iter iter;

	patternpass_break();
	dlist_foreach_modify(iter, &waiting)
		finish_job(dlist_container(Job, node, iter.cur), PART_LOST);
	nwaiting = 0;
	next_pass_at = 0;
}
