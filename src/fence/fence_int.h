/*
 * fence_int.h
 *	  What fence.c and fence_library.c share, and nobody else sees.
 */
#ifndef UNCACHE_FENCE_INT_H
#define UNCACHE_FENCE_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "base/backoff.h"
#include "fence/fence.h"
#include "fence/fence_standing.h"

/* FCALL uncache_status 0 and ten arguments. */
#define STATUS_ARGS		13

/* Of a node, in RedisNode.fence. */
typedef struct Fence
{
	FenceState	state;
	bool		may_have_forgotten; /* what it was sent before this link */
	bool		wants_resending;	/* reconnect.c has not been told yet */
	TimestampTz epoch_at;		/* in FENCE_NO_EPOCH: none before this time */

	/* With the own fence off, or not possible: another worker may load them at any time. */
	bool		looks_for_functions;

	/* In FENCE_IMPOSSIBLE: others may call the functions that the node perhaps has. */
	bool		shut_out;

	/* In FENCE_IMPOSSIBLE, because it has refused them: when they are offered again; 0: not. */
	Backoff		load;			/* its end 0: they are not to be offered */

	/* A library of that name was there when ours was offered. */
	bool		name_is_taken;
	bool		foreign;		/* and it is not ours: said already */
	bool		regaining;		/* they were lost; a status that tells of the end is under way */

	/* The status, as it is sent next; texts of this file, or here. */
	const char *status_argv[STATUS_ARGS];
	char		database[12];
	char		told[24];		/* by whom this server is superseded, as this node has said */
	StandingAnswer standing;	/* of the last status */

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

extern void fence_library_init(void);

/* An error other than "the functions are gone" is the link's trouble. */
extern void fence_note_error(RedisNode *node, const RedisReply *reply);

/* Ask for the status now: a node, and all that are known to have functions. */
extern bool fence_library_ask(RedisNode *node, RedisAnswer answer, void *arg);
extern void fence_library_ask_all(void);

#endif							/* UNCACHE_FENCE_INT_H */
