/*
 * launcher.h
 *	  Starts a worker for each database that has the extension.
 */
#ifndef UNCACHE_LAUNCHER_H
#define UNCACHE_LAUNCHER_H

#include "postgres.h"

/*
 * Register the launcher as a static background worker; in _PG_init, while
 * preloading.  Does nothing during pg_upgrade.
 */
extern void launcher_register(void);

/* Entry point of the background worker. */
extern PGDLLEXPORT void uncache_launcher_main(Datum arg);

#endif							/* UNCACHE_LAUNCHER_H */
