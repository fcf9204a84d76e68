/*
 * link_set.c
 *	  The links to Redis servers that the worker waits for.
 */
#include "postgres.h"

#include "topology/link_set.h"

static dlist_head all = DLIST_STATIC_INIT(all);
static dlist_head changed = DLIST_STATIC_INIT(changed);

static void
note_changed(void *owner)
{
	WaitedLink *waited = owner;

	if (waited->is_changed)
		return;
	waited->is_changed = true;
	dlist_push_tail(&changed, &waited->changed_node);
}

static void
forget_changed(WaitedLink *waited)
{
	if (!waited->is_changed)
		return;
	waited->is_changed = false;
	dlist_delete(&waited->changed_node);
}

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
	redis_set_owner(link, waited);
	note_changed(waited);
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
	redis_set_owner(link, NULL);
	forget_changed(waited);
	return link;
}

RedisLinkState
link_set_turn(WaitedLink *waited)
{
	uint32		events = waited->events;

	Assert(waited->link != NULL);
	waited->events = 0;
	note_changed(waited);
	return redis_turn(waited->link, events);
}

void
link_set_flush(void)
{
	redis_flush_all(note_changed);
}

dlist_head *
link_set_all(void)
{
	return &all;
}

WaitedLink *
link_set_take_changed(void)
{
	WaitedLink *waited;

	if (dlist_is_empty(&changed))
		return NULL;
	waited = dlist_head_element(WaitedLink, changed_node, &changed);
	forget_changed(waited);
	return waited;
}
