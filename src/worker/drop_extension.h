/*
 * drop_extension.h
 *	  DROP EXTENSION takes its locks in an order that harms no other session.
 */
#ifndef UNCACHE_DROP_GUARD_H
#define UNCACHE_DROP_GUARD_H

#include "postgres.h"
#include "nodes/parsenodes.h"

/* Called before each DROP command, whatever it drops.  May raise. */
extern void drop_extension_before(DropStmt *drop);

#endif							/* UNCACHE_DROP_GUARD_H */
