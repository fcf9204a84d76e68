/*
 * launcher.h
 *	  Starts a worker for each database that has the extension, and the
 *	  utility commands that need a database without its worker.
 */
#ifndef UNCACHE_LAUNCHER_H
#define UNCACHE_LAUNCHER_H

#include "postgres.h"

/* Register the launcher (static background worker); in _PG_init. */
extern void launcher_register(void);

extern PGDLLEXPORT void uncache_launcher_main(Datum arg);

#endif							/* UNCACHE_LAUNCHER_H */
