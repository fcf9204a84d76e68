/*
 * link_set.h
 *	  The links to Redis servers that the worker waits for.
 *
 * The struct that owns a link embeds a WaitedLink.  worker_wait.c waits for the sockets of all
 * of them and leaves in each the events that have come.  What to wait for changes only where a
 * link is turned or written to, so worker_wait.c looks at those links alone.
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
	struct RedisNode *of_node;	/* written by node.c; NULL: it is no node's link */
	uint32		events;			/* have come, for the owner's next redis_turn() */
	bool		is_changed;		/* in the list of link_set_take_changed(), by the next field */
	dlist_node	changed_node;
	uint32		wanted;			/* of worker_wait.c alone */
	int			position;		/* of worker_wait.c alone */
} WaitedLink;

/* Wait for a link from now on; NULL: does nothing. */
extern void link_set_add(WaitedLink *waited, RedisLink *link);

/* Wait for it no more; returns the link, for the owner to close, or NULL. */
extern RedisLink *link_set_remove(WaitedLink *waited);

/* redis_turn() with the events that have come.  There must be a link. */
extern RedisLinkState link_set_turn(WaitedLink *waited);

/* Write what was sent on any link, as far as the sockets take it. */
extern void link_set_flush(void);

/* All of them, as WaitedLinks. */
extern dlist_head *link_set_all(void);

/* Take out a link that was added, turned or written to since it was taken last; NULL: none. */
extern WaitedLink *link_set_take_changed(void);

#endif							/* UNCACHE_LINK_SET_H */
