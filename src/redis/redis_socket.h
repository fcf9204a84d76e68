/*
 * redis_socket.h
 *	  Sockets to Redis that nobody waits for; what hiredis leaves to be done.
 */
#ifndef UNCACHE_REDISNET_H
#define UNCACHE_REDISNET_H

#include "postgres.h"

#include "redis/redis_resolve.h"

/*
 * Begin to connect to one of the addresses.  Returns a non-blocking socket, or
 * PGINVALID_SOCKET with errno set where all of them failed at once.
 */
extern pgsocket redis_socket_connect(const RedisAddress *addresses, int count);

/*
 * What has become of the socket: 1 when it is connected, 0 when that is not
 * known yet, -1 with errno set when it failed.
 */
extern int	redis_socket_status(pgsocket sock);

/* The address that was tried did not answer: begin with another one next time. */
extern void redis_socket_try_another(void);

/* Bytes written that the other side's kernel has not taken yet; 0 if unknown. */
extern size_t redis_socket_untaken(pgsocket sock);

#endif							/* UNCACHE_REDISNET_H */
