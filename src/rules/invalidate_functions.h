/*
 * invalidate_functions.h
 *	  Invalidations as SQL functions show them.
 */
#ifndef UNCACHE_FUNCTIONS_H
#define UNCACHE_FUNCTIONS_H

#include "postgres.h"

#include "base/invalidation.h"

/* The text of a key or glob; for a key pattern, the glob that it stands for. */
extern text *invalidate_functions_readable_key(const Invalidation *item);

#endif							/* UNCACHE_FUNCTIONS_H */
