/*
 * node_int.h
 *	  What node.c, node_ping.c and node_scan.c share, and nobody else sees.
 */
#ifndef UNCACHE_NODE_INT_H
#define UNCACHE_NODE_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/link_set.h"
#include "topology/node.h"
#include "base/backoff.h"
#include "base/log_throttle.h"

/* Often enough to notice a hang, and still less than two wake-ups a second (node_ping.c). */
#define PING_MS				1200

/* The link for SCAN (node_scan.c). */
typedef struct NodeScanLink
{
	WaitedLink	waited;
	bool		wanted;			/* else to be closed at the next turn */
	bool		ready;			/* commands are accepted */
	Backoff		retry;			/* not to be opened before its end; meaningful without a link */
	LogThrottle throttle;		/* of messages that it can't be opened */
} NodeScanLink;

typedef struct NodePrivate
{
	WaitedLink	waited;			/* its link, ready or not */
	NodeScanLink scan;

	/* Where the link was opened to; NULL without one.  It stays as long as the link. */
	const RedisTarget *server;
	int			server_host;

	NodeEvent	event;			/* for the next turn to tell */
	char		trouble[256];	/* why the link should be given up, or empty */
	bool		of_cluster;		/* it is the trouble of its cluster, not its own */

	/* Of the link. */
	bool		was_ready;
	bool		proven;
	bool		of_use;			/* a command was carried out */
	TimestampTz ready_at;
	bool		flaps;			/* the last one was lost unproven */
	uint64		links;			/* ever opened */
	bool		told_withheld;	/* the log knows what the server does not tell */

	Backoff		retry;

	/* While is_down. */
	TimestampTz down_since;
	uint64		attempts;
	LogThrottle throttle;

	/* Of the server of the last link. */
	char		run_id[64];
	char		history[64];

	TimestampTz ping_at;
	TimestampTz ping_sent_at;
	bool		ping_under_way;
	bool		tells_role;		/* asked with each ping whether it is still a master */
	const char **ping_argv;
	int			ping_argc;
	RedisAnswer ping_answer;
	RedisAnswer due_answer;		/* of the ping under way; another may be chosen meanwhile */
} NodePrivate;

/* Whether this is the only node; see node_set_single(). */
extern bool node_is_single(void);

/* As node.c does with the link. */
extern void node_scan_turn(RedisNode *node);
extern void node_scan_flush(RedisNode *node);
extern void node_scan_close(RedisNode *node);
extern TimestampTz node_scan_deadline(const RedisNode *node);

extern void nodeping_init(void);

/* There is a link, and it has not been pinged yet. */
extern void node_ping_begin(RedisNode *node, TimestampTz now);
extern void node_ping_if_due(RedisNode *node, TimestampTz now);

/*
 * Set how late the node is: the wait in ms that was in vain, 0 for not late.  Where
 * it is the only one that is said of the database (DatabaseState.breaker).
 */
extern void node_ping_set_slow(RedisNode *node, uint32 ms);

#endif							/* UNCACHE_NODE_INT_H */
