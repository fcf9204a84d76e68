/*
 * link_set.h
 *	  The links to Redis servers that the worker waits for.
 *
 * The struct that owns a link embeds a WaitedLink.  worker_wait.c walks over all of them,
 * waits for their sockets and leaves in each the events that have come.
 */
#ifndef UNCACHE_LINK_SET_H
#define UNCACHE_LINK_SET_H

#include "postgres.h"
#include "lib/ilist.h"

#include "redis/redis.h"

typedef struct WaitedLink
{
	dlist_node	node;			/* in the set while there is a link */
	RedisLink  *link;			/* NULL: none */
	uint32		events;			/* have come, for the owner's next redis_turn() */
	uint32		wanted;			/* of worker_wait.c alone */
	int			position;		/* of worker_wait.c alone */
} WaitedLink;

/* Wait for a link from now on; NULL: does nothing. */
extern void link_set_add(WaitedLink *waited, RedisLink *link);

/* Wait for it no more; returns the link, for the owner to close, or NULL. */
extern RedisLink *link_set_remove(WaitedLink *waited);

/* redis_turn() with the events that have come.  There must be a link. */
extern RedisLinkState link_set_turn(WaitedLink *waited);

/* All of them, as WaitedLinks; and a number that changes with the set or its sockets. */
extern dlist_head *link_set_all(void);
extern uint64 link_set_generation(void);

#endif							/* UNCACHE_LINK_SET_H */
