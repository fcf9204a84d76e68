/*
 * worker_slots.h
 *	  The slots and their workers, as the launcher sees them.
 */
#ifndef UNCACHE_PLACE_H
#define UNCACHE_PLACE_H

#include "postgres.h"
#include "nodes/pg_list.h"

/*
 * Make the places in the current memory context, and take over the slots and
 * workers of a launcher that ran before.  Once in a launcher.
 */
extern void worker_slots_init(void);

extern bool worker_slots_have(Oid dboid);

/*
 * The same for a database that asks to be served: should it lose its place, because its
 * worker finds no extension or gives up the slot, it is to be looked into again.
 */
extern bool worker_slots_note_request(Oid dboid, bool written);

/*
 * Whether there is an empty place.  Give it to a database that has none; false when
 * its slot is still held by a session, which wakes the launcher when it lets go.
 */
extern bool worker_slots_have_room(void);
extern bool worker_slots_give(Oid dboid);

/*
 * Notice which workers have ended and empty the places that are no longer needed.
 * Calls "ask" with each database that is to be looked into again; "told": the log says
 * that it has lost its worker.
 */
extern void worker_slots_look_after(void (*ask) (Oid dboid, bool written, bool told));

/*
 * Ask the worker that has been idle for longest to give up its slot (worker_yield.h), if one
 * has been for long enough.  Its database is to be looked into again then, with "ask".
 */
extern void worker_slots_ask_to_yield(void);

/* Add the databases that have places to the list, the last to become idle first. */
extern List *worker_slots_add_databases(List *dboids);

/* Start the workers that are due. */
extern void worker_slots_start_workers(void);

/* Milliseconds until the next worker is due; at most "longest". */
extern long worker_slots_due_in(long longest);

/* Warn, once, that there is no process for a worker or a probe. */
extern void worker_slots_warn_of_processes(void);

#endif							/* UNCACHE_PLACE_H */
