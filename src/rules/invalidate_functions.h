/*
 * invalidate_functions.h
 *	  Invalidations as SQL functions show them.
 */
#ifndef UNCACHE_FUNCTIONS_H
#define UNCACHE_FUNCTIONS_H

#include "postgres.h"

#include "base/invalidation.h"

/* Table and name of a trigger into values[0] and [1]; false where it is gone. */
extern bool functions_describe_rule(Oid rule, Datum *values);

/* A key as text; a key pattern as the glob that it stands for. */
extern text *functions_readable_key(const Invalidation *item);

#endif							/* UNCACHE_FUNCTIONS_H */
