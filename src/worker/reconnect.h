/*
 * reconnect.h
 *	  What the worker does when nodes come and go.
 */
#ifndef UNCACHE_COMEBACK_H
#define UNCACHE_COMEBACK_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem/shmem.h"

extern void reconnect_init(void);

/* A turn of the connections, and what follows from it. */
extern void reconnect_connect(void);

/* All connections were closed: forget what is under way, and let go who waits. */
extern void reconnect_discard_all(void);

/* Send again what waits, if it is time; returns when to come again. */
extern TimestampTz reconnect_turn(TimestampTz now);

/* After sending: let nodes have an epoch when they have got what they may have missed. */
extern void reconnect_catch_up(void);

#endif							/* UNCACHE_COMEBACK_H */
