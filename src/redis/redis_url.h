/*
 * redis_url.h
 *	  The setting uncache.redis_url, taken apart.
 */
#ifndef UNCACHE_REDIS_URL_H
#define UNCACHE_REDIS_URL_H

#include "postgres.h"

/* Most hosts of an address, and most addresses in the setting: limits for typing errors. */
#define REDIS_MAX_HOSTS		16
#define TARGETS_MAX			8

#define REDIS_DEFAULT_PORT	6379

/* What may stand between several URLs, and never within one. */
#define REDISURL_BLANKS		" \t\n\r\f\v"

typedef enum RedisScheme
{
	REDIS_PLAIN,				/* redis:// and rediss:// */
	REDIS_UNIX,					/* unix:///path */
	REDIS_CLUSTER,				/* redis+cluster:// */
	REDIS_SENTINEL,				/* redis+sentinel:// */
} RedisScheme;

typedef struct RedisHost
{
	char	   *name;			/* host name or address, or the socket's path */
	int			port;			/* 0 for a socket */
} RedisHost;

typedef struct RedisTarget
{
	RedisScheme scheme;
	bool		tls;
	char	   *user;			/* NULL: none given */
	char	   *password;		/* NULL: none given */
	int			db;
	char	   *service;		/* Sentinel's master name, or NULL */
	int			nhosts;
	RedisHost	hosts[REDIS_MAX_HOSTS];
} RedisTarget;

/*
 * Take a URL apart.  Returns a target made in one piece with malloc, to be
 * given to redis_url_free(), or NULL with *error set to a static text, which says
 * what is wrong and never repeats a part of the URL that could be a secret.
 */
extern RedisTarget *redis_url_parse(const char *url, const char **error);
extern void redis_url_free(RedisTarget *target);

/* The URL without user and password, for views and the log; "size" bytes at most. */
extern void redis_url_public(const RedisTarget *target, char *to, size_t size);

#endif							/* UNCACHE_REDIS_URL_H */
