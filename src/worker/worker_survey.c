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
 * has to wait for more than one slice.  While a session waits for a delivery no slice begins,
 * unless that goes on for long.  The rules are checked again after a while, since a right or a
 * function may have changed, and soon after any table has changed.
 *
 * A slice ends after the rule that it is at, so the work for one rule is bounded: of a table
 * with very many partitions only some are looked at, and a lock is waited for briefly.  The
 * view uncache.rules looks at all.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/subtransaction.h"
#include "delivery/delivery.h"
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

/* Triggers, mostly clones on partitions, that are passed over before the clock is read again. */
#define TRIGGERS_STEP	100

/*
 * The rule's table and partitions that are looked at for one rule, some 20 microseconds each:
 * a few milliseconds, of the 200 that a COMMIT waits at most.
 */
#define TABLES_OF_RULE	256

/* Of the wait for another table whose row type a template uses; a small part of those 200 ms. */
#define LOCK_TIMEOUT	"5ms"

/* Where a session waits: how long a slice is put off at once, and in all for one pass. */
#define PUT_OFF_MS		20
#define PUT_OFF_MOST_MS	10000

static TimestampTz backlog_due = 0;
static TimestampTz rules_due = 0;	/* the next pass, or its next slice */
static TimestampTz rules_earliest = 0;	/* of the next pass, whatever has changed */
static bool tables_changed = false;

/* A pass over the rules; while "passing" is false the others mean nothing. */
static bool passing = false;
static Oid	cursor;				/* the last trigger that was looked at; see rule_next() */
static int	problems;
static int64 spent_us;

/* When a slice of the next or current pass was first put off; 0: none was. */
static TimestampTz put_off_since = 0;

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

static void
begin_pass(void)
{
	passing = true;
	cursor = InvalidOid;
	problems = 0;
	spent_us = 0;
	tables_changed = false;
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
	put_off_since = 0;
	passing = false;
}

typedef struct RuleLook
{
	const RuleInfo *info;
	bool		has_problem;
} RuleLook;

static void
check_rule(void *arg)
{
	RuleLook   *look = arg;
	int			nest = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	look->has_problem = rule_problems(look->info, TABLES_OF_RULE) != NULL;
	AtEOXact_GUC(true, nest);
}

/*
 * A rule that can't be looked at, for instance because of a lock, has a problem until it can:
 * the next pass follows soon.
 *
 * lock_timeout sends this process a SIGINT, which the worker otherwise ignores.  One that
 * comes after the lock has been taken, or from pg_cancel_backend(), is forgotten.
 */
static bool
has_problem(const RuleInfo *info)
{
	RuleLook	look = {.info = info};
	ErrorData  *edata;

	pqsignal(SIGINT, StatementCancelHandler);
	edata = subtransaction_run(check_rule, &look);
	pqsignal(SIGINT, PG_SIG_IGN);
	QueryCancelPending = false;
	return edata != NULL || look.has_problem;
}

/* In a transaction: begin a pass, or go on with it. */
static void
look_at_rules(void)
{
	TimestampTz began = clock_now();
	TimestampTz now = began;
	bool		done = false;

	if (!passing)
		begin_pass();
	while (!done && now - began < SLICE_US)
	{
		RuleInfo   *info = rule_next(&cursor, TRIGGERS_STEP);

		if (info != NULL)
			problems += has_problem(info);
		done = !OidIsValid(cursor);
		now = clock_now();
	}
	spent_us += now - began;
	if (done)
		end_pass(now);
	else
		rules_due = TimestampTzPlusMilliseconds(now, PAUSE_MS);
}

/* Whether the next slice has to wait, because a session does; not for ever. */
static bool
is_put_off(TimestampTz now)
{
	if (!batch_is_awaited() && !delivery_queue_has_unsent() && !wait_barrier_is_asked_for())
		return false;
	if (put_off_since == 0)
		put_off_since = now;
	if (TimestampDifferenceExceeds(put_off_since, now, PUT_OFF_MOST_MS))
		return false;
	rules_earliest = rules_due = TimestampTzPlusMilliseconds(now, PUT_OFF_MS);
	return true;
}

TimestampTz
worker_survey_run(TimestampTz now)
{
	bool		backlog = now >= backlog_due;
	bool		rules = now >= rules_due && !is_put_off(now);

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
	if (tables_changed && !passing)
		rules_due = Min(rules_due, Max(rules_earliest, now));
	return Min(backlog_due, rules_due);
}
