/*
 * redis_link.h
 *	  What the handshake may do with a link beside redis.h.  Private to the files
 *	  whose names begin with "redis".
 */
#ifndef UNCACHE_REDISLINK_H
#define UNCACHE_REDISLINK_H

#include "redis/redis.h"

/* What the server said of itself; "" or 0 when unknown. */
typedef struct RedisServer
{
	bool		is_sentinel;	/* that is what we expect it to be */
	bool		any_role;		/* a replica will do */
	char		run_id[64];
	char		history[64];	/* master_replid */
	char		role[16];
	int			version;
	char		withheld[200];	/* questions that it did not answer, and the first refusal */
} RedisServer;

/* For the handshake to fill; part of the link. */
extern RedisServer *redis_link_server(RedisLink *link);

/* The server's address, for messages. */
extern const char *redis_link_where(const RedisLink *link);

/* As redis_send(), but during the handshake. */
extern bool redis_link_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
						   RedisAnswer answer, void *arg);

/* The handshake is over: the link is ready, or failed for the reason given. */
extern void redis_link_ready(RedisLink *link);
extern void redis_link_fail(RedisLink *link, const char *format,...) pg_attribute_printf(2, 3);

/* redis_handshake.c: send the handshake's commands.  Fails the link where it can't. */
extern void redis_handshake_send(RedisLink *link, const RedisTarget *target,
							const RedisOptions *options);

#endif							/* UNCACHE_REDISLINK_H */
