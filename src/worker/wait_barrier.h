/*
 * wait_barrier.h
 *	  The worker's side of uncache.wait().
 */
#ifndef UNCACHE_BARRIER_H
#define UNCACHE_BARRIER_H

#include "postgres.h"

#include "shmem/shmem.h"

extern void barrier_init(DatabaseSlot *slot);

/* At the end of a turn: answer callers when all that came before them is delivered. */
extern void barrier_turn(void);

/* What was under way is lost and will be taken anew. */
extern void barrier_begin_anew(void);

/* Whether somebody waits in wait(). */
extern bool barrier_is_asked_for(void);

/* Whether the next turn is needed at once. */
extern bool barrier_has_work(void);

#endif							/* UNCACHE_BARRIER_H */
