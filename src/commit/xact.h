/*
 * xact.h
 *	  What happens to the pending set when its transaction ends.
 */
#ifndef UNCACHE_XACT_H
#define UNCACHE_XACT_H

#include "postgres.h"

/* Register the callbacks; once, in _PG_init. */
extern void xact_init(void);

#endif							/* UNCACHE_XACT_H */
