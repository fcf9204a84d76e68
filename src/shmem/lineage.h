/*
 * lineage.h
 *	  Which lives of the server followed one another without losing a commit.
 *
 * Lives between which the server was shut down cleanly share a lineage; a crash
 * begins another one.  A worker compares the server's with the one that its
 * database has seen last, and so learns of a crash also when nobody was there to
 * notice it at the time: no worker got to this database before the next shutdown.
 */
#ifndef UNCACHE_LINEAGE_H
#define UNCACHE_LINEAGE_H

#include "postgres.h"

#include "shmem/shmem.h"

/*
 * Take over the lineage of the life before, or begin one with this incarnation,
 * which has been drawn.  In the postmaster, while shared memory is made.
 */
extern void lineage_begin(Shared *shared);

#endif							/* UNCACHE_LINEAGE_H */
