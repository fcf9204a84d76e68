/*
 * delivery_map.h
 *	  What the worker knows of each outbox row: sent, or delivered.
 *
 * The states are found by table and tid, in dynamic shared memory that belongs to the
 * worker: eight bytes for an outbox page whose rows are all in one state, 168 for another.
 * When the worker ends the memory is gone, and its successor sends again what the outbox
 * still holds.  That is harmless, and bounded since delivered tables are truncated.
 */
#ifndef UNCACHE_DELIVERY_MAP_H
#define UNCACHE_DELIVERY_MAP_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

#include "shmem/shmem.h"

typedef enum RowState
{
	ROW_UNSENT = 0,
	ROW_SENT = 1,				/* the worker holds it, or it waits for a node */
	ROW_DELIVERED = 2,
	ROW_RESEND_FORGOTTEN = 3,	/* was delivered; a node may have forgotten it */
	ROW_RESEND_MISSED = 4,		/* was sent; some of its nodes have not got it */
	ROW_SENT_AGAIN = 5,			/* as ROW_SENT; its waiter was told that it is delivered */
} RowState;
#define ROW_STATES		6

/* Whether a scan takes the row; and whether it goes only to nodes that have missed something. */
static inline bool
delivery_map_is_due(RowState state)
{
	return state != ROW_SENT && state != ROW_SENT_AGAIN && state != ROW_DELIVERED;
}

static inline bool
delivery_map_was_sent(RowState state)
{
	return state == ROW_RESEND_FORGOTTEN || state == ROW_RESEND_MISSED;
}

/* The state while it is under way; "answered": its waiter was told that it is delivered. */
static inline RowState
delivery_map_when_sent(bool answered)
{
	return answered ? ROW_SENT_AGAIN : ROW_SENT;
}

/* For the worker of the slot, once. */
extern void delivery_map_create(DatabaseState *database);

/* What is known of a row of a table that takes its turn. */
extern RowState delivery_map_get(int table, const ItemPointerData *tid);
extern void delivery_map_set(int table, const ItemPointerData *tid, RowState state);

/*
 * A row of such a table is under way from delivery_map_take(), which sets its state, to
 * delivery_map_leave(), which does not.  "answered": as delivery_map_when_sent().
 */
extern void delivery_map_take(int table, const ItemPointerData *tid, bool answered);
extern void delivery_map_leave(int table);

/* Rows that are under way, and rows that were ever taken. */
extern int	delivery_map_under_way(int table);
extern uint64 delivery_map_taken(int table);

/* When a row was delivered last; 0: never. */
extern void delivery_map_note_delivery(int table, TimestampTz now);
extern TimestampTz delivery_map_last_delivery(int table);

/* Forget a table that is empty now. */
extern void delivery_map_forget_table(int table);

/* Delivered rows are to be sent again. */
extern void delivery_map_repeat_all(void);

/* Sent rows are to be resumed; the caller sees to those that are really under way. */
extern void delivery_map_resume_sent(void);

/*
 * For the views.  NULL: nothing is known to be delivered.  The view may lag behind
 * the worker by an instant, and does not have rows for which shared memory was short.
 */
typedef struct DeliveryMapView DeliveryMapView;
extern DeliveryMapView *delivery_map_view_open(DatabaseState *database);
extern bool delivery_map_view_has(DeliveryMapView *view, int table, ItemPointer tid);
extern void delivery_map_view_close(DeliveryMapView *view);

#endif							/* UNCACHE_DELIVERY_MAP_H */
