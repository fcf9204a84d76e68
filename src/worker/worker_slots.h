/*
 * worker_slots.h
 *	  The worker slots, as the launcher sees them.
 */
#ifndef UNCACHE_WORKER_SLOTS_H
#define UNCACHE_WORKER_SLOTS_H

#include "postgres.h"
#include "nodes/pg_list.h"

#include "base/backoff.h"

/*
 * Make the slots, in the current memory context, and take over the databases and workers
 * of a launcher that ran before.  Once in a launcher.
 */
extern void worker_slots_init(void);

/* Whether this database has a slot; InvalidOid: whether a slot is free. */
extern bool worker_slots_have(Oid dboid);

/* A process could not be started, or has failed: pause before the next attempt. */
extern void worker_slots_back_off(Backoff *backoff);

/*
 * Whether a database that asks to be served has a slot.  If so, it will be probed again
 * should it lose the slot, because its worker finds no extension or gives up the slot.
 */
extern bool worker_slots_note_request(Oid dboid, bool written);

/*
 * Give a free slot to a database that has none.  Returns false when each free slot is
 * still held by a session (database_hold.c), which wakes the launcher when it lets go.
 */
extern bool worker_slots_give(Oid dboid);

/*
 * Notice which workers have ended, and free the slots that are no longer needed.
 * Calls "ask" with each database that is to be probed again; "told": the log says
 * that it has lost its worker.
 */
extern void worker_slots_look_after(void (*ask) (Oid dboid, bool written, bool told));

/*
 * Ask the worker that has been idle for longest to give up its slot (worker_yield.c), if it
 * has been idle for long enough.  Its database will be probed again.
 */
extern void worker_slots_ask_to_yield(void);

/* Add the databases that have slots to the list, the last to become idle first. */
extern List *worker_slots_add_databases(List *dboids);

/* Start the workers that are due. */
extern void worker_slots_start_workers(void);

/* Milliseconds until the next worker is due; at most "longest". */
extern long worker_slots_due_in(long longest);

/* Warn, once, that there is no process for a worker or a probe. */
extern void worker_slots_warn_of_processes(void);

#endif							/* UNCACHE_WORKER_SLOTS_H */
