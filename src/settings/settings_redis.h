/*
 * settings_redis.h
 *	  Checking uncache.redis_url.
 */
#ifndef UNCACHE_REDISURL_SETTING_H
#define UNCACHE_REDISURL_SETTING_H

#include "postgres.h"
#include "utils/guc.h"

/* The check hook of the setting. */
extern bool redisurl_setting_check(char **newval, void **extra, GucSource source);

/* FATAL where the value that the server starts with cannot be used. */
extern void redisurl_setting_refuse(void);

#endif							/* UNCACHE_REDISURL_SETTING_H */
