/*
 * node_scan.c
 *	  A second link to a node, for SCAN alone.
 *
 * An answer of SCAN can be too large for the link, or for the output buffer that Redis
 * allows a client, or can take too long; each of these ends the link.  Sessions wait for
 * commands on the first link, so SCAN goes by another one, which may break without harm.
 * It is opened when pattern_scan.c asks for it, to the address that the first link was
 * opened to, and closed when that file releases it, or with the first link.
 *
 * A link that breaks is opened again after a short pause, one that can't be opened after a
 * pause that doubles up to a second; that is logged once a minute, with the reason.  A link
 * to another server than the first one's, which their run ids show, is closed: during a
 * failover one address may lead to two servers for a moment.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "settings/settings_redis.h"
#include "topology/topology_int.h"

/* After a link that had been ready; and after one that had not, doubling. */
#define BROKEN_MS		10
#define REFUSED_LAST_MS	1000

static void
close_scan_link(RedisNode *node)
{
	RedisLink  *closing = link_set_remove(&node->own->scan.waited);

	node->own->scan.ready = false;
	if (closing != NULL)
		redis_close(closing);
}

void
node_scan_close(RedisNode *node)
{
	close_scan_link(node);
	backoff_reset(&node->own->scan.retry);
}

/* This may be called from an answer of the link itself, so the next turn closes it. */
void
node_release_scan_link(RedisNode *node)
{
	node->own->scan.wanted = false;
}

RedisLink *
node_scan_link(RedisNode *node)
{
	NodeScanLink *scan = &node->own->scan;

	Assert(!scan->ready || (scan->waited.link != NULL && node->link != NULL));
	scan->wanted = true;
	if (scan->ready)
		return scan->waited.link;
	if (scan->waited.link == NULL && node->link != NULL && clock_now() >= scan->retry.until)
	{
		RedisOptions options = settings_redis_options();

		link_set_add(&scan->waited,
					 redis_open(node->own->server, node->own->server_host, &options));
		if (scan->waited.link == NULL)
			scan->retry.until = TimestampTzPlusMilliseconds(clock_now(), REFUSED_LAST_MS);
	}
	return NULL;
}

const char *
node_scan_error(const RedisNode *node)
{
	return node->own->scan.waited.link ? redis_error(node->own->scan.waited.link) : "";
}

/* It can't be opened: log that, since patterns have to wait for it. */
static void
opening_failed(RedisNode *node, const char *error, TimestampTz now)
{
	NodeScanLink *scan = &node->own->scan;

	backoff_fail(&scan->retry, now, 2 * BROKEN_MS, REFUSED_LAST_MS);
	if (log_throttle_passes(&scan->throttle, NULL, now, LOG_THROTTLE_MS))
		node_note_error(node, "patterns have to wait for a second connection, for SCAN: %s", error);
}

static void
fail(RedisNode *node, const char *error, TimestampTz now)
{
	NodeScanLink *scan = &node->own->scan;

	Assert(scan->waited.link != NULL);
	if (scan->ready)
		scan->retry.until = TimestampTzPlusMilliseconds(now, BROKEN_MS);
	else
		opening_failed(node, error, now);
	close_scan_link(node);
}

static bool
is_same_server(const RedisNode *node)
{
	const char *id = redis_run_id(node->own->scan.waited.link);

	Assert(node->link != NULL);
	return id[0] == '\0' || strcmp(id, node->own->run_id) == 0;
}

void
node_scan_turn(RedisNode *node)
{
	NodeScanLink *scan = &node->own->scan;
	RedisLinkState state;
	TimestampTz now;

	if (scan->waited.link == NULL)
		return;
	if (!scan->wanted)
	{
		node_scan_close(node);
		return;
	}
	state = link_set_turn(&scan->waited);
	now = clock_now();
	if (state == REDIS_FAILED)
		fail(node, redis_error(scan->waited.link), now);
	else if (state == REDIS_READY && !scan->ready && !is_same_server(node))
		fail(node, "another server answers at its address", now);
	else if (state == REDIS_READY && !scan->ready)
	{
		scan->ready = true;
		backoff_reset(&scan->retry);
	}
}

TimestampTz
node_scan_deadline(const RedisNode *node)
{
	const NodeScanLink *scan = &node->own->scan;

	if (scan->waited.link == NULL)
		return DT_NOEND;
	return !scan->wanted || redis_state(scan->waited.link) == REDIS_FAILED ? 0 :
		redis_deadline(scan->waited.link);
}

TimestampTz
node_scan_link_retry_at(const RedisNode *node)
{
	const NodeScanLink *scan = &node->own->scan;

	return scan->waited.link ? DT_NOEND : scan->retry.until;
}
