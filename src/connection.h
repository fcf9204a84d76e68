/*
 * connection.h
 *	  The worker's connection to Redis: opening, losing, trying again.
 */
#ifndef UNCACHE_CONNECTION_H
#define UNCACHE_CONNECTION_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis.h"
#include "shmem.h"

extern void connection_init(DatabaseSlot *slot);

/* The one to Redis, and the one to a Sentinel. */
#define CONNECTION_SOCKETS	2

/* The one to Redis, and the one to a Sentinel. */
#define CONNECTION_SOCKETS	2

/* What a turn has brought about. */
typedef enum ConnectionEvent
{
	CONNECTION_SAME,
	CONNECTION_MADE,			/* ready now */
	CONNECTION_LOST,			/* was ready before this turn; all commands are answered */
} ConnectionEvent;

/*
 * Connect, read and write as far as it is possible without waiting; with the
 * events of each socket.
 */
extern ConnectionEvent connection_turn(const uint32 *events);

/* NULL unless ready. */
extern RedisLink *connection_link(void);

/* Whether the server is another one, or has started anew, since the last time. */
extern bool connection_is_new_server(void);

/* Close, and open again with the settings of now (unless delivery is off). */
extern void connection_reset(void);

/*
 * What to send as a ping: texts, and who is told the answer; NULL for a PING.
 * The array must stay.
 */
extern void connection_set_ping(const char **argv, int argc, RedisAnswer answer);

/* Set last_error, and say it in the log; for what does not end the connection. */
extern void connection_note_error(const char *format,...) pg_attribute_printf(1, 2);

/* For the wait: each socket or PGINVALID_SOCKET, its events, and the next deadline. */
extern pgsocket connection_socket(int i);
extern uint32 connection_wanted_events(int i);
extern TimestampTz connection_deadline(void);

/* Changes whenever a socket does. */
extern uint64 connection_generation(void);

#endif							/* UNCACHE_CONNECTION_H */
