/*
 * fence_int.h
 *	  What the files of this folder share.
 *
 * They call each other in this order, each those before it:
 *
 *		fence.c, snapshot_tokens.c, incarnation.c
 *		fence_command.c
 *		fence_beat.c
 *		fence_standing.c
 *		fence_library.c
 *		fence_epoch.c, fence_doubt.c, snapshot.c
 */
#ifndef UNCACHE_FENCE_INT_H
#define UNCACHE_FENCE_INT_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "utils/portal.h"

#include "base/backoff.h"
#include "fence/fence.h"
#include "redis/redis.h"
#include "shmem/shmem.h"

/*
 * --------------------------------------------------------------------------
 * fence_standing.c: whether this server's readers may fill
 * --------------------------------------------------------------------------
 */

typedef enum StandingKind
{
	STANDING_FILLS,
	STANDING_SERVER,			/* superseded by one with the same system identifier */
	STANDING_PLACE,				/* by another one, which has laid claim to these keys */
} StandingKind;

/* What a node said of it; the fields "by..." mean nothing for STANDING_FILLS. */
typedef struct StandingAnswer
{
	bool		known;			/* else the rest means nothing */
	StandingKind kind;
	int64		claim;			/* as the node knows it; at least what it was told */
	int64		place_claim;
	bool		clean;			/* the server that this one superseded has stored nothing */
	char		by[24];			/* incarnation; empty where the node does not know it */
	char		by_server[24];	/* system identifier; empty where the node does not know it */
	uint32		by_timeline;
	int64		by_claim;
	int64		unheard_ms;		/* since that server called; -1: not known */
} StandingAnswer;

extern void fence_standing_init(void);

/* Take the part of a status (uncache.lua) that says it; false where the status has none. */
extern bool fence_standing_parse(const RedisReply *reply, StandingAnswer *answer);

/* A node has answered: remember which server has superseded this one, and log it. */
extern void fence_standing_note(const StandingAnswer *answer);

/* A node has lost its memory, so it has not heard of any other server. */
extern void fence_standing_note_new_server(void);

/*
 * For the next status: both claims, and by what this server is superseded.  The texts are
 * valid until the next call.
 */
extern void fence_standing_texts(const char **claim, const char **place_claim,
								 const char **superseded);

/* True once after a claim was raised: all nodes are to be told in a status. */
extern bool fence_standing_wants_status(void);

/*
 * --------------------------------------------------------------------------
 * fence.c: a node's state
 * --------------------------------------------------------------------------
 */

/* FCALL uncache_status 0 and ten arguments. */
#define STATUS_ARGS		13

/* Of a node, in RedisNode.fence. */
typedef struct Fence
{
	FenceState	state;
	bool		may_have_forgotten; /* what it was sent before this link */
	bool		wants_resending;	/* reconnect.c has not been told yet */
	TimestampTz epoch_at;		/* in FENCE_NO_EPOCH: it gets none before this time */

	/*
	 * In FENCE_NONE and FENCE_IMPOSSIBLE: another worker may load the functions at any time, so
	 * pings look for them.
	 */
	bool		looks_for_functions;

	/*
	 * In FENCE_NONE and FENCE_IMPOSSIBLE: others may call the functions that the node perhaps
	 * has, and this worker can't.
	 */
	bool		shut_out;

	/* Functions were found or loaded, after keys were deleted by UNLINK: see resend_if_found(). */
	bool		found;

	/* In FENCE_NONE and FENCE_IMPOSSIBLE: the functions could not be called. */
	Backoff		call;

	/*
	 * In FENCE_IMPOSSIBLE, because the node has refused the functions: they are offered to it
	 * again at the end of this pause; 0: not.
	 */
	Backoff		load;

	bool		outdated;		/* they were offered in place of an older library */
	bool		name_is_taken;	/* a library of that name was there when ours was offered */
	bool		foreign;		/* and it is not ours; the log has heard that already */
	bool		regaining;		/* they were lost, and a status that will end this is under way */

	/* The status as it is sent next; its texts are static or in this struct. */
	const char *status_argv[STATUS_ARGS];
	char		database[12];
	char		told[24];		/* incarnation that supersedes this server, by this node's word */
	StandingAnswer standing;	/* of the last status */

	/* Counted since the node's functions were loaded; from its last status. */
	uint64		stored;
	uint64		refused;
	uint64		beats;
	bool		wants_beat;

	/*
	 * Refused fills have asked for a beat, and may soon ask for the next one: until then a
	 * status follows deliveries, not before ask_at; "asked" is the counter of batches at the
	 * last one.
	 */
	TimestampTz hot_until;
	TimestampTz ask_at;
	uint64		asked;

	/* The last status's counts of what readers report; nothing before the first status. */
	bool		has_reports;
	uint64		plain;
	uint64		checked;
	uint64		found_stale;
} Fence;

/* Makes it where there is none yet. */
extern Fence *fence_of(RedisNode *node);

/* FENCE_UNKNOWN where there is none. */
extern FenceState fence_state_of(const RedisNode *node);
extern void fence_set_state(RedisNode *node, FenceState state);

/* Some Fence has changed: the next fence_publish() tells uncache.stat. */
extern void fence_note_change(void);

/* Send a command of texts; false where it could not be sent. */
extern bool fence_send(RedisNode *node, int argc, const char **argv, RedisAnswer answer, void *arg);

/* FCALL uncache_epoch: "random" becomes part of the new epoch; empty: only void the old one. */
extern bool fence_send_epoch(RedisNode *node, const char *random, RedisAnswer answer, void *arg);

/* Whether refused fills have asked for a beat; and that there is one now. */
extern bool fence_wants_beat(void);
extern void fence_beat_begun(void);

/*
 * --------------------------------------------------------------------------
 * fence_library.c: asking a node, and loading its functions
 * --------------------------------------------------------------------------
 */

/* Ask the node again from the start, as after fence_begin(). */
extern void fence_library_begin(RedisNode *node);

/* Send a status now, to one node. */
extern bool fence_library_ask(RedisNode *node, RedisAnswer answer, void *arg);

/*
 * --------------------------------------------------------------------------
 * snapshot_tokens.c: tokens that the client has sent with the running statement
 * --------------------------------------------------------------------------
 */

/* Whether the text has the shape of a token: letters, digits, dots, a colon, digits. */
extern bool snapshot_tokens_is_token(const char *text);

/* Whether the portal runs the statement that the client has sent, and nothing within it. */
extern bool snapshot_tokens_is_of_client(Portal portal);

/*
 * Whether the token stands in the text of the portal's statement or in one of its
 * parameters.  snapshot_tokens_is_of_client() must be true of the portal.
 */
extern bool snapshot_tokens_has(Portal portal, const char *token);

#endif							/* UNCACHE_FENCE_INT_H */
