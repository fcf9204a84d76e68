/*
 * patternscan.h
 *	  Deletes the keys that patterns cover: SCAN and UNLINK, in steps.
 */
#ifndef UNCACHE_PATTERNSCAN_H
#define UNCACHE_PATTERNSCAN_H

#include "postgres.h"

#include "deliver.h"
#include "item.h"
#include "node.h"

extern void patternscan_init(DatabaseSlot *slot);

/* Take a pattern, a part of the delivery.  deliver_part_done() ends it. */
extern void patternscan_add(Delivery *delivery, const PackedItem *item);

/* Begin a pass if one is due, or say when: DT_NOEND for "nothing to do". */
extern TimestampTz patternscan_turn(void);

/* Nodes have got other keys than before. */
extern void patternscan_note_moves(void);

/* A node's link is gone: with the next one it takes part in the next pass. */
extern void patternscan_leave_out(RedisNode *node);

/* All links are gone: every pattern is lost, and will come again. */
extern void patternscan_forget(void);

#endif							/* UNCACHE_PATTERNSCAN_H */
