/*
 * ring.h
 *	  Hands committed invalidations from the backends to one worker at once.
 *
 * A ring belongs to a DatabaseState and is covered by its lock; many backends put,
 * the worker alone takes.  Positions only grow; the byte that a position stands for is
 * its remainder by size.  An entry is never split: one that would cross
 * the end starts at the beginning, behind a filler.
 *
 *		 taken                      put
 *		   |                         |
 *		[..|head|items|head|items|...|........free.........|]
 *
 * The ring is a hint.  An entry that does not fit is left out, and the committer marks
 * its outbox blocks dirty instead.
 */
#ifndef UNCACHE_RING_H
#define UNCACHE_RING_H

#include "postgres.h"
#include "access/transam.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

#include "base/compat.h"

typedef struct Ring
{
	uint64		put;			/* bytes ever put */
	uint64		taken;			/* bytes ever taken */
	uint32		size;			/* bytes; a multiple of MAXIMUM_ALIGNOF */
	bool		awaited;		/* a session waits for an entry that came since it was empty */
	char	   *data;
} Ring;

typedef enum RingKind
{
	RING_COMMITTED,				/* a transaction that is one outbox row */
	RING_DOUBT,					/* keys of a transaction that is about to commit (strict) */
	RING_RELEASE,				/* the same keys, when it was rolled back */
	RING_DISCARDED,				/* was committed; its row is in the outbox no more */
} RingKind;

/* What the ring carries.  Of a doubt, tid, table and committed_at mean nothing. */
typedef struct RingEntry
{
	uint32		size;			/* of head and items, before alignment */
	uint32		nkeys;
	uint64		xid;			/* top-level full transaction id */
	TimestampTz committed_at;
	int32		waiter;			/* ProcNumber of the session that waits, or -1 */
	uint8		kind;			/* RingKind */
	uint8		table;			/* index of the outbox table */
	ItemPointerData tid;		/* of the row in it */
	RelFileNumber file;			/* the table's, when the row was written */
	/* packed items follow */
} RingEntry;

#define ring_items(entry)		((char *) (entry) + MAXALIGN(sizeof(RingEntry)))
#define ring_items_len(entry)	((entry)->size - MAXALIGN(sizeof(RingEntry)))

extern void ring_init(Ring *ring, char *data, uint32 size);

/* Put a copy; false where there is no room.  Never fails otherwise. */
extern bool ring_put(Ring *ring, const RingEntry *head, const char *items, size_t len);

/*
 * Look at the oldest entry without taking it, NULL when there is none; then
 * take it.  Copy what is needed before ring_take().
 */
extern RingEntry *ring_peek(Ring *ring);
extern void ring_take(Ring *ring);
extern bool ring_is_empty(const Ring *ring);

/* Whether it holds a committed row of this outbox table. */
extern bool ring_has_table(const Ring *ring, int table);

/* Turn what it holds of this committed transaction into RING_DISCARDED. */
extern void ring_discard(Ring *ring, uint64 xid);
extern uint32 ring_used(const Ring *ring);

#endif							/* UNCACHE_RING_H */
