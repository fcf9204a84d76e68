/*
 * fence_beat.h
 *	  Transactions by which old snapshots prove that they are young enough.
 */
#ifndef UNCACHE_FENCE_BEAT_H
#define UNCACHE_FENCE_BEAT_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "topology/node.h"

/* Begin one, or end one, if it is time; returns when to come again. */
extern TimestampTz fence_beat_run(TimestampTz now);

/* A beat's transaction is open: no other may be begun. */
extern bool fence_beat_holds_transaction(void);

#endif							/* UNCACHE_FENCE_BEAT_H */
