/*
 * lacking.h
 *	  Which nodes lack some of what was sent.
 */
#ifndef UNCACHE_LACKING_H
#define UNCACHE_LACKING_H

#include "postgres.h"

#include "topology/node.h"
#include "topology/target.h"

/* The node of a key has not got it; all nodes may lack anything. */
extern void lacking_note_key(const Target *target, const char *key, size_t len);
extern void lacking_note_all(void);

/* What was under way while nodes have forgotten it was lost: they still lack it. */
extern void lacking_note_again(void);

/* Whether what was sent before has to be sent to this node again. */
extern bool lacking_is(const RedisNode *node);

/*
 * A scan begins to send again; and all that it has found was sent, so that the nodes
 * lack nothing but what was noted since it began.
 */
extern void lacking_scan_begins(void);
extern bool lacking_is_being_sent(void);
extern void lacking_scan_is_over(void);

#endif							/* UNCACHE_LACKING_H */
