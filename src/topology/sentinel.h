/*
 * sentinel.h
 *	  Asks Redis Sentinel which server is the master, and whether it still is.
 *
 * Used by target.c alone.  Never waits (but where redis_open() does).
 */
#ifndef UNCACHE_SENTINEL_H
#define UNCACHE_SENTINEL_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/link_set.h"
#include "redis/redis.h"

typedef struct Sentinel Sentinel;

typedef enum SentinelState
{
	SENTINEL_IDLE,				/* nothing is known: sentinel_ask() */
	SENTINEL_ASKING,
	SENTINEL_KNOWN,				/* sentinel_master(); asked again now and then */
	SENTINEL_FAILED,			/* none could tell: sentinel_error() */
} SentinelState;

/* For the Sentinels of a target, which must stay until sentinel_free(). */
extern Sentinel *sentinel_make(const RedisTarget *target);
extern void sentinel_free(Sentinel *sentinel);

/* Ask each Sentinel in turn, at most once, until one names the master. */
extern void sentinel_ask(Sentinel *sentinel);

/* The master may be another one by now. */
extern void sentinel_forget(Sentinel *sentinel);

/*
 * Do what can be done without waiting.  *moved is set when the master that was
 * known is not the master any more: the new one is known then.
 */
extern SentinelState sentinel_turn(Sentinel *sentinel, bool *moved);

/* As the last turn has left it. */
extern SentinelState sentinel_state(const Sentinel *sentinel);

/* The master, as a target of its own, valid until the next turn; NULL unless known. */
extern const RedisTarget *sentinel_master(const Sentinel *sentinel);

/* Why the last Sentinel that could not tell who is the master could not. */
extern const char *sentinel_error(const Sentinel *sentinel);

/* When to come again; DT_NOEND for "when something happens". */
extern TimestampTz sentinel_deadline(const Sentinel *sentinel);

#endif							/* UNCACHE_SENTINEL_H */
