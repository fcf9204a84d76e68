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
#include "storage/ipc.h"
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

static bool
is_ours(DatabaseState *database)
{
	return pg_atomic_read_u32(&database->dboid) == MyDatabaseId;
}

/* The worker may still be at the question of a session that has given up. */
static void
wait_until_free(const char *what, DatabaseState *database, TimestampTz deadline)
{
	while (is_ours(database) && pg_atomic_read_u64(&database->question_drawn) !=
		   pg_atomic_read_u64(&database->question_done))
	{
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
			refuse(what);
		shmem_wake_worker(database);
		pg_usleep(1000);
	}
}

typedef struct Question
{
	QuestionKind kind;
	const char *text;
	size_t		len;
} Question;

static void
write_question(DatabaseState *database, const void *request)
{
	const Question *question = request;

	Assert(LWLockHeldByMeInMode(database->lock, LW_EXCLUSIVE));
	Assert(question->len <= QUESTION_BYTES);
	database->question_kind = question->kind;
	database->question_len = question->len;
	memcpy(database->question_text, question->text, question->len);
}

/*
 * Append a part of the answer, and set *kind to its kind.  Returns its length, ANSWER_LOST
 * where there is none.  The ticket must not be void: then the text is another database's.
 */
static uint32
take_part(const char *what, const WaitTicket *ticket, QuestionKind *kind, StringInfo answer)
{
	DatabaseState *database = ticket->database;
	uint32		len;
	bool		is_void;

	enlargeStringInfo(answer, QUESTION_BYTES);
	LWLockAcquire(database->lock, LW_SHARED);
	is_void = pg_atomic_read_u32(&database->assignment) != ticket->assignment;
	*kind = database->question_kind;
	len = database->question_len;
	if (!is_void && len <= QUESTION_BYTES)
		appendBinaryStringInfo(answer, database->question_text, len);
	LWLockRelease(database->lock);
	if (is_void)
		refuse(what);
	return len;
}

/* One ticket; returns whether there is more of the answer. */
static bool
exchange(const char *what, DatabaseState *database, const Question *question,
		 StringInfo answer, TimestampTz deadline)
{
	WaitTicket	ticket;
	QuestionKind kind;

	if (!wait_ticket_draw(&ticket, database, &database->question_drawn,
						  &database->question_done, write_question, question) ||
		!wait_ticket_await(&ticket, deadline))
		refuse(what);
	if (take_part(what, &ticket, &kind, answer) > QUESTION_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker has ended while it answered %s", what),
				 errhint("Try again; the server log says why it has ended.")));
	return kind == QUESTION_MORE;
}

static void
stop_asking(int code, Datum callers)
{
	pg_atomic_fetch_sub_u32((pg_atomic_uint32 *) DatumGetPointer(callers), 1);
}

/*
 * All tickets of a question.  The caller counts from the first to the last, so that the worker
 * does not make room for another database between two of them.
 */
static void
exchange_all(const char *what, DatabaseState *database, Question question, StringInfo answer,
			 TimestampTz deadline)
{
	pg_atomic_uint32 *callers = &database->question_callers;

	pg_atomic_fetch_add_u32(callers, 1);
	PG_ENSURE_ERROR_CLEANUP(stop_asking, PointerGetDatum(callers));
	{
		while (exchange(what, database, &question, answer, deadline))
		{
			question.kind = QUESTION_MORE;
			question.len = 0;
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_asking, PointerGetDatum(callers));
	stop_asking(0, PointerGetDatum(callers));
}

/* The DatabaseState is looked for once it is this session's turn: before, it may change hands. */
void
question_ask(const char *what, QuestionKind kind, const char *question, size_t len,
			 StringInfo answer)
{
	Oid			extension = get_extension_oid("pg_uncache", false);
	TimestampTz deadline;
	DatabaseState *database;

	shmem_require_preload(what);
	PreventCommandDuringRecovery(what);
	LockDatabaseObject(ExtensionRelationId, extension, QUESTION_LOCK, ExclusiveLock);
	database = wait_ticket_database(TimestampTzPlusMilliseconds(clock_now(), DATABASE_MS));
	if (database == NULL)
		refuse(what);
	deadline = TimestampTzPlusMilliseconds(clock_now(), (int64) setting_connect_timeout +
										   setting_command_timeout + ANSWER_MS);
	wait_until_free(what, database, deadline);
	exchange_all(what, database, (Question) {kind, question, len}, answer, deadline);
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
	Assert(database->question_kind != QUESTION_MORE);
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

	Assert(whole && len >= 0 && database == MyDatabaseState);
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
