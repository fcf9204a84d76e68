/*
 * rotation.h
 *	  The outbox tables take turns, and are emptied in place.
 */
#ifndef UNCACHE_ROTATION_H
#define UNCACHE_ROTATION_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "shmem.h"

extern void rotation_init(DatabaseSlot *slot);

/* Do what is due; returns when to come again, DT_NOEND while all is empty. */
extern TimestampTz rotation_turn(TimestampTz now);

#endif							/* UNCACHE_ROTATION_H */
