/*
 * deliver.h
 *	  Sends the keys of outbox rows to Redis and learns what became of them.
 *
 * Everything in here belongs to a worker.
 */
#ifndef UNCACHE_DELIVER_H
#define UNCACHE_DELIVER_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

#include "item.h"
#include "shmem.h"

/* Small transactions overtake what is large or late. */
typedef enum DeliveryClass
{
	CLASS_SMALL,				/* from the ring: somebody may wait */
	CLASS_BULK,					/* from a scan */
} DeliveryClass;
#define DELIVERY_CLASSES	2

/* An outbox row to deliver.  The items are copied. */
typedef struct DeliveryRow
{
	uint64		xid;
	int32		chunk;
	int			table;			/* OUTBOX_SIDE and OUTBOX_NOWHERE too */
	ItemPointerData tid;
	int32		attempts;		/* how often Redis has refused it so far */
	TimestampTz at;				/* since when it is to be delivered */
	int			waiter;			/* ProcNumber, or -1 */
	bool		again;			/* may have been delivered before */
	bool		only_lacking;	/* was sent before: to nodes that lack something */
	bool		answered;		/* it has, and its waiter was told of it */
	const char *items;
	uint32		len;
} DeliveryRow;

/* A row on its way. */
typedef struct Delivery Delivery;

/* What became of a part (one item) of a delivery. */
typedef enum PartOutcome
{
	PART_DELIVERED,
	PART_REFUSED,				/* Redis said no, and will again */
	PART_LOST,					/* no answer; to be sent again when its node is back */
	PART_AWAY,					/* likewise; it was known to be away, and not sent */
	PART_AGAIN,					/* to be sent again soon */
	PART_UNCONFIRMED,			/* carried out, but too few replicas have it */
} PartOutcome;

extern void deliver_init(DatabaseSlot *slot);

/* Whether more should be taken now. */
extern bool deliver_has_room(DeliveryClass class);

extern void deliver_take(DeliveryClass class, const DeliveryRow *row);
extern uint64 deliver_xid(const Delivery *delivery);

/* Whether somebody waits for it, or may: who waits for what a scan finds is unknown. */
extern bool deliver_is_awaited(const Delivery *delivery);

/* Send what may be sent now; whether something is left that may not. */
extern void deliver_send(void);
extern bool deliver_has_unsent(void);

/*
 * A row with a part that was lost is not to be sent again at once: while its node is
 * away a scan would find it over and over.  It stays ROW_SENT, "waiting", although
 * no delivery has it.  Whether there may be such rows; and having them resumed, by
 * a scan that is to be begun then.
 */
extern bool deliver_has_waiting(void);
extern void deliver_release_waiting(void);

extern void deliver_release_soon(void);

/* When that is due without a node's coming back; DT_NOEND: only then. */
extern TimestampTz deliver_release_at(void);

/*
 * A server that may have forgotten what it was sent takes part again: what is under
 * way counts as to be repeated when it is delivered.
 */
extern void deliver_repeat_under_way(void);

/*
 * All links are gone and have answered everything with NULL: forget what was not
 * sent yet, too.
 */
extern void deliver_forget_unsent(void);

/*
 * Every delivery has a number, ascending; the oldest one unfinished, or the next
 * number when there is none.
 */
extern uint64 deliver_next_number(void);
extern uint64 deliver_oldest_number(void);
extern int	deliver_count_of_table(int table);	/* unfinished ones */
extern uint64 deliver_taken_of_table(int table);	/* ever taken */
extern TimestampTz deliver_last_of_table(int table);	/* last delivered; 0: never */

/* For command.c and patternscan.c: a part that they were given is finished. */
extern void deliver_part_done(Delivery *delivery, PartOutcome outcome,
							  const PackedItem *item);

/* For command.c: a part is at a node that nobody waits for; or not any more. */
extern void deliver_part_late(Delivery *delivery);
extern void deliver_part_not_late(Delivery *delivery);

#endif							/* UNCACHE_DELIVER_H */
