/*
 * lacking.c
 *	  Which nodes lack some of what was sent.
 *
 * A row that was sent to all of its nodes but one waits until that one is back, and
 * one that was delivered is sent again when a node may have forgotten it.  The
 * others have it, and a second delete costs their readers a miss.  What each row
 * lacks is not remembered, since rows may wait for hours, but which nodes lack
 * anything at all: RedisNode.lacks.  They are sent again all that waits, and the
 * others nothing of it.
 *
 *		lacks			since a key was lost on the way to the node, or the node is new,
 *						or has got other slots, or may have forgotten
 *		being_sent		likewise, and a scan that began after that is sending it
 *
 * Both mean the same for a key.  When all is sent that the scan has found
 * "being_sent" ends, while what was lost meanwhile has set "lacks" again.
 *
 * Failure: to note too much costs misses; so where it is not known what a node has
 * got, it is noted.  A key is looked up when it is lost, by the map of that moment;
 * who gets its slot with a later map is noted then (cluster_nodes.c).
 */
#include "postgres.h"

#include "delivery/lacking.h"

void
lacking_note_key(const Target *target, const char *key, size_t len)
{
	uint16		slot;
	RedisNode  *node = target_node(target, key, len, &slot);

	/* Without a node: who gets the slot is noted. */
	if (node != NULL)
		node->lacks = true;
}

void
lacking_note_all(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->lacks = true;
}

void
lacking_note_again(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->lacks |= node_at(i)->being_sent;
}

bool
lacking_is(const RedisNode *node)
{
	return node->lacks || node->being_sent;
}

void
lacking_scan_begins(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		node->being_sent |= node->lacks;
		node->lacks = false;
	}
}

static bool
is_being_sent(const RedisNode *node)
{
	return node->being_sent;
}

bool
lacking_is_being_sent(void)
{
	return node_some(is_being_sent);
}

void
lacking_scan_is_over(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->being_sent = false;
}
