/*
 * invalidate_functions.h
 *	  Invalidations as SQL functions show them.
 */
#ifndef UNCACHE_FUNCTIONS_H
#define UNCACHE_FUNCTIONS_H

#include "postgres.h"

#include "base/invalidation.h"

/* A key as text; a key pattern as the glob that it stands for. */
extern text *invalidate_functions_readable_key(const Invalidation *item);

#endif							/* UNCACHE_FUNCTIONS_H */
