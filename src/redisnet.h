/*
 * redisnet.h
 *	  Sockets to Redis that nobody waits for; what hiredis leaves to be done.
 */
#ifndef UNCACHE_REDISNET_H
#define UNCACHE_REDISNET_H

#include "postgres.h"

#include "redisurl.h"

/*
 * Resolve the host's name and begin to connect.  Returns a non-blocking socket,
 * or PGINVALID_SOCKET and the reason in "error" ("size" bytes at most).
 */
extern pgsocket redisnet_connect(const RedisHost *host, char *error, size_t size);

/*
 * What has become of the socket: 1 when it is connected, 0 when that is not
 * known yet, -1 with errno set when it failed.
 */
extern int	redisnet_status(pgsocket sock);

/* The address that was tried did not answer: begin with another one next time. */
extern void redisnet_try_another(void);

/* Bytes written that the other side's kernel has not taken yet; 0 if unknown. */
extern size_t redisnet_untaken(pgsocket sock);

#endif							/* UNCACHE_REDISNET_H */
