/*
 * resend.c
 *	  What has to be sent again: when its rows are released, and which nodes need it.
 *
 * Rows.  A row of which a key was lost waits for the node of that key: it stays ROW_SENT, so that
 * no scan takes it, although no delivery has it.  When a node comes back all rows that wait are
 * released (reconnect.c).  A key that could not be sent for another reason, or just for the
 * moment, has no node to wait for: then rows are released after a pause, which doubles each time
 * until nothing was lost for a while.  It grows to a second, and where the outbox takes long to
 * read, to several times as long as that takes.  Which rows wait is known to delivery_map.c; here
 * are the times and a flag.  A release that was not needed costs a scan, and rows that are lost
 * once more.
 *
 * Nodes.  A row that was sent to all of its nodes but one waits until that one is back, and a
 * delivered row is sent again when a node may have forgotten it.  The other nodes have it, and
 * to delete its keys there again would cost their readers a miss.  Rows may wait for hours, so it
 * is not remembered which keys each node has missed, but only which nodes have missed any.  All
 * rows that are sent again go to these nodes, and to no other.
 *
 *		needs_resend		a key was lost on the way to the node since the last scan began; or
 *							the node is new, has got other hash slots or may have forgotten
 *		resend_in_progress	the same before the last scan began, which is sending it now
 *
 * Either means that a key which was sent before goes to this node.  When all is sent that the scan
 * has found resend_in_progress ends; keys that were lost meanwhile have set needs_resend again.
 *
 * Where it is not known whether a node has got a key, it is marked: that costs misses at the
 * most.  The node of a lost key is looked up by the map of that moment; a node that gets the hash
 * slot with a later map is marked then (cluster_nodes.c).
 *
 * A worker that begins, after a crash too, has nothing waiting: it reads the whole outbox and
 * sends all of it to every node.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/resend.h"

/* Pause before rows are released without a node that came back; doubles. */
#define AGAIN_FIRST_MS		50
#define AGAIN_CHEAP_MS		1000	/* so far whatever a scan takes; or so many times that long: */
#define AGAIN_SCAN_FACTOR	4
#define AGAIN_LAST_MS		(30 * 1000)
#define AGAIN_FORGET_MS		(60 * 1000) /* quiet for so long: the first again */

static bool has_waiting = false;
static uint64 releases = 0;		/* of waiting rows, so far */
static TimestampTz release_at = DT_NOEND;
static TimestampTz released_at = 0;
static bool is_read = true;		/* the scan that began then is over, and took: */
static int	scan_ms = 0;
static int	again_ms = AGAIN_FIRST_MS;

bool
resend_has_waiting(void)
{
	return has_waiting;
}

TimestampTz
resend_release_at(void)
{
	return release_at;
}

void
resend_release_soon(void)
{
	TimestampTz now = clock_now();

	if (release_at != DT_NOEND)
		return;
	if (TimestampDifferenceExceeds(released_at, now, AGAIN_FORGET_MS))
		again_ms = AGAIN_FIRST_MS;
	release_at = TimestampTzPlusMilliseconds(now, again_ms);
}

void
resend_note_read(TimestampTz now)
{
	if (is_read)
		return;
	Assert(released_at != 0);
	is_read = true;
	scan_ms = (int) Min(TimestampDifferenceMilliseconds(released_at, now), AGAIN_LAST_MS);
}

/* A release begins the scan anew, so a large outbox would never be read to its end. */
TimestampTz
resend_release_due_at(void)
{
	return is_read ? release_at :
		Max(release_at, TimestampTzPlusMilliseconds(released_at, AGAIN_LAST_MS));
}

void
resend_wait(void)
{
	has_waiting = true;
}

uint64
resend_releases(void)
{
	return releases;
}

bool
resend_release(void)
{
	bool		had_waiting = has_waiting;
	int			last_ms = Min(Max(AGAIN_CHEAP_MS, scan_ms * AGAIN_SCAN_FACTOR), AGAIN_LAST_MS);

	Assert(again_ms >= AGAIN_FIRST_MS && again_ms <= AGAIN_LAST_MS);
	releases++;
	again_ms = release_at == DT_NOEND ? AGAIN_FIRST_MS : Min(again_ms * 2, last_ms);
	release_at = DT_NOEND;
	released_at = clock_now();
	is_read = false;
	has_waiting = false;
	return had_waiting;
}

/*
 * --------------------------------------------------------------------------
 * Which nodes need it
 * --------------------------------------------------------------------------
 */

void
resend_note_key(const Target *target, const char *key, size_t len)
{
	uint16		hash_slot;
	RedisNode  *node = target_node(target, key, len, &hash_slot);

	/* Without a node: the node that gets the hash slot will be marked then. */
	if (node != NULL)
		node->needs_resend = true;
}

void
resend_note_all(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->needs_resend = true;
}

void
resend_note_again(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->needs_resend |= node_at(i)->resend_in_progress;
}

bool
resend_is_needed(const RedisNode *node)
{
	return node->needs_resend || node->resend_in_progress;
}

void
resend_begin(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		node->resend_in_progress |= node->needs_resend;
		node->needs_resend = false;
	}
}

static bool
is_in_progress(const RedisNode *node)
{
	return node->resend_in_progress;
}

bool
resend_is_in_progress(void)
{
	return node_any(is_in_progress);
}

void
resend_end(void)
{
	for (int i = 0; i < node_count(); i++)
		node_at(i)->resend_in_progress = false;
}
