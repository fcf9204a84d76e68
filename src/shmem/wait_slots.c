/*
 * wait_slots.c
 *	  Which session waits for which transaction.
 *
 * A session writes into its wait slot for which transaction it waits.  The worker
 * counts down that transaction's undelivered rows and answers at zero.  Where an
 * entry of the ring names the session, its wait slot is found at once; rows that came
 * out of a scan are gathered, and the wait slots are walked once for all of them.
 *
 * The owner may give up its wait and begin another one at any moment, also while
 * the worker looks: see WaitSlot for why no answer goes astray.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/fault_point.h"
#include "shmem/shmem.h"

/* Transactions for which the wait slots are walked at once. */
#define GATHER_MAX	256

static uint64 gathered[GATHER_MAX];
static int	ngathered = 0;

#define WORD(generation, rows, state) \
	((uint64) (generation) << 34 | (uint64) (rows) << 2 | (uint64) (state))
#define WORD_GENERATION(word)	((word) >> 34)
#define WORD_ROWS(word)			((uint32) ((word) >> 2))
#define WORD_STATE(word)		((WaitState) ((word) & 3))

/* ----- The session's side ----- */

void
wait_slots_announce(WaitSlot *mine, uint64 xid, uint32 rows, bool wait)
{
	uint64		generation = WORD_GENERATION(pg_atomic_read_u64(&mine->word)) + 1;

	Assert(mine == shmem_my_wait_slot() && (!wait || xid != 0));
	/* A transaction may announce a second time. */
	(void) wait_slots_leave(mine);
	pg_write_barrier();
	pg_atomic_write_u32(&mine->dboid, MyDatabaseId);
	pg_atomic_write_u64(&mine->xid, xid);
	pg_atomic_write_u32(&mine->handing_over, 1);
	pg_write_barrier();
	pg_atomic_write_u64(&mine->word,
						WORD(generation, rows, wait ? WAIT_PENDING : WAIT_NONE));
}

WaitState
wait_slots_state(WaitSlot *mine)
{
	return WORD_STATE(pg_atomic_read_u64(&mine->word));
}

WaitState
wait_slots_leave(WaitSlot *mine)
{
	uint64		word = pg_atomic_read_u64(&mine->word);

	while (!pg_atomic_compare_exchange_u64(&mine->word, &word,
										   WORD(WORD_GENERATION(word), 0, WAIT_NONE)))
		 /* try again */ ;
	return WORD_STATE(word);
}

/* ----- The worker's side ----- */

/* Does the session of a wait slot that shows this word wait in this database? */
static bool
waits_in(WaitSlot *wait, uint64 word, Oid dboid)
{
	pg_read_barrier();
	return WORD_STATE(word) == WAIT_PENDING &&
		pg_atomic_read_u32(&wait->dboid) == dboid;
}

/* Does it wait for this transaction?  The database of a worker is MyDatabaseId. */
static bool
waits_for(WaitSlot *wait, uint64 word, uint64 xid)
{
	return waits_in(wait, word, MyDatabaseId) && pg_atomic_read_u64(&wait->xid) == xid;
}

/* Returns false where the wait slot has changed; *word is what it shows now. */
static bool
change(WaitSlot *wait, uint64 *word, uint32 rows, WaitState state)
{
	return pg_atomic_compare_exchange_u64(&wait->word, word,
										  WORD(WORD_GENERATION(*word), rows, state));
}

static void
wake(int proc)
{
	SetLatch(&GetPGProcByNumber(proc)->procLatch);
}

static void
row_delivered_to(int proc, uint64 xid)
{
	WaitSlot   *wait = &UncacheShmem->wait_slots[proc];
	uint64		word = pg_atomic_read_u64(&wait->word);

	Assert(proc >= 0 && proc < UncacheShmem->nwaitslots);
	while (waits_for(wait, word, xid))
	{
		uint32		left = WORD_ROWS(word) - 1;

		Assert(WORD_ROWS(word) > 0);
		FAULT_POINT("waiter-found");
		if (!change(wait, &word, left, left > 0 ? WAIT_PENDING : WAIT_ANSWERED))
			continue;
		if (left == 0)
			wake(proc);
		return;
	}
}

void
wait_slots_row_delivered(uint64 xid, int waiter)
{
	Assert(waiter >= -1 && waiter < UncacheShmem->nwaitslots);
	if (waiter >= 0)
	{
		row_delivered_to(waiter, xid);
		return;
	}
	Assert(ngathered >= 0 && ngathered <= GATHER_MAX);
	if (ngathered == GATHER_MAX)
		wait_slots_flush();
	gathered[ngathered++] = xid;
}

void
wait_slots_flush(void)
{
	if (ngathered == 0)
		return;
	for (int proc = 0; proc < UncacheShmem->nwaitslots; proc++)
	{
		if (wait_slots_state(&UncacheShmem->wait_slots[proc]) != WAIT_PENDING)
			continue;
		for (int i = 0; i < ngathered; i++)
			row_delivered_to(proc, gathered[i]);
	}
	ngathered = 0;
}

/* End a wait without an answer: for this transaction, or for any (0). */
static void
end_wait(int proc, Oid dboid, uint64 xid, WaitState state)
{
	WaitSlot   *wait = &UncacheShmem->wait_slots[proc];
	uint64		word = pg_atomic_read_u64(&wait->word);

	Assert(state == WAIT_NONE || state == WAIT_GIVEN_UP);
	Assert(proc >= 0 && proc < UncacheShmem->nwaitslots);
	while (waits_in(wait, word, dboid) &&
		   (xid == 0 || pg_atomic_read_u64(&wait->xid) == xid))
	{
		if (change(wait, &word, 0, state))
		{
			wake(proc);
			return;
		}
	}
}

void
wait_slots_give_up(Oid dboid)
{
	for (int proc = 0; proc < UncacheShmem->nwaitslots; proc++)
		end_wait(proc, dboid, 0, WAIT_GIVEN_UP);
}

void
wait_slots_let_go(uint64 xid, int waiter, bool unknown, bool in_vain)
{
	WaitState	state = in_vain ? WAIT_GIVEN_UP : WAIT_NONE;

	if (waiter >= 0)
		end_wait(waiter, MyDatabaseId, xid, state);
	else if (unknown)
	{
		for (int proc = 0; proc < UncacheShmem->nwaitslots; proc++)
			end_wait(proc, MyDatabaseId, xid, state);
	}
}

void
wait_slots_refused(uint64 xid)
{
	for (int proc = 0; proc < UncacheShmem->nwaitslots; proc++)
		end_wait(proc, MyDatabaseId, xid, WAIT_GIVEN_UP);
}

int
wait_slots_count(Oid dboid)
{
	int			count = 0;

	for (int proc = 0; proc < UncacheShmem->nwaitslots; proc++)
	{
		WaitSlot   *wait = &UncacheShmem->wait_slots[proc];

		if (waits_in(wait, pg_atomic_read_u64(&wait->word), dboid))
			count++;
	}
	return count;
}
