/*
 * place.h
 *	  The slots and their workers, as the launcher sees them.
 */
#ifndef UNCACHE_PLACE_H
#define UNCACHE_PLACE_H

#include "postgres.h"

/*
 * Make the places in the current memory context, and take over the slots and
 * workers of a launcher that ran before.  Once in a launcher.
 */
extern void places_init(void);

/*
 * Whether the database has a place.  If "asks", it asks to be served: should its
 * worker find no extension, it is to be looked into again.
 */
extern bool places_have(Oid dboid, bool asks);

/*
 * Whether there is an empty place.  Give it to a database that has none; false when
 * its slot is still held by a session, which wakes the launcher when it lets go.
 */
extern bool places_have_room(void);
extern bool places_give(Oid dboid);

/*
 * Notice which workers have ended and empty the places that are no longer needed.
 * Calls "ask" with each database that is to be looked into again.
 */
extern void places_look_after(void (*ask) (Oid dboid));

/* Start the workers that are due. */
extern void places_start_workers(void);

/* Milliseconds until the next worker is due; at most "longest". */
extern long places_due_in(long longest);

/* Warn, once, that there is no process for a worker or a probe. */
extern void places_warn_of_processes(void);

#endif							/* UNCACHE_PLACE_H */
