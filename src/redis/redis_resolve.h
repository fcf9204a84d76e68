/*
 * redis_resolve.h
 *	  From a host's name to its addresses, without waiting.  Private to this folder.
 *
 * A resolution is begun, then turned like a link (redis.h) until it is over.  In a
 * build without c-ares it is over when it has begun, and beginning waits for as
 * long as the system's resolver does.
 */
#ifndef UNCACHE_REDIS_RESOLVE_H
#define UNCACHE_REDIS_RESOLVE_H

#include "postgres.h"

#include <sys/socket.h>

#include "redis/redis.h"

typedef struct RedisResolve RedisResolve;

typedef enum RedisResolveState
{
	RESOLVE_PENDING,
	RESOLVE_DONE,
	RESOLVE_FAILED,				/* see redis_resolve_error() */
} RedisResolveState;

typedef struct RedisAddress
{
	struct sockaddr_storage address;
	socklen_t	len;
} RedisAddress;

/* Over at once for a socket's path and for a numeric address.  NULL: memory ran out. */
extern RedisResolve *redis_resolve_begin(const RedisHost *host);
extern void redis_resolve_free(RedisResolve *resolve);

/* Read and write what the name servers' sockets allow. */
extern RedisResolveState redis_resolve_turn(RedisResolve *resolve);

/* What to wait for until the next turn: as redis_resolver_sockets(), and redis_deadline(). */
extern int	redis_resolve_sockets(const RedisResolve *resolve, RedisSocket *sockets);
extern TimestampTz redis_resolve_deadline(const RedisResolve *resolve);

/* Once it is over: the addresses in the order in which to try them, or why there are none. */
extern const RedisAddress *redis_resolve_addresses(const RedisResolve *resolve, int *count);
extern const char *redis_resolve_error(const RedisResolve *resolve);

/* Greater than before when any resolution has other sockets, or waits for other events. */
extern uint64 redis_resolve_generation(void);

#endif							/* UNCACHE_REDIS_RESOLVE_H */
