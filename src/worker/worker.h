/*
 * worker.h
 *	  The processes that deliver to Redis, as the rest of the library sees them.
 */
#ifndef UNCACHE_WORKER_H
#define UNCACHE_WORKER_H

#include "postgres.h"

/*
 * Register the launcher as a static background worker; in _PG_init, while
 * preloading.  Does nothing during pg_upgrade.
 */
extern void launcher_register(void);

/*
 * Install the hooks that see utility commands which matter to a worker; in _PG_init, also
 * where the library is not preloaded.
 */
extern void utility_hook_init(void);

/*
 * Entry points of the processes, which the postmaster calls by name.
 *
 * A probe's argument is the OID of the database.  A worker's argument is the number of its
 * DatabaseState, whose dboid is the database.  A worker's exit code says
 *		0	the database has no extension, or has lost it: do not start it again
 *			(its state is WORKER_NONE and the DatabaseState is free)
 *		1	start it again (settings changed, error, told to end)
 */
extern PGDLLEXPORT void uncache_launcher_main(Datum arg);
extern PGDLLEXPORT void uncache_probe_main(Datum arg);
extern PGDLLEXPORT void uncache_worker_main(Datum arg);

#endif							/* UNCACHE_WORKER_H */
