/*
 * settings_redis.h
 *	  Checking uncache.redis_url.
 */
#ifndef UNCACHE_REDISURL_SETTING_H
#define UNCACHE_REDISURL_SETTING_H

#include "postgres.h"
#include "utils/guc.h"

/* The check hook of the setting. */
extern bool settings_redis_url_check(char **newval, void **extra, GucSource source);

/* FATAL where the value that the server starts with cannot be used. */
extern void settings_redis_url_refuse(void);

#endif							/* UNCACHE_REDISURL_SETTING_H */
