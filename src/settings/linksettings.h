/*
 * linksettings.h
 *	  The settings that a link to Redis is opened with.
 */
#ifndef UNCACHE_LINKSETTINGS_H
#define UNCACHE_LINKSETTINGS_H

#include "postgres.h"

#include "redis/redis.h"

/*
 * As the settings are now, for a link that is about to be opened; what it points to
 * lives until they change.  A file with a secret that others may read is logged.
 */
extern RedisOptions linksettings_options(void);

/* Remember the settings of now; whether they are others meanwhile. */
extern void linksettings_note(void);
extern bool linksettings_have_changed(void);

#endif							/* UNCACHE_LINKSETTINGS_H */
