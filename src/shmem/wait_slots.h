/*
 * wait_slots.h
 *	  Which session waits for which transaction, and answering by transaction.
 */
#ifndef UNCACHE_WAIT_SLOTS_H
#define UNCACHE_WAIT_SLOTS_H

#include "base/compat.h"

#include "port/atomics.h"

typedef enum WaitState
{
	WAIT_NONE,					/* the session does not wait, or the worker has let it go */
	WAIT_PENDING,				/* the session waits, or will */
	WAIT_ANSWERED,				/* worker: delivered */
	WAIT_GIVEN_UP,				/* worker: it exits or has lost Redis */
} WaitState;

/*
 * One for each PGPROC.  State, rows left and a generation are one word, so that a
 * change of it is a change for the wait that was looked at, or none:
 *
 *		| generation: 30 bits | rows not delivered yet: 32 | WaitState: 2 |
 *
 * The owner writes dboid and xid before it writes a word with a new generation, in
 * PRE_COMMIT, so before any other process can see its commit.  The worker reads the
 * word first, then dboid and xid, and changes the word by compare-and-exchange: so
 * a wait slot that was reused by a later commit is never answered for an earlier one.
 */
typedef struct WaitSlot
{
	pg_atomic_uint64 word;
	pg_atomic_uint32 dboid;
	/* 1 from before the commit is visible until the worker was told of it; owner writes */
	pg_atomic_uint32 handing_over;
	pg_atomic_uint64 xid;		/* top-level full transaction id */
} WaitSlot;

/* ----- The session's side; nothing here can fail ----- */

/*
 * From now on the wait slot stands for this transaction, which has written so many
 * outbox rows; with "wait" the worker can answer it from now on.
 */
extern void wait_slots_announce(WaitSlot *mine, uint64 xid, uint32 rows, bool wait);

/* The state now; the worker may change it from WAIT_PENDING at any moment. */
extern WaitState wait_slots_state(WaitSlot *mine);

/* Wait no more; returns the state in which the wait was. */
extern WaitState wait_slots_leave(WaitSlot *mine);

/* ----- The worker's side ----- */

/* A row of this transaction is delivered; "waiter" is the session's ProcNumber, or -1. */
extern void wait_slots_row_delivered(uint64 xid, int waiter);

/* Answer what wait_slots_row_delivered() has gathered for unknown waiters. */
extern void wait_slots_flush(void);

/* Redis won't be reached for now: wake all sessions that wait in this database. */
extern void wait_slots_give_up(Oid dboid);

/*
 * The transaction won't be delivered for now, since a node is away or late.  Its session
 * goes on, with a WARNING if "in_vain".  "unknown": where "waiter" is -1, look for the
 * session in all wait slots.
 */
extern void wait_slots_let_go(uint64 xid, int waiter, bool unknown, bool in_vain);

/* One transaction is refused for a reason of its own. */
extern void wait_slots_refused(uint64 xid);

/* How many sessions wait in a database. */
extern int	wait_slots_count(Oid dboid);

#endif							/* UNCACHE_WAIT_SLOTS_H */
