/*
 * drop_guard.h
 *	  DROP EXTENSION is refused where it would stop all commits of the database.
 */
#ifndef UNCACHE_DROP_GUARD_H
#define UNCACHE_DROP_GUARD_H

#include "nodes/nodes.h"

/* Before a utility command is carried out. */
extern void drop_guard_before(Node *stmt);

#endif							/* UNCACHE_DROP_GUARD_H */
