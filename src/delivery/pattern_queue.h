/*
 * pattern_queue.h
 *	  The patterns that wait to be delivered: when a pass over the keys begins, and for which.
 */
#ifndef UNCACHE_PATTERNSCAN_H
#define UNCACHE_PATTERNSCAN_H

#include "postgres.h"

#include "delivery/delivery.h"
#include "base/invalidation.h"
#include "shmem/shmem.h"

extern void pattern_queue_init(void);

/* Take a pattern, a part of the delivery.  delivery_part_done() ends it. */
extern void pattern_queue_add(Delivery *delivery, const Invalidation *item);

/* Begin a pass if one is due, or say when: DT_NOEND for "nothing to do". */
extern TimestampTz pattern_queue_turn(void);

/* All links are gone: every pattern is lost, and will come again. */
extern void pattern_queue_forget(void);

#endif							/* UNCACHE_PATTERNSCAN_H */
