/*
 * worker_int.h
 *	  What the files of this folder offer each other; no other folder includes it.
 *
 * A function *_run() does the part of a worker's turn that is due, and returns when it
 * wants to run again: DT_NOEND for "when something happens".
 */
#ifndef UNCACHE_WORKER_INT_H
#define UNCACHE_WORKER_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "storage/lockdefs.h"

#include "shmem/shmem.h"

/*
 * --------------------------------------------------------------------------
 * Of the launcher: which databases are served
 * --------------------------------------------------------------------------
 */

/*
 * A database that is no template, accepts connections, is not being dropped, and may
 * have a worker (uncache.databases).
 */
typedef struct Database
{
	Oid			dboid;
	NameData	name;
	int			rank;			/* in uncache.databases; 0 where that is empty */
} Database;

/* database_probe.c */

/*
 * Forget the list that was read.  From here on the list is read when it is first needed,
 * into the memory context that is current now.
 */
extern void database_begin_turn(void);

/* All of them, as Database, in the order of uncache.databases. */
extern List *database_list(void);

/* NULL when the database is gone, or no process may connect to it. */
extern const Database *database_find(Oid dboid);

/*
 * Register a process of a kind ("worker", "probe") that runs "function" for a database,
 * and of whose start and end the postmaster tells this process.  *handle is allocated in
 * TopMemoryContext.  Returns false where the server has no process left.
 */
extern bool database_start_process(const char *kind, const char *function, Oid dboid, Datum arg,
								   BackgroundWorkerHandle **handle);

typedef enum ProbeResult
{
	PROBE_RUNNING,
	PROBE_FOUND,				/* the database has the extension */
	PROBE_ABSENT,				/* it does not */
	PROBE_FAILED,				/* the probe ended without an answer; see the server log */
} ProbeResult;

/*
 * Start a probe of a database; one at a time.  The launcher's latch is set when there is
 * an answer.  Returns false where the server has no process left.
 */
extern bool database_probe_start(Oid dboid);

/* The answer of the probe that was started; to be asked for until it is not PROBE_RUNNING. */
extern ProbeResult database_probe_result(void);

/* served_databases.c */

/* OIDs of the databases to be probed first, in this order; NIL where nothing is known. */
extern List *served_databases_read(void);

/* Remember these OIDs for the next start; does nothing where they are remembered. */
extern void served_databases_write(const List *dboids);

/*
 * --------------------------------------------------------------------------
 * Of a worker: its turn
 * --------------------------------------------------------------------------
 */

/* discard.c: outside of a transaction, discard what a caller waits for. */
extern void discard_run(DatabaseState *database);

/* reconnect.c */

/* Let the connections do what is due, and see to the nodes that have come or gone. */
extern void reconnect_connect(void);

/* All connections were closed: forget what is under way, and let waiting sessions go. */
extern void reconnect_discard_all(void);

/* Send again what waits for a node, if it is time; resend_release_due_at() says when. */
extern void reconnect_run(TimestampTz now);

/* After sending: give nodes their epoch when they have got what they may have missed. */
extern void reconnect_catch_up(void);

/* wait_barrier.c */

/* At the end of a turn: answer callers of wait() when all before them is delivered. */
extern void wait_barrier_run(void);

/* What was under way is forgotten, and will be taken anew. */
extern void wait_barrier_begin_anew(void);

/* Whether a session waits in wait(). */
extern bool wait_barrier_is_asked_for(void);

/* Whether the barrier needs another turn at once. */
extern bool wait_barrier_needs_turn(void);

/* worker_log.c: for the rest of this process; the name is that of its database now. */
extern void worker_log_init(void);

/* worker_version.c: say where the SQL objects of this database are of another version. */
extern void worker_version_check(void);

/* worker_survey.c */

extern void worker_survey_init(void);

/* Look at the backlog and at the rules, for uncache.stat_databases, when it is time. */
extern TimestampTz worker_survey_run(TimestampTz now);

/* worker_wait.c */

extern void worker_wait_init(void);

/*
 * Wait for something to do, until "wake" at the latest (DT_NOEND: no end).  "taken" is how
 * many entries of the ring the turn has found.  Sets the events of each WaitedLink.
 */
extern void worker_wait(TimestampTz wake, int taken);

/* worker_yield.c */

/*
 * How long a worker must have been idle before it gives up its place.  A worker that
 * starts again sends the last redeliver_window again, so databases must not take turns
 * more often than this; and a database that has to wait for its turn waits about as long.
 */
#define YIELD_IDLE_MS	10000

extern void worker_yield_init(void);

/*
 * At the end of a turn: note since when nothing came.  Where the launcher has asked for
 * this worker's place, and everything that is committed is delivered, give it up and end.
 */
extern void worker_yield_run(TimestampTz now);

/*
 * --------------------------------------------------------------------------
 * Questions of sessions (question.h): the worker's side
 * --------------------------------------------------------------------------
 */

/* question.c: take a question, or go on with its answer; returns when to be called again. */
extern TimestampTz question_run(TimestampTz now);

/*
 * The two kinds.  *_begin() copies the question.  *_run() goes on; it returns true once the
 * answer is whole, else sets *wake to when to be called again (DT_NOEND: when an answer of
 * Redis has come).  *_end() forgets it, whole or not; answers that are still due are ignored.
 */
extern void question_check_begin(const char *question, size_t len);
extern bool question_check_run(TimestampTz now, TimestampTz *wake, StringInfo answer);
extern void question_check_end(void);
extern void question_audit_begin(const char *question, size_t len);
extern bool question_audit_run(TimestampTz now, TimestampTz *wake, StringInfo answer);
extern void question_audit_end(void);

/*
 * --------------------------------------------------------------------------
 * Of a session: asking the worker (wait_ticket.c)
 * --------------------------------------------------------------------------
 */

typedef struct WaitTicket
{
	DatabaseState *database;
	pg_atomic_uint64 *done;
	uint64		number;
	uint32		assignment;		/* of the DatabaseState, when the ticket was drawn */
} WaitTicket;

/* The state of this database, or NULL; it may take the launcher a moment to assign one. */
extern DatabaseState *wait_ticket_database(TimestampTz deadline);

/* Writes what is asked for into the DatabaseState; must not raise. */
typedef void (*WaitTicketWriter) (DatabaseState *database, const void *request);

/*
 * False where the DatabaseState serves another database by now; else "write", if it is not
 * NULL, is called with "request" before the ticket is drawn, under the lock, exclusively.
 */
extern bool wait_ticket_draw(WaitTicket *ticket, DatabaseState *database,
							 pg_atomic_uint64 *drawn, pg_atomic_uint64 *done,
							 WaitTicketWriter write, const void *request);

/*
 * Sleep until the worker has counted up to the ticket; false: the time is over, or
 * the ticket is void.
 */
extern bool wait_ticket_await(const WaitTicket *ticket, TimestampTz deadline);

/*
 * Ask the worker and wait for its answer, counted as one of "callers" meanwhile, however
 * that ends: the worker does nothing for a ticket whose caller is gone.
 */
extern bool wait_ticket_ask(DatabaseState *database, pg_atomic_uint32 *callers,
							pg_atomic_uint64 *drawn, pg_atomic_uint64 *done,
							WaitTicketWriter write, const void *request, TimestampTz deadline);

/*
 * --------------------------------------------------------------------------
 * Of a session: commands that need a database without its worker
 * --------------------------------------------------------------------------
 */

/* database_hold.c */

/* Register the callback that releases the holds; once, in _PG_init. */
extern void database_hold_init(void);

/*
 * End the worker of a database, wait until it is gone, and keep it away until this
 * transaction ends.  Takes the database's lock in "mode", the one which the command
 * takes that follows.  Gives up waiting after 5 s, in silence: the command then finds the
 * worker itself.  Returns whether the worker has left anything undelivered, if there was
 * one to say so.  May raise (lock, cancel).
 */
extern LeftBehind database_hold(Oid dboid, LOCKMODE mode);

/* drop_extension.c: called before each DROP command, whatever it drops.  May raise. */
extern void drop_extension_before(DropStmt *drop);

#endif							/* UNCACHE_WORKER_INT_H */
