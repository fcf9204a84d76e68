/*
 * databases.h
 *	  Which databases can be served, for the launcher.
 */
#ifndef UNCACHE_DATABASES_H
#define UNCACHE_DATABASES_H

#include "postgres.h"
#include "nodes/pg_list.h"

/*
 * A database that is no template, is open to connections, is not being dropped, and may
 * have a worker (uncache.databases).
 */
typedef struct Database
{
	Oid			dboid;
	NameData	name;
	int			rank;			/* in uncache.databases; 0 where that is empty */
} Database;

/*
 * Forget what was read.  From here on the list is read when it is first needed,
 * into the memory context that is current now.
 */
extern void databases_begin_turn(void);

/* All of them, as Database, in the order of uncache.databases. */
extern List *databases_list(void);

/* NULL when the database is gone, or must not be connected to. */
extern const Database *databases_find(Oid dboid);

#endif							/* UNCACHE_DATABASES_H */
