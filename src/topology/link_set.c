/*
 * link_set.c
 *	  The links to Redis servers that the worker waits for.
 */
#include "postgres.h"

#include "topology/link_set.h"

static dlist_head all = DLIST_STATIC_INIT(all);
static uint64 generation = 0;

void
linkset_add(WaitedLink *waited, RedisLink *link)
{
	Assert(waited->link == NULL);
	if (link == NULL)
		return;
	waited->link = link;
	waited->events = 0;
	waited->position = -1;
	dlist_push_tail(&all, &waited->node);
	generation++;
}

RedisLink *
linkset_remove(WaitedLink *waited)
{
	RedisLink  *link = waited->link;

	if (link == NULL)
		return NULL;
	waited->link = NULL;
	dlist_delete(&waited->node);
	generation++;
	return link;
}

RedisLinkState
linkset_turn(WaitedLink *waited)
{
	uint32		events = waited->events;

	waited->events = 0;
	return redis_turn(waited->link, events);
}

dlist_head *
linkset_all(void)
{
	return &all;
}

uint64
linkset_generation(void)
{
	return generation + redis_generation();
}
