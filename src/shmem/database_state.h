/*
 * database_state.h
 *	  What is shared about one database that is served.
 *
 * A DatabaseState serves one database at a time; the launcher decides which.  There are
 * uncache.max_database_workers of them.  Nothing in it is the truth: that is the outbox.
 */
#ifndef UNCACHE_DATABASE_STATE_H
#define UNCACHE_DATABASE_STATE_H

#include "base/compat.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"

#include "shmem/counters.h"
#include "shmem/ring.h"

/* The outbox tables that rotate; outbox_side comes on top. */
#define OUTBOX_TABLES	4

/*
 * A table's blocks whose rows may have missed the ring, as a bitmap over the
 * block number modulo this many bits: exact up to 32 MB, and a table is retired
 * at 16 MB unless Redis is away.
 */
#define DIRTY_BITS		4096
#define DIRTY_WORDS		(DIRTY_BITS / 32)

/* What a database's worker is doing; uncache.stat shows it as "state". */
typedef enum WorkerState
{
	WORKER_NONE,				/* zero: there has been no worker yet */
	WORKER_CONNECTING,			/* first attempt, or Redis just lost */
	WORKER_CONNECTED,			/* to all nodes */
	WORKER_DOWN,				/* Redis, or a node of it, can't be reached; retrying */
	WORKER_PAUSED,				/* uncache.delivery = off */
} WorkerState;

/* Whether an outbox has rows that are not delivered, as far as it is known. */
typedef enum LeftBehind
{
	LEFT_UNKNOWN,
	LEFT_NOTHING,
	LEFT_SOMETHING,
} LeftBehind;

/* How a worker sleeps: a committer that puts into the ring decides by it about the latch. */
typedef enum WorkerSleep
{
	WORKER_AWAKE,				/* it looks at the ring before it sleeps */
	WORKER_GATHERS,				/* it looks soon, but not soon enough for a session that waits */
	WORKER_SLEEPS,
} WorkerSleep;

/* Whether fenced fills are possible; uncache.stat shows it as "fence". */
typedef enum FenceState
{
	FENCE_UNKNOWN,				/* the node has not been asked yet */
	FENCE_LOADING,				/* its functions are being loaded */
	FENCE_NONE,					/* no functions there: keys are deleted with UNLINK */
	FENCE_IMPOSSIBLE,			/* the same, though fence_ttl asks for them: the node can't */
	FENCE_SUPERSEDED,			/* functions there; another server's readers fill instead */
	FENCE_NO_EPOCH,				/* functions there, but every fill is refused */
	FENCE_SETTING,				/* the same, while an epoch is under way */
	FENCE_ON,
} FenceState;

/* What the worker knows of the nodes' fences, from their last status. */
typedef struct FenceStatus
{
	pg_atomic_uint32 state;		/* FenceState: the least of all nodes' */
	pg_atomic_uint32 any_on;	/* whether some node's is FENCE_ON */
	pg_atomic_uint64 stored;	/* fills, since the functions were loaded */
	pg_atomic_uint64 refused;
	pg_atomic_uint64 beats;
} FenceStatus;

/* What the worker saw of its database when it last looked (worker_survey.c). */
typedef struct Survey
{
	TimestampTz backlog_at;		/* 0: not yet, and the next three mean nothing */
	int64		rows;			/* undelivered outbox rows; an estimate for long tables */
	int64		bytes;			/* of the outbox tables on disk */
	TimestampTz oldest_at;		/* when the oldest of these rows was written; 0: there is none */
	TimestampTz rules_at;		/* 0: not yet, and the next one means nothing */
	int			rules_with_problems;
	bool		fence_wanted;	/* uncache.fence_ttl is above 0 in that database */
} Survey;

/* What a session asks the worker (question.h). */
typedef enum QuestionKind
{
	QUESTION_CHECK,				/* uncache.check_redis() */
	QUESTION_AUDIT,				/* uncache.audit_keys(): the first part of the answer */
	QUESTION_MORE,				/* the next part of the same answer */
} QuestionKind;

/*
 * A part of an answer; a question fits in, too.  Some hundred keys, or all checks of some
 * servers, so that one exchange is the rule.
 */
#define QUESTION_BYTES	(64 * 1024)

typedef struct DatabaseState
{
	/*
	 * Which database it serves.  The launcher writes both under Shared->lock and "lock";
	 * readable without them.
	 */
	pg_atomic_uint32 dboid;		/* 0: none */
	pg_atomic_uint32 assignment;	/* how often dboid was written */

	/*
	 * How many sessions want this database without a worker for a while (DROP, RENAME, use as
	 * template).  Written under Shared->lock by database_hold.c; while it is above 0 the
	 * launcher starts no worker.
	 */
	int			holds;

	/*
	 * LeftBehind: what a worker leaves behind that ends because of a hold.  The first session
	 * that holds resets it under Shared->lock; the worker writes.
	 */
	pg_atomic_uint32 left_behind;

	/*
	 * Ask the worker to end, so that another one begins with fresh settings.  Sessions set it;
	 * the launcher clears it before it starts a worker.
	 */
	pg_atomic_uint32 restart_requested;

	/*
	 * The launcher asks the worker to make room for another database if it is idle
	 * (worker_yield.c); the worker clears it.
	 */
	pg_atomic_uint32 yield_requested;

	/*
	 * Since when nothing waits to be delivered, by clock_now(); 0: something does.  Worker
	 * writes.
	 */
	pg_atomic_uint64 idle_since;

	LWLock	   *lock;			/* covers the group below */
	ProcNumber	worker_proc;	/* INVALID_PROC_NUMBER: none; worker writes */
	pid_t		worker_pid;		/* 0: none; worker writes */
	Ring		ring;
	char		endpoint[256];	/* Redis address without secrets; worker writes */
	char		last_error[256];	/* worker writes */
	TimestampTz last_error_at;	/* 0: never */
	Survey		survey;			/* worker writes */

	pg_atomic_uint32 state;		/* WorkerState; worker writes */

	/* Whether any node is connected: the worker takes what is put into the ring. */
	pg_atomic_uint32 serving;	/* worker writes */
	pg_atomic_uint32 sleep;		/* WorkerSleep; worker writes */

	/*
	 * Circuit breaker.  0: closed.  Otherwise the largest wait_timeout in ms that has expired:
	 * only sessions with a larger one wait, until Redis has answered in half that time.  A
	 * session whose wait timed out sets it, the worker clears it.
	 */
	pg_atomic_uint32 breaker;

	/* Which of the rotating tables takes new rows; worker writes. */
	pg_atomic_uint32 current_table;

	/*
	 * How often a session has locked a table to write to it when it was not the current one any
	 * more; written under that lock (outbox_truncate.c).
	 */
	pg_atomic_uint32 late_writers[OUTBOX_TABLES];

	/*
	 * A bit for each rotating table that a session could not write to, because its last block is
	 * damaged.  Sessions set it and take another table from then on; the worker clears it once
	 * it has truncated the table.
	 */
	pg_atomic_uint32 unwritable_tables;

	/*
	 * Set by committers whose rows are not in the ring, after the commit is visible; the worker
	 * clears a bit, then takes the snapshot for its scan.
	 */
	pg_atomic_uint32 any_dirty;
	pg_atomic_uint32 dirty[OUTBOX_TABLES][DIRTY_WORDS];

	/* Set by committers that left overflow markers, or relied on some (outbox_overflow.h). */
	pg_atomic_uint32 markers_dirty;

	/* Set after a COMMIT PREPARED or the like: the worker looks into outbox_side. */
	pg_atomic_uint32 side_dirty;

	/*
	 * uncache.wait(): a caller draws the next ticket; the worker answers with the highest ticket
	 * before whose drawing everything is delivered.  Tickets are drawn under "lock", and void
	 * when there has been another assignment.
	 */
	pg_atomic_uint64 barrier_drawn;
	pg_atomic_uint64 barrier_done;
	ConditionVariable barrier_cv;

	/*
	 * uncache.discard_backlog(): tickets drawn by callers and answered by the worker, as above,
	 * and how many callers still wait (on barrier_cv, too); without one nothing is discarded. An
	 * assignment answers all tickets of the database before. One caller at a time, which holds a
	 * heavyweight lock for it, writes what is to be discarded as it draws, under "lock".
	 */
	pg_atomic_uint64 discard_drawn;
	pg_atomic_uint64 discard_done;
	pg_atomic_uint32 discard_callers;
	pg_atomic_uint64 discard_xid;	/* a transaction; 0: all */
	pg_atomic_uint64 discarded; /* transactions, ever; worker writes */

	/* uncache.reclaim_fence(): the same. */
	pg_atomic_uint64 reclaim_drawn;
	pg_atomic_uint64 reclaim_done;
	pg_atomic_uint32 reclaim_callers;

	/*
	 * Questions of sessions: the same.  The caller that holds the heavyweight lock writes the
	 * next three as it draws, under "lock", while all tickets are answered; then they are the
	 * worker's, which writes the answer in place of the question before it answers the ticket. A
	 * caller copies the answer under "lock", and only while the assignment is still its own.
	 */
	pg_atomic_uint64 question_drawn;
	pg_atomic_uint64 question_done;
	pg_atomic_uint32 question_callers;
	QuestionKind question_kind;
	uint32		question_len;
	char		question_text[QUESTION_BYTES];

	/*
	 * Which outbox rows are delivered (delivery_map.h): the worker's dynamic shared memory;
	 * DSM_HANDLE_INVALID when there is none, then everything in the outbox counts as
	 * undelivered.  Covered by "lock".
	 */
	dsa_handle	delivered_area;
	dsa_pointer delivered_root;

	FenceStatus fence;			/* worker writes */
	DatabaseCounters stats;
} DatabaseState;

#endif							/* UNCACHE_DATABASE_STATE_H */
