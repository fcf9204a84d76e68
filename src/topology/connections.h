/*
 * connections.h
 *	  The worker's connections to all of its targets.
 */
#ifndef UNCACHE_CONNECTION_H
#define UNCACHE_CONNECTION_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"
#include "shmem/shmem.h"

extern void connection_init(DatabaseSlot *slot);

/*
 * Connect, read and write as far as it is possible without waiting.  What has
 * happened to a node is in RedisNode.event afterwards.  Returns true when nodes have
 * got other keys than before.
 */
extern bool connection_turn(void);

/* Whether any node is ready: committers use the ring. */
/* The addresses in the setting without user and password, for the log; palloc'd. */
extern char *connection_addresses(void);

extern bool connection_is_serving(void);

/* Close all, and open again with the settings of now (unless delivery is off). */
extern void connection_reset(void);

/* When to come again. */
extern TimestampTz connection_deadline(void);

#endif							/* UNCACHE_CONNECTION_H */
