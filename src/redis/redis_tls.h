/*
 * redis_tls.h
 *	  TLS on a link to Redis.  Private to this folder.
 *
 * Nothing in here waits or raises an error.  In a build without hiredis_ssl
 * redis_tls_open() always fails, and the others are never called.
 */
#ifndef UNCACHE_REDIS_TLS_H
#define UNCACHE_REDIS_TLS_H

#include "postgres.h"

#include "redis/redis.h"

struct redisContext;

typedef struct RedisTls RedisTls;

/*
 * Prepare to talk to the host: reads the files named in the options.  Returns
 * NULL with the reason in "error" ("size" bytes at most).
 */
extern RedisTls *redis_tls_open(const RedisOptions *options, const char *host,
								char *error, size_t size);

/* To be called after redisFree() of the context, if there was one. */
extern void redis_tls_close(RedisTls *tls);

/*
 * Go on with the handshake, on a context whose socket is connected.  Returns 1
 * when it is done, 0 when it waits for redis_tls_wanted_events(), -1 with the
 * reason in "error" when it failed.
 */
extern int	redis_tls_shake_hands(RedisTls *tls, struct redisContext *context,
								  char *error, size_t size);

/* Which WL_SOCKET_* events the last read, write or handshake needs to go on. */
extern uint32 redis_tls_wanted_events(const RedisTls *tls);

/* Before a read or write; what TLS has to say of its failure; "" for nothing. */
extern void redis_tls_clear_error(void);
extern const char *redis_tls_error(void);

#endif							/* UNCACHE_REDIS_TLS_H */
