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

/* What a turn has brought about. */
typedef enum ConnectionEvent
{
	CONNECTION_SAME,
	CONNECTION_MADE,			/* ready now */
	CONNECTION_LOST,			/* was ready before this turn; all commands are answered */
} ConnectionEvent;

/* Connect, read and write as far as it is possible without waiting. */
extern ConnectionEvent connection_turn(uint32 events);

/* NULL unless ready. */
extern RedisLink *connection_link(void);

/* Whether the server is another one, or has started anew, since the last time. */
extern bool connection_is_new_server(void);

/* Close, and open again with the settings of now (unless delivery is off). */
extern void connection_reset(void);

/* Whether that would make a difference. */
extern bool connection_is_outdated(void);

/*
 * What to send as a ping: texts, and who is told the answer; NULL for a PING.
 * The array must stay.
 */
extern void connection_set_ping(const char **argv, int argc, RedisAnswer answer);

/* Set last_error, and say it in the log; for what does not end the connection. */
extern void connection_note_error(const char *format,...) pg_attribute_printf(1, 2);

/* For the wait: the socket or PGINVALID_SOCKET, its events, and the next deadline. */
extern pgsocket connection_socket(void);
extern uint32 connection_wanted_events(void);
extern TimestampTz connection_deadline(void);

/* Changes whenever the socket does. */
extern uint64 connection_generation(void);

#endif							/* UNCACHE_CONNECTION_H */
