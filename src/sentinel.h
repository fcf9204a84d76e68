/*
 * sentinel.h
 *	  Asks Redis Sentinel which server is the master, and whether it still is.
 *
 * Used by connection.c alone.  Never waits (but for name resolution, as
 * redis_open() does).
 */
#ifndef UNCACHE_SENTINEL_H
#define UNCACHE_SENTINEL_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis.h"

typedef enum SentinelState
{
	SENTINEL_UNUSED,			/* the target is no Sentinel */
	SENTINEL_IDLE,				/* nothing is known: sentinel_ask() */
	SENTINEL_ASKING,
	SENTINEL_KNOWN,				/* sentinel_master(); asked again now and then */
	SENTINEL_FAILED,			/* none could tell: sentinel_error() */
} SentinelState;

/*
 * Use these Sentinels from now on, or none where the target is none of Sentinel's
 * or NULL.  The target must stay until the next call.
 */
extern void sentinel_use(const RedisTarget *target);

/* Ask each Sentinel in turn, at most once, until one names the master. */
extern void sentinel_ask(void);

/* The master may be another one by now. */
extern void sentinel_forget(void);

/*
 * Do what can be done without waiting.  *moved is set when the master that was
 * known is not the master any more: the new one is known then.
 */
extern SentinelState sentinel_turn(uint32 events, bool *moved);

extern SentinelState sentinel_state(void);

/* The master, as a target of its own, valid until the next turn; NULL unless known. */
extern const RedisTarget *sentinel_master(void);

extern const char *sentinel_error(void);

/* For the wait, as those of redis.h; the generation changes with the socket. */
extern pgsocket sentinel_socket(void);
extern uint32 sentinel_wanted_events(void);
extern TimestampTz sentinel_deadline(void);
extern uint64 sentinel_generation(void);

#endif							/* UNCACHE_SENTINEL_H */
