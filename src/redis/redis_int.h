/*
 * redis_int.h
 *	  What the files of this folder share and no other folder may use.
 */
#ifndef UNCACHE_REDIS_INT_H
#define UNCACHE_REDIS_INT_H

#include "redis/redis.h"
#include "redis/redis_resolve.h"

/* ----- redis_link.c: the link, without hiredis (with it: redis_link_int.h) ----- */

/* What the handshake expects of the server, and what the server said of itself. */
typedef struct RedisServer
{
	bool		is_sentinel;	/* it must be a Sentinel */
	bool		any_role;		/* it may be a replica */

	/* "" or 0 when unknown. */
	char		run_id[64];
	char		history[64];	/* master_replid */
	char		role[16];
	int			version;
	char		withheld[200];	/* questions that it did not answer, and the first refusal */
} RedisServer;

/* A part of the link, for the handshake to fill. */
extern RedisServer *redis_link_server(RedisLink *link);

/* The server's address, for messages. */
extern const char *redis_link_where(const RedisLink *link);

/* As redis_send(), but before the link is ready, too. */
extern bool redis_link_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
							RedisAnswer answer, void *arg);

/* The handshake is over: the link is ready, or failed for the reason given. */
extern void redis_link_ready(RedisLink *link);
extern void redis_link_fail(RedisLink *link, const char *format,...) pg_attribute_printf(2, 3);

/* ----- redis_handshake.c ----- */

/* Send the commands of the handshake.  Fails the link where that is not possible. */
extern void redis_handshake_send(RedisLink *link, const RedisTarget *target,
								 const RedisOptions *options);

/* ----- redis_socket.c ----- */

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

/* The address that was tried did not answer: begin with the next one next time. */
extern void redis_socket_try_another(void);

/* Bytes written that the other side's kernel has not taken yet; 0 if unknown. */
extern size_t redis_socket_untaken(pgsocket sock);

#endif							/* UNCACHE_REDIS_INT_H */
