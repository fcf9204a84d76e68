/*
 * fence_command.h
 *	  Commands that name keys: how the functions of uncache.lua, and UNLINK, are called.
 *
 * The C twin of uncache.lua: its functions with keys get their arguments here, and nowhere else.
 */
#ifndef UNCACHE_FENCE_COMMAND_H
#define UNCACHE_FENCE_COMMAND_H

#include "postgres.h"

#include "redis/redis.h"
#include "topology/node.h"

/*
 * Most keys of one command.  Redis carries it out in one go: 128 keys take it about 150
 * microseconds, in which it serves no other client.
 */
#define FENCE_COMMAND_KEYS	128

typedef enum FenceCommand
{
	COMMAND_UNLINK,				/* UNLINK key... */
	COMMAND_UNLINK_RECORDS,		/* UNLINK with the names of the keys' fence records */
	COMMAND_INVALIDATE,			/* FCALL uncache_invalidate n key... ttl incarnation xid... */
	COMMAND_RELEASE,			/* FCALL uncache_release n key... incarnation xid... */
} FenceCommand;

/*
 * Begin a command, add its keys, and send it.  There is one command under construction at a
 * time.  A key's bytes must stay until it is sent.  "mark" stands before the xid: "!" or "?" make
 * it a doubt (uncache.lua), "" does not; COMMAND_UNLINK and COMMAND_UNLINK_RECORDS use neither.
 */
extern void fence_command_begin(FenceCommand command);
extern void fence_command_add(const char *key, size_t len, const char *mark, uint64 xid);
extern int	fence_command_keys(void);

/*
 * As redis_send(): false, and "answer" is never called, where the link takes no command.  The
 * same where no key has a fence record.
 */
extern bool fence_command_send(RedisNode *node, RedisAnswer answer, void *arg);

/* Once, in the worker. */
extern void fence_command_init(void);

#endif							/* UNCACHE_FENCE_COMMAND_H */
