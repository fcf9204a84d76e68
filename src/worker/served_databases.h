/*
 * served_databases.h
 *	  Which databases had a worker, or needed one, before the server was restarted.
 */
#ifndef UNCACHE_SERVED_H
#define UNCACHE_SERVED_H

#include "postgres.h"
#include "nodes/pg_list.h"

/* Their OIDs, those first that are to be looked into first; NIL where nothing is known. */
extern List *served_databases_read(void);

/* Remember these OIDs for the next start; does nothing where they are remembered. */
extern void served_databases_write(const List *dboids);

#endif							/* UNCACHE_SERVED_H */
