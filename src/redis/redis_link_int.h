/*
 * redis_link_int.h
 *	  What a link is made of.  Private to redis.c, redis_reply.c and redis_io.c.
 */
#ifndef UNCACHE_REDISLINK_INT_H
#define UNCACHE_REDISLINK_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include <hiredis/hiredis.h>

#include "redis/redis_link.h"
#include "redis/redis_resolve.h"
#include "redis/redis_tls.h"

/* hiredis reads at most this much at a time. */
#define READ_BYTES			(16 * 1024)

#if HIREDIS_MAJOR >= 1
typedef size_t ElementCount;
#else
typedef int ElementCount;
#endif

typedef struct DueAnswer
{
	RedisAnswer answer;
	void	   *arg;
	uint64		end;			/* position in the stream where the command ends */
} DueAnswer;

struct RedisLink
{
	RedisLinkState state;
	bool		connected;		/* the socket is; false: handshake not sent yet */
	bool		write_failed;	/* to be reported when the answers are read */
	bool		in_turn;		/* callbacks run only then */
	redisContext *context;		/* NULL: it failed before it had one */
	RedisResolve *resolve;		/* until the host's addresses are known; then NULL */
	RedisTls   *tls;			/* NULL: none */
	bool		secured;		/* TLS is up, or there is none */
	bool		write_wants_read;	/* TLS must read before it can write on */
	int			connect_timeout;
	int			command_timeout;

	/* The queue of answers due: a ring of "room" entries, a power of two. */
	DueAnswer  *due;
	size_t		first;
	size_t		count;
	size_t		room;

	/* Positions in the stream of all bytes ever sent on the link. */
	uint64		appended;		/* given to hiredis */
	uint64		taken;			/* taken by the server's kernel, at last_look */
	TimestampTz last_look;
	TimestampTz last_moved;		/* while resolving or connecting: when that began */
	bool		clock_waits;	/* commands are due, and none was written yet */

	/* The answer that is being read. */
	redisReplyObjectFunctions functions;
	void	   *(*create_array) (const redisReadTask *, ElementCount);
	size_t		reply_bytes;
	size_t		reply_elements;
	bool		reply_refused;	/* it broke a limit */

	RedisServer server;
	char		where[300];
	char		error[600];
};

/* redis.c: connect, once the addresses are known; fails the link where it can't. */
extern void redis_link_look_for_address(RedisLink *link);

/* redis_reply.c: hold the server's answers to limits, and whether what has arrived does. */
extern void redis_reply_limit_replies(RedisLink *link);
extern bool redis_reply_reply_is_within_limits(const RedisLink *link);

/* redis_io.c: answer everything with NULL; the link has failed. */
extern void redis_io_abandon_answers(RedisLink *link);

#endif							/* UNCACHE_REDISLINK_INT_H */
