/*
 * wait_barrier.h
 *	  The worker's side of uncache.wait().
 */
#ifndef UNCACHE_BARRIER_H
#define UNCACHE_BARRIER_H

#include "postgres.h"

#include "shmem/shmem.h"

extern void wait_barrier_init(void);

/* At the end of a turn: answer callers when all that came before them is delivered. */
extern void wait_barrier_turn(void);

/* What was under way is lost and will be taken anew. */
extern void wait_barrier_begin_anew(void);

/* Whether somebody waits in wait(). */
extern bool wait_barrier_is_asked_for(void);

/* Whether the next turn is needed at once. */
extern bool wait_barrier_needs_turn(void);

#endif							/* UNCACHE_BARRIER_H */
