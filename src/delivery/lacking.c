/*
 * lacking.c
 *	  Which nodes lack some of what was sent.
 *
 * A row that was sent to all of its nodes but one waits until that one is back, and
 * one that was delivered is sent again when a node may have forgotten it.  The
 * others have it, and a second delete costs their readers a miss.  What each row
 * lacks is not remembered, since rows may wait for hours, but which nodes lack
 * anything at all: RedisNode.needs_resend.  They are sent again all that waits, and the
 * others nothing of it.
 *
 *		needs_resend		since a key was lost on the way to the node, or the node is new,
 *						or has got other slots, or may have forgotten
 *		resend_in_progress	likewise, and a scan that began after that is sending it
 *
 * Both mean the same for a key.  When all is sent that the scan has found
 * "resend_in_progress" ends, while what was lost meanwhile has set "needs_resend" again.
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
		node->needs_resend = true;
}

void
lacking_note_all(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->needs_resend = true;
}

void
lacking_note_again(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->needs_resend |= node_at(i)->resend_in_progress;
}

bool
lacking_is(const RedisNode *node)
{
	return node->needs_resend || node->resend_in_progress;
}

void
lacking_scan_begins(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		node->resend_in_progress |= node->needs_resend;
		node->needs_resend = false;
	}
}

static bool
is_being_sent(const RedisNode *node)
{
	return node->resend_in_progress;
}

bool
lacking_is_being_sent(void)
{
	return node_any(is_being_sent);
}

void
lacking_scan_is_over(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->resend_in_progress = false;
}
