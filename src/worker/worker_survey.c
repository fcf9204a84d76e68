/*
 * worker_survey.c
 *	  What the worker sees of its database, for a monitor that is connected to another one.
 *
 * uncache.stat_databases shows all databases to one connection, which can read the tables of
 * its own database only.  So each worker looks now and then at its backlog and its rules, and
 * leaves the numbers in shared memory (Survey).
 *
 * A look at the backlog reads some blocks of each table.  Checking all rules takes some 50
 * microseconds a rule: that is done in slices, with a pause behind each, so that no delivery
 * has to wait for more than one slice.  The rules are checked again after a while, since a
 * right or a function may have changed, and soon after any table has changed.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/subtransaction.h"
#include "outbox/backlog.h"
#include "outbox/outbox_open.h"
#include "rules/rules.h"
#include "settings/settings.h"
#include "worker/worker_int.h"

/* An alert on the age of the backlog fires after a minute, so this is soon enough. */
#define BACKLOG_MS		5000

/*
 * Between two passes over the rules: usually; where a rule has a problem, which may be no more
 * than a lock; and at least, so that DDL without end costs the worker a hundredth of its time.
 */
#define RULES_MS		60000
#define PROBLEM_MS		10000
#define RULES_LEAST_MS	1000
#define RULES_SHARE		100

/* A slice, and the pause behind it. */
#define SLICE_US		200
#define PAUSE_MS		2

static TimestampTz backlog_due = 0;
static TimestampTz rules_due = 0;	/* the next pass, or its next slice */
static TimestampTz rules_earliest = 0;	/* of the next pass, whatever has changed */
static bool tables_changed = false;

/* A pass over the rules.  Without one "context" is NULL, and the others mean nothing. */
static MemoryContext context = NULL;
static List *triggers;			/* OIDs of the rules */
static int	next;				/* index of the first that is not checked */
static int	problems;
static int64 spent_us;

static void
note_change(Datum arg, Oid relid)
{
	tables_changed = true;
}

void
worker_survey_init(void)
{
	CacheRegisterRelcacheCallback(note_change, (Datum) 0);
}

static void
look_at_backlog(void)
{
	BacklogTotals totals;
	Survey	   *survey = &MyDatabaseState->survey;

	backlog_sum_quickly(&totals);
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	survey->rows = (int64) totals.rows;
	survey->bytes = totals.bytes;
	survey->oldest_at = totals.oldest_at;
	survey->backlog_at = GetCurrentTimestamp();
	survey->fence_wanted = setting_fence_ttl > 0;
	LWLockRelease(MyDatabaseState->lock);
}

/* In a transaction, whose memory goes away before the pass ends. */
static void
begin_pass(void)
{
	MemoryContext old_context;
	ListCell   *cell;

	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache survey", ALLOCSET_SMALL_SIZES);
	triggers = NIL;
	next = problems = 0;
	spent_us = 0;
	tables_changed = false;
	foreach(cell, rule_list_of_database())
	{
		RuleInfo   *info = lfirst(cell);

		if (OidIsValid(info->parent))
			continue;
		old_context = MemoryContextSwitchTo(context);
		triggers = lappend_oid(triggers, info->trigger);
		MemoryContextSwitchTo(old_context);
	}
}

static void
end_pass(TimestampTz now)
{
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	MyDatabaseState->survey.rules_with_problems = problems;
	MyDatabaseState->survey.rules_at = GetCurrentTimestamp();
	LWLockRelease(MyDatabaseState->lock);
	rules_due = TimestampTzPlusMilliseconds(now, problems > 0 ? PROBLEM_MS : RULES_MS);
	rules_earliest = TimestampTzPlusMilliseconds(now, RULES_LEAST_MS) + RULES_SHARE * spent_us;
	MemoryContextDelete(context);
	context = NULL;
}

typedef struct RuleLook
{
	Oid			trigger;
	bool		has_problem;
} RuleLook;

static void
check_rule(void *arg)
{
	RuleLook   *look = arg;
	RuleInfo   *info = rule_by_trigger(look->trigger);

	look->has_problem = info != NULL && rule_problems(info) != NULL;
}

/* A rule that can't be looked at has a problem, too. */
static bool
has_problem(Oid trigger)
{
	RuleLook	look = {.trigger = trigger};

	return subtransaction_run(check_rule, &look) != NULL || look.has_problem;
}

/* In a transaction: begin a pass, or go on with it. */
static void
look_at_rules(void)
{
	TimestampTz began = clock_now();
	TimestampTz now = began;

	if (context == NULL)
		begin_pass();
	while (next < list_length(triggers) && now - began < SLICE_US)
	{
		problems += has_problem(list_nth_oid(triggers, next++));
		now = clock_now();
	}
	spent_us += now - began;
	if (next == list_length(triggers))
		end_pass(now);
	else
		rules_due = TimestampTzPlusMilliseconds(now, PAUSE_MS);
}

TimestampTz
worker_survey_run(TimestampTz now)
{
	bool		backlog = now >= backlog_due;
	bool		rules = now >= rules_due;

	if (backlog || rules)
	{
		outbox_begin();
		if (backlog)
		{
			backlog_due = TimestampTzPlusMilliseconds(now, BACKLOG_MS);
			look_at_backlog();
		}
		if (rules)
			look_at_rules();
		outbox_end();
	}
	if (tables_changed && context == NULL)
		rules_due = Min(rules_due, Max(rules_earliest, now));
	return Min(backlog_due, rules_due);
}
