/*
 * outbox_side_int.h
 *	  What the files of the side table share; no other folder includes it.
 *
 * They call each other in this order, each those before it:
 *
 *		outbox_side_rows.c		which rows the worker knows, and when each is due
 *		outbox_side_write.c		stores what was refused, deletes what is delivered
 *		outbox_side.c			reads, and does what is due
 *		outbox_side_discard.c	uncache.discard_backlog()
 */
#ifndef UNCACHE_OUTBOX_SIDE_INT_H
#define UNCACHE_OUTBOX_SIDE_INT_H

#include "postgres.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

#include "outbox/outbox_side.h"

/* Before a row is tried again that was refused, or whose node is away; doubles with refusals. */
#define RETRY_FIRST_MS		1000

typedef enum SideState
{
	SIDE_SENT,					/* the sink has it */
	SIDE_DELIVERED,				/* to be deleted */
	SIDE_WAITS,					/* was refused; retry_at says when */
	SIDE_LOST,					/* a node is away; the same, or when the table is read next */
} SideState;

/* A row of the side table that the worker knows. */
typedef struct SideRow
{
	ItemPointerData tid;		/* hash key */
	SideState	state;
	bool		found;			/* by the reading of the table that is going on */
	TimestampTz retry_at;		/* SIDE_WAITS, SIDE_LOST: in "waiting" by this */
	pairingheap_node heap_node;
	dlist_node	delivered_node; /* SIDE_DELIVERED: in "delivered" */
	uint32		keys;			/* refused ones in it; 0 of a prepared transaction */
} SideRow;

/*
 * outbox_side_rows.c
 */

extern void outbox_side_rows_init(void);

/* Find a row, or enter it; a new row counts as sent, by the caller. */
extern SideRow *outbox_side_rows_enter(const ItemPointerData *tid, bool *found);

/* NULL where the row is not known. */
extern SideRow *outbox_side_rows_find(const ItemPointerData *tid);

/* How many keys of it were refused. */
extern void outbox_side_rows_set_keys(SideRow *row, uint32 keys);

extern void outbox_side_rows_set_sent(SideRow *row);
extern void outbox_side_rows_set_waiting(SideRow *row, SideState state, TimestampTz retry_at);
extern void outbox_side_rows_set_delivered(SideRow *row);
extern void outbox_side_rows_forget(SideRow *row);

/* Forget rows that the last reading has not found, since another session has deleted them. */
extern void outbox_side_rows_forget_unfound(void);
extern void outbox_side_rows_forget_all(void);

/* The row that is due next; NULL: none waits. */
extern SideRow *outbox_side_rows_next(void);

/* How many are to be deleted, and the first of them (NULL: none); how many there are beside. */
extern int	outbox_side_rows_delivered(void);
extern SideRow *outbox_side_rows_first_delivered(void);
extern int	outbox_side_rows_undelivered(void);

/* Call a function for each row that is to be deleted; it must not change any. */
extern void outbox_side_rows_each_delivered(void (*function) (const SideRow *row, void *arg),
											void *arg);

/*
 * outbox_side_write.c
 */

extern void outbox_side_write_init(void);

/*
 * A prepared transaction keeps its lock on this table until it is finished.  VACUUM FULL waits
 * for that lock, and the worker would wait behind it; so it tries again at
 * outbox_side_write_locked_until() instead.  NULL where the table is gone, or locked.
 */
extern Relation outbox_side_write_open(LOCKMODE mode, TimestampTz now);
extern TimestampTz outbox_side_write_locked_until(void);

/* In a transaction of its own: store what was refused, and delete what is delivered. */
extern void outbox_side_write_run(TimestampTz now);

/* Forget refused items of a transaction (xid; 0: of all) that are not stored yet. */
extern void outbox_side_write_discard(uint64 xid);

#endif							/* UNCACHE_OUTBOX_SIDE_INT_H */
