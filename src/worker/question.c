/*
 * question.c
 *	  Questions of sessions about Redis: both sides of the exchange (question.h).
 *
 * The worker works at one question at a time, in its turns: question_check.c and
 * question_audit.c send commands and gather answers.  When the answer is whole it goes out in
 * parts of QUESTION_BYTES, one for each ticket.  The worker forgets a question whose session
 * is gone, and an answer whose next part no session has asked for in time.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "settings/settings.h"
#include "topology/node.h"
#include "worker/question.h"
#include "worker/worker_int.h"

/*
 * --------------------------------------------------------------------------
 * The session's side
 * --------------------------------------------------------------------------
 */

/* A database that is not served has no state; that needs no more than a look by the launcher. */
#define DATABASE_MS		5000

/*
 * Besides the two timeouts, which a server that does not answer takes: enough for some
 * hundred round trips, on a busy machine.
 */
#define ANSWER_MS		30000

/* The number that tells the lock of questions from others on the extension. */
#define QUESTION_LOCK	2

/* In place of a length: the worker that had the rest of the answer is gone. */
#define ANSWER_LOST		PG_UINT32_MAX

static void
refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no worker has answered %s in time", what),
			 errhint("See state and last_error in uncache.stat, and the server log.")));
}

/* The worker may still be at the question of a session that has given up. */
static void
wait_until_free(const char *what, DatabaseState *database, TimestampTz deadline)
{
	while (pg_atomic_read_u64(&database->question_drawn) !=
		   pg_atomic_read_u64(&database->question_done))
	{
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
			refuse(what);
		shmem_wake_worker(database);
		pg_usleep(1000);
	}
	pg_read_barrier();
}

/* One ticket; returns whether there is more of the answer. */
static bool
exchange(const char *what, DatabaseState *database, QuestionKind kind, const char *question,
		 size_t len, StringInfo answer, TimestampTz deadline)
{
	bool		more;

	Assert(len <= QUESTION_BYTES);
	database->question_kind = kind;
	database->question_len = len;
	memcpy(database->question_text, question, len);
	pg_write_barrier();
	if (!wait_ticket_ask(database, &database->question_callers, &database->question_drawn,
						 &database->question_done, deadline))
		refuse(what);
	if (database->question_len == ANSWER_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker has ended while it answered %s", what),
				 errhint("Try again; the server log says why it has ended.")));
	Assert(database->question_len <= QUESTION_BYTES);
	more = database->question_kind == QUESTION_MORE;
	appendBinaryStringInfo(answer, database->question_text, database->question_len);
	return more;
}

void
question_ask(const char *what, QuestionKind kind, const char *question, size_t len,
			 StringInfo answer)
{
	Oid			extension = get_extension_oid("pg_uncache", false);
	TimestampTz deadline;
	DatabaseState *database;

	shmem_require_preload(what);
	PreventCommandDuringRecovery(what);
	database = wait_ticket_database(TimestampTzPlusMilliseconds(clock_now(), DATABASE_MS));
	if (database == NULL)
		refuse(what);

	LockDatabaseObject(ExtensionRelationId, extension, QUESTION_LOCK, ExclusiveLock);
	deadline = TimestampTzPlusMilliseconds(clock_now(), (int64) setting_connect_timeout +
										   setting_command_timeout + ANSWER_MS);
	wait_until_free(what, database, deadline);
	while (exchange(what, database, kind, question, len, answer, deadline))
	{
		kind = QUESTION_MORE;
		len = 0;
	}
	UnlockDatabaseObject(ExtensionRelationId, extension, QUESTION_LOCK, ExclusiveLock);
}

/*
 * --------------------------------------------------------------------------
 * The worker's side
 * --------------------------------------------------------------------------
 */

/* How long the rest of an answer waits for the session to ask for it. */
#define KEEP_MS			10000

/* What the worker is at.  Without a context all else means nothing. */
static MemoryContext context = NULL;
static QuestionKind kind;
static StringInfoData answer;
static bool whole;
static int	sent;				/* bytes of the answer */
static TimestampTz asked_at;	/* the last ticket */

static void
forget(void)
{
	if (context == NULL)
		return;
	if (kind == QUESTION_CHECK)
		question_check_end();
	else
		question_audit_end();
	MemoryContextDelete(context);
	context = NULL;
}

static void
begin(DatabaseState *database)
{
	MemoryContext old_context;

	forget();
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache question",
									ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	kind = database->question_kind;
	initStringInfo(&answer);
	whole = false;
	sent = 0;
	if (kind == QUESTION_CHECK)
		question_check_begin(database->question_text, database->question_len);
	else
		question_audit_begin(database->question_text, database->question_len);
	MemoryContextSwitchTo(old_context);
}

/* Work at it; returns when to go on, if it is not whole then. */
static TimestampTz
go_on(TimestampTz now)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);
	TimestampTz wake = DT_NOEND;

	if (!whole)
		whole = kind == QUESTION_CHECK ? question_check_run(now, &wake, &answer) :
			question_audit_run(now, &wake, &answer);
	MemoryContextSwitchTo(old_context);
	return wake;
}

/* Give out the next part, the last one with another kind than QUESTION_MORE. */
static void
hand_out(DatabaseState *database, uint64 drawn)
{
	int			len = Min(answer.len - sent, QUESTION_BYTES);

	Assert(whole);
	memcpy(database->question_text, answer.data + sent, len);
	sent += len;
	database->question_len = len;
	database->question_kind = sent < answer.len ? QUESTION_MORE : kind;
	pg_write_barrier();
	pg_atomic_write_u64(&database->question_done, drawn);
	ConditionVariableBroadcast(&database->barrier_cv);
	if (sent == answer.len)
		forget();
}

/* A new worker has no answer of which it could give more. */
static void
answer_lost(DatabaseState *database, uint64 drawn)
{
	database->question_len = ANSWER_LOST;
	pg_write_barrier();
	pg_atomic_write_u64(&database->question_done, drawn);
	ConditionVariableBroadcast(&database->barrier_cv);
}

/* No ticket is open: keep the rest of an answer for a while. */
static TimestampTz
keep(TimestampTz now)
{
	TimestampTz until = TimestampTzPlusMilliseconds(asked_at, KEEP_MS);

	if (context == NULL)
		return DT_NOEND;
	if (now < until)
		return until;
	forget();
	return DT_NOEND;
}

TimestampTz
question_run(TimestampTz now)
{
	static uint64 taken = 0;	/* the ticket that the worker is at */
	DatabaseState *database = MyDatabaseState;
	uint64		drawn = pg_atomic_read_u64(&database->question_drawn);
	TimestampTz wake;

	if (drawn == pg_atomic_read_u64(&database->question_done))
		return keep(now);
	pg_read_barrier();
	if (pg_atomic_read_u32(&database->question_callers) == 0)
	{
		forget();
		pg_atomic_write_u64(&database->question_done, drawn);
		return DT_NOEND;
	}
	if (drawn != taken)
	{
		taken = drawn;
		asked_at = now;
		if (database->question_kind != QUESTION_MORE)
			begin(database);
	}
	if (context == NULL)
	{
		answer_lost(database, drawn);
		return DT_NOEND;
	}
	wake = go_on(now);
	node_flush_all();
	if (whole)
		hand_out(database, drawn);
	return wake;
}
