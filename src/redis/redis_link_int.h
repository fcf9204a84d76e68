/*
 * redis_link_int.h
 *	  What a link is made of.  Private to redis.c, redis_link.c, redis_reply.c and redis_io.c.
 */
#ifndef UNCACHE_REDIS_LINK_INT_H
#define UNCACHE_REDIS_LINK_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include <hiredis/hiredis.h>

#include "lib/ilist.h"

#include "redis/redis_int.h"
#include "redis/redis_resolve.h"
#include "redis/redis_tls.h"

/* hiredis reads at most this much at a time. */
#define READ_BYTES			(16 * 1024)

#if HIREDIS_MAJOR >= 1
typedef size_t ElementCount;
#else
typedef int ElementCount;
#endif

/*
 * How far a link has come.  It only moves to the right, or from any phase to LINK_FAILED:
 *
 *		RESOLVING --> CONNECTING --> SECURING --> GREETING --> READY
 *			|             |    \__without TLS__/^      |          |
 *			|             |              |             |          |
 *			+-------------+--------------+-------------+----------+--> FAILED
 */
typedef enum LinkPhase
{
	LINK_RESOLVING,				/* zero; the host's addresses are asked for */
	LINK_CONNECTING,			/* there is a socket, which is not connected yet */
	LINK_SECURING,				/* connected; TLS is not up yet */
	LINK_GREETING,				/* bytes may travel; the handshake is not answered yet */
	LINK_READY,					/* the handshake is answered; the caller may send */
	LINK_FAILED,				/* "error" says why; nothing is read or written any more */
} LinkPhase;

typedef struct DueAnswer
{
	RedisAnswer answer;
	void	   *arg;
	uint64		end;			/* position in the stream where the command ends */
} DueAnswer;

struct RedisLink
{
	LinkPhase	phase;
	bool		write_failed;	/* to be reported when the answers are read */
	bool		in_turn;		/* callbacks run only then */
	bool		is_unwritten;	/* in the list of redis_link_take_unwritten(), by the next field */
	dlist_node	unwritten_node;
	void	   *owner;			/* for redis_flush_all() */
	redisContext *context;		/* NULL: it failed before it had one */
	RedisResolve *resolve;		/* in LINK_RESOLVING, and until a link that failed in it closes */
	RedisTls   *tls;			/* NULL: none */
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
	TimestampTz last_moved;		/* before LINK_READY: when this phase began */
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

/* What a link's phase says of its other fields, for assertions. */
extern bool redis_link_is_sound(const RedisLink *link);

/* Connect, once the addresses are known; fails the link where that is not possible. */
extern void redis_link_look_for_address(RedisLink *link);

/* Take the first entry out of the queue of answers due, which is not empty. */
extern DueAnswer redis_link_next_due(RedisLink *link);

/* Answer everything with NULL; the link has failed. */
extern void redis_link_abandon_answers(RedisLink *link);

/* Free what the resolving has left. */
extern void redis_link_forget_resolve(RedisLink *link);

/* Take out a link that commands were sent on since it was taken last; NULL: there is none. */
extern RedisLink *redis_link_take_unwritten(void);

/* The link is about to be freed. */
extern void redis_link_forget_unwritten(RedisLink *link);

/* redis_reply.c: hold the server's answers to limits, and whether what has arrived does. */
extern void redis_reply_set_limits(RedisLink *link);
extern bool redis_reply_is_within_limits(const RedisLink *link);

#endif							/* UNCACHE_REDIS_LINK_INT_H */
