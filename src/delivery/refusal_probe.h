/*
 * refusal_probe.h
 *	  Asking Redis once a second whether it still refuses what it has refused.
 */
#ifndef UNCACHE_REFUSALASK_H
#define UNCACHE_REFUSALASK_H

#include "postgres.h"
#include "datatype/timestamp.h"

/* Take the keys that are due, and see what came of others.  Returns when to come again. */
extern TimestampTz refusal_probe_turn(TimestampTz now);

#endif							/* UNCACHE_REFUSALASK_H */
