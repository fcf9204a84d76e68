/*
 * worker.h
 *	  The background process of one database that delivers to Redis.
 */
#ifndef UNCACHE_WORKER_H
#define UNCACHE_WORKER_H

#include "postgres.h"

/*
 * Entry point of a dynamic background worker; arg is the slot's number.  The
 * slot's dboid is the database.  Ends with
 *		0	the database has no extension, or has lost it: do not start again
 *			(the slot's state is WORKER_NONE and its dboid is set to 0)
 *		1	start again (settings changed, error, told to end)
 */
extern PGDLLEXPORT void uncache_worker_main(Datum arg);

#endif							/* UNCACHE_WORKER_H */
