/*
 * discard.h
 *	  The worker's side of uncache.discard_backlog().
 */
#ifndef UNCACHE_DISCARD_H
#define UNCACHE_DISCARD_H

#include "postgres.h"

#include "shmem/shmem.h"

/* Discard what is asked for, if a caller waits for it; outside of a transaction. */
extern void discard_turn(DatabaseState *database);

#endif							/* UNCACHE_DISCARD_H */
