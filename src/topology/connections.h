/*
 * connections.h
 *	  The worker's connections to all of its targets.
 */
#ifndef UNCACHE_CONNECTIONS_H
#define UNCACHE_CONNECTIONS_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"
#include "shmem/shmem.h"

extern void connections_init(void);

/*
 * Connect, read and write as far as it is possible without waiting.  Afterwards
 * RedisNode.event says what has happened to each node.  Returns true when nodes have
 * got other keys than before.
 */
extern bool connections_turn(void);

/* Whether any node is ready: committers use the ring. */
extern bool connections_is_serving(void);

/* The addresses in the setting without user and password, for the log; palloc'd. */
extern char *connections_addresses(void);

/* Close all, and open again with the settings of now (unless uncache.delivery is off). */
extern void connections_reset(void);

/*
 * At the end of a turn, when all the rest has said when it wants the next one ("wake"): when
 * that must be.  What concerns all nodes is done again at that time, or soon after it.
 */
extern TimestampTz connections_deadline(TimestampTz wake);

#endif							/* UNCACHE_CONNECTIONS_H */
