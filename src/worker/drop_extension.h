/*
 * drop_extension.h
 *	  DROP EXTENSION takes its locks in an order that does nobody harm.
 */
#ifndef UNCACHE_DROP_GUARD_H
#define UNCACHE_DROP_GUARD_H

#include "postgres.h"
#include "nodes/parsenodes.h"

/* Before a DROP of anything is carried out.  May raise. */
extern void drop_extension_before(DropStmt *drop);

#endif							/* UNCACHE_DROP_GUARD_H */
