/*
 * wait_slots.h
 *	  Who waits for which transaction, and answering by transaction.
 */
#ifndef UNCACHE_WAITERS_H
#define UNCACHE_WAITERS_H

#include "base/compat.h"

#include "shmem/shmem.h"

/* ----- The session's side; nothing here can fail ----- */

/*
 * From now on the slot stands for this transaction, which has written so many
 * outbox rows; it can be answered from now on if it will wait.
 */
extern void wait_slots_announce(WaitSlot *mine, uint64 xid, uint32 rows, bool wait);

/* The state now; the worker may change it from WAIT_PENDING at any moment. */
extern WaitState wait_slots_state(WaitSlot *mine);

/* Wait no more; returns the state in which the wait was. */
extern WaitState wait_slots_leave(WaitSlot *mine);

/* ----- The worker's side ----- */

/* A row of this transaction is delivered; its waiter is known, or -1. */
extern void wait_slots_row_delivered(uint64 xid, int waiter);

/* Answer what wait_slots_row_delivered() has gathered for unknown waiters. */
extern void wait_slots_flush(void);

/* Redis won't be reached for now: wake all who wait in this database. */
extern void wait_slots_give_up(Oid dboid);

/*
 * It won't be delivered for now, since a node is away or late.  Its waiter goes on,
 * with a WARNING if it has waited in vain.  "unknown": somebody may wait though
 * "waiter" is -1.
 */
extern void wait_slots_let_go(uint64 xid, int waiter, bool unknown, bool in_vain);

/* One transaction is refused for a reason of its own. */
extern void wait_slots_refused(uint64 xid);

/* How many sessions wait in a database. */
extern int	wait_slots_count(Oid dboid);

#endif							/* UNCACHE_WAITERS_H */
