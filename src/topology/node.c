/*
 * node.c
 *	  All nodes, and the trouble that their answers tell of.
 *
 * A node is one Redis server that keys are delivered to.  node_link.c opens its link,
 * closes it and tries again; node_ping.c finds out that it hangs; node_scan.c has a
 * second link, for SCAN.
 *
 * A turn of the worker that looked at all of a thousand nodes would cost more than the commit
 * that it serves, whose keys go to few of them.  So most turns touch only the nodes with which
 * something happens; connections.c has a full one now and then, which finds the rest.
 *
 * An answer must not close the link that it came by.  So this file notes the trouble
 * that an answer tells of, and node_turn() acts on it.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/log_text.h"
#include "redis/redis_error.h"
#include "topology/topology_int.h"

static RedisNode *nodes[NODES_MAX];
static int	nnodes = 0;
static bool is_single = true;

static dlist_head touched = DLIST_STATIC_INIT(touched);
static bool turn_is_full = true;
static bool next_is_full = true;

int
node_count(void)
{
	return nnodes;
}

RedisNode *
node_at(int i)
{
	Assert(i >= 0 && i < nnodes);
	return nodes[i];
}

RedisNode *
node_make(bool in_cluster)
{
	MemoryContext context;
	RedisNode  *node;

	if (nnodes == NODES_MAX)
		return NULL;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache node", ALLOCSET_SMALL_SIZES);
	node = MemoryContextAllocZero(context, sizeof(RedisNode));
	node->context = context;
	node->in_cluster = in_cluster;
	node->needs_resend = true;
	node->own = MemoryContextAllocZero(context, sizeof(NodePrivate));
	node->own->waited.of_node = node->own->scan.waited.of_node = node;
	nodes[nnodes++] = node;
	node_turn_fully();
	return node;
}

static void
forget_touched(NodePrivate *own)
{
	if (!own->is_touched)
		return;
	own->is_touched = false;
	dlist_delete(&own->touched_node);
}

void
node_remove(RedisNode *node)
{
	Assert(node->link == NULL && !node_has_link(node));
	for (int i = 0; i < nnodes; i++)
	{
		if (nodes[i] == node)
			nodes[i] = nodes[--nnodes];
	}
	forget_touched(node->own);
	node_turn_fully();
	MemoryContextDelete(node->context);
}

void
node_set_single(bool single)
{
	is_single = single;
}

bool
node_is_single(void)
{
	return is_single;
}

bool
node_any(bool (*is) (const RedisNode *node))
{
	for (int i = 0; i < nnodes; i++)
	{
		if (is(nodes[i]))
			return true;
	}
	return false;
}

static bool
is_open(const RedisNode *node)
{
	return node->open;
}

bool
node_any_open(void)
{
	return node_any(is_open);
}

/*
 * --------------------------------------------------------------------------
 * The nodes of a turn
 * --------------------------------------------------------------------------
 */

void
node_begin_turn(bool full)
{
	turn_is_full = full || node_next_turn_is_full();
	next_is_full = false;
}

void
node_turn_fully(void)
{
	turn_is_full = next_is_full = true;
}

bool
node_turn_is_full(void)
{
	return turn_is_full;
}

bool
node_next_turn_is_full(void)
{
	return next_is_full || nnodes <= 1;
}

void
node_touch(RedisNode *node)
{
	if (node->own->is_touched)
		return;
	node->own->is_touched = true;
	dlist_push_tail(&touched, &node->own->touched_node);
}

void
node_forget_touched(void)
{
	while (!dlist_is_empty(&touched))
		forget_touched(dlist_head_element(NodePrivate, touched_node, &touched));
}

void
node_for_turn(void (*each) (RedisNode *node, void *arg), void *arg)
{
	dlist_iter	iter;

	if (turn_is_full)
	{
		for (int i = 0; i < nnodes; i++)
			each(nodes[i], arg);
		return;
	}
	dlist_foreach(iter, &touched)
		each(dlist_container(NodePrivate, touched_node, iter.cur)->waited.of_node, arg);
}

bool
node_has_link(const RedisNode *node)
{
	return node->own->waited.link != NULL;
}

bool
node_is_on_probation(const RedisNode *node)
{
	return node->own->on_probation;
}

/*
 * --------------------------------------------------------------------------
 * Trouble
 * --------------------------------------------------------------------------
 */

void
node_note_trouble(RedisNode *node, const RedisReply *reply)
{
	char	   *trouble = node->own->trouble;
	const char *why;

	Assert(reply != NULL);
	if (trouble[0] != '\0' || !redis_error_is_fatal(reply, &why))
		return;
	snprintf(trouble, sizeof(node->own->trouble), "%s (%s)", why,
			 log_text_cut(redis_error_text(reply), 150));
	node->own->of_cluster = node->cluster != NULL && redis_reply_is_error(reply, "CLUSTERDOWN");
}

void
node_note_nonsense(RedisNode *node)
{
	if (node->own->trouble[0] == '\0')
		strlcpy(node->own->trouble, "Redis gave an answer that makes no sense",
				sizeof(node->own->trouble));
}

void
node_note_success(RedisNode *node)
{
	node->own->carried_out = true;
}

/*
 * Where there are several nodes the text names the node, or its cluster: a node that
 * says that its cluster is down is well itself.
 */
void
node_show_error(const RedisNode *node, const char *error)
{
	const char *name = node->own->of_cluster ? node->cluster : node->name;
	char		text[256];

	if (is_single)
	{
		shmem_note_error(MyDatabaseState, error);
		return;
	}
	snprintf(text, sizeof(text), "%s: %s", name, error);
	shmem_note_error(MyDatabaseState, text);
}

void
node_note_error(const RedisNode *node, const char *format,...)
{
	char		error[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(error, sizeof(error), format, args);
	va_end(args);
	node_show_error(node, error);
	if (is_single)
		ereport(LOG, (errmsg("%s", error)));
	else
		ereport(LOG, (errmsg("%s: %s", node->name, error)));
}
