/*
 * redis_error.h
 *	  Telling a Redis that is of no use from one that refuses a key.
 */
#ifndef UNCACHE_TROUBLE_H
#define UNCACHE_TROUBLE_H

#include "postgres.h"

#include "redis/redis.h"

/* A reply that means "Redis as a whole is of no use now"; *why says it. */
extern bool redis_error_is_fatal(const RedisReply *reply, const char **why);

/* An error reply in words: without the keys that Redis repeats.  Until the next call. */
extern const char *redis_error_text(const RedisReply *reply);

/* Show what Redis said of a key or pattern that it refuses, in uncache.stat. */
extern void redis_error_note_refusal(const RedisReply *reply);

/* What the last refusal said. */
extern const char *redis_error_last_refusal(void);

#endif							/* UNCACHE_TROUBLE_H */
