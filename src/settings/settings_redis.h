/*
 * settings_redis.h
 *	  The settings that say how to reach Redis.
 */
#ifndef UNCACHE_SETTINGS_REDIS_H
#define UNCACHE_SETTINGS_REDIS_H

#include "postgres.h"
#include "utils/guc.h"

#include "redis/redis.h"

/* The check hook of uncache.redis_url. */
extern bool settings_redis_url_check(char **newval, void **extra, GucSource source);

/* FATAL where the address that the server starts with cannot be used. */
extern void settings_redis_url_refuse(void);

/*
 * The options of a link that is about to be opened, as the settings are now; what they
 * point to lives until the settings change.  Tells the log of a file with a secret that
 * others may read.
 */
extern RedisOptions settings_redis_options(void);

/* Remember the settings of now; whether they differ from those remembered. */
extern void settings_redis_note(void);
extern bool settings_redis_have_changed(void);

#endif							/* UNCACHE_SETTINGS_REDIS_H */
