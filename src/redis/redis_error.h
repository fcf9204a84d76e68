/*
 * redis_error.h
 *	  Telling a Redis that cannot serve at all from one that refuses a key.
 */
#ifndef UNCACHE_REDIS_ERROR_H
#define UNCACHE_REDIS_ERROR_H

#include "postgres.h"

#include "redis/redis.h"

/* Whether the reply is the error that Redis has no such command; that it has no such function. */
extern bool redis_error_is_unknown_command(const RedisReply *reply);
extern bool redis_error_is_unknown_function(const RedisReply *reply);

/* Whether the reply is an error that means "Redis as a whole cannot serve now"; *why says it. */
extern bool redis_error_is_fatal(const RedisReply *reply, const char **why);

/*
 * An error reply in words, as text that is fit for the log and without the keys that
 * Redis repeats.  It lives until the next call.
 */
extern const char *redis_error_text(const RedisReply *reply);

/*
 * Remember the words in which Redis has refused a key or pattern, and tell the log, at
 * most once a minute.  Returns the message, for the caller to show in uncache.stat
 * (shmem_note_error()); it lives until the next call.
 */
extern const char *redis_error_note_refusal(const RedisReply *reply);

/* The words of the last refusal; "" when there was none. */
extern const char *redis_error_last_refusal(void);

#endif							/* UNCACHE_REDIS_ERROR_H */
