/*
 * shmem_int.h
 *	  What the files of this folder share and no other folder may use.
 */
#ifndef UNCACHE_SHMEM_INT_H
#define UNCACHE_SHMEM_INT_H

#include "shmem/shmem.h"

/*
 * lineage.c: draw the incarnation of this life of the server, and take over the lineage of
 * the life before or begin one.  In the postmaster, while shared memory is made.
 */
extern void lineage_begin(Shared *shared);

#endif							/* UNCACHE_SHMEM_INT_H */
