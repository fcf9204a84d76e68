/*
 * fence_int.h
 *	  What fence.c and fencelook.c share, and nobody else sees.
 */
#ifndef UNCACHE_FENCE_INT_H
#define UNCACHE_FENCE_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "fence.h"

/* Of a node, in RedisNode.fence. */
typedef struct Fence
{
	FenceState	state;
	bool		may_have_forgotten; /* what it was sent before this link */
	bool		wants_resending;	/* comeback.c has not been told yet */
	TimestampTz epoch_at;		/* in FENCE_NO_EPOCH: none before this time */

	/* With the own fence off, or not possible: another worker may load them at any time. */
	bool		looks_for_functions;

	/* In FENCE_IMPOSSIBLE: others may call the functions that the node perhaps has. */
	bool		shut_out;

	/* In FENCE_IMPOSSIBLE, because it has refused them: when they are offered again; 0: not. */
	TimestampTz load_at;
	int			load_ms;		/* the pause before that */

	/* Since its functions were loaded, from its last status. */
	uint64		stored;
	uint64		refused;
	uint64		beats;
	bool		wants_beat;
} Fence;

/* Made when there is none yet; FENCE_UNKNOWN where there is none. */
extern Fence *fence_of(RedisNode *node);
extern FenceState fence_state_of(const RedisNode *node);
extern void fence_set_state(RedisNode *node, FenceState state);

/* Tell uncache.stat of what has changed in some Fence. */
extern void fence_publish(void);

/* Send a command of texts. */
extern bool fence_send(RedisNode *node, int argc, const char **argv, RedisAnswer answer, void *arg);

extern void fencelook_init(void);

#endif							/* UNCACHE_FENCE_INT_H */
