/*
 * link_set.c
 *	  The links to Redis servers that the worker waits for.
 */
#include "postgres.h"

#include "topology/link_set.h"

static dlist_head all = DLIST_STATIC_INIT(all);
static uint64 generation = 0;

void
link_set_add(WaitedLink *waited, RedisLink *link)
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
link_set_remove(WaitedLink *waited)
{
	RedisLink  *link = waited->link;

	if (link == NULL)
		return NULL;
	Assert(!dlist_is_empty(&all));
	waited->link = NULL;
	dlist_delete(&waited->node);
	generation++;
	return link;
}

RedisLinkState
link_set_turn(WaitedLink *waited)
{
	uint32		events = waited->events;

	Assert(waited->link != NULL);
	waited->events = 0;
	return redis_turn(waited->link, events);
}

dlist_head *
link_set_all(void)
{
	return &all;
}

uint64
link_set_generation(void)
{
	return generation + redis_generation();
}
