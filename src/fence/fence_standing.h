/*
 * fence_standing.h
 *	  Whether readers of this server may fill, where several serve the same keys.
 */
#ifndef UNCACHE_FENCE_STANDING_H
#define UNCACHE_FENCE_STANDING_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis/redis.h"
#include "shmem/shmem.h"

typedef enum StandingKind
{
	STANDING_FILLS,
	STANDING_SERVER,			/* superseded by one with the same system identifier */
	STANDING_PLACE,				/* by another one, which has laid claim to these keys */
} StandingKind;

/* What a node said of it; "by..." mean something unless the kind is STANDING_FILLS. */
typedef struct StandingAnswer
{
	bool		known;			/* else the rest means nothing */
	StandingKind kind;
	int64		claim;			/* as the node knows it; at least what it was told */
	int64		place_claim;
	bool		clean;			/* who was superseded by this server has stored nothing */
	char		by[24];			/* incarnation; empty where the node does not know it */
	char		by_server[24];	/* system identifier, likewise */
	uint32		by_timeline;
	int64		by_claim;
	int64		unheard_ms;		/* since it called; -1: not known */
} StandingAnswer;

/* Read what is remembered; in a transaction of the worker, before any node is asked. */
extern void fence_standing_init(void);
extern void fence_standing_load(void);

/* Take the part of a status (lua/uncache.lua) that says it; false where it has none. */
extern bool fence_standing_parse(const RedisReply *reply, StandingAnswer *answer);

/* A node has answered: note who has superseded this server, and say it. */
extern void fence_standing_note(const StandingAnswer *answer);

/* A node has lost its memory, so that it has heard of nobody. */
extern void fence_standing_note_new_server(void);

/*
 * For the next status: claims, and what is remembered.  The texts are valid until the
 * next call.
 */
extern void fence_standing_texts(const char **claim, const char **place_claim, const char **superseded);

/* Write down what has changed, reclaim, flush; returns when to come again. */
extern TimestampTz fence_standing_run(TimestampTz now);

#endif							/* UNCACHE_FENCE_STANDING_H */
