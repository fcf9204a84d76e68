/*
 * waiters.c
 *	  The worker's side of COMMIT's wait.
 *
 * A waiter stands in its WaitSlot with the transaction it waits for.  The worker
 * counts down that transaction's undelivered rows and answers at zero.  Where an
 * entry of the ring named the waiter it is found at once; rows that came out of a
 * scan are gathered, and the wait slots are walked once for all of them.
 *
 * A slot changes from WAIT_PENDING by compare-and-exchange, after a look at the
 * transaction; its owner can't begin another wait before it has seen an end to
 * this one or has ended it itself, and then the xid differs.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "faultpoint.h"
#include "shmem.h"
#include "waiters.h"

#define GATHER_MAX	256

static uint64 gathered[GATHER_MAX];
static int	ngathered = 0;

/* The database of a worker is MyDatabaseId. */
static bool
is_waiting_for(WaitSlot *wait, uint64 xid)
{
	return pg_atomic_read_u32(&wait->state) == WAIT_PENDING &&
		pg_atomic_read_u32(&wait->dboid) == MyDatabaseId &&
		pg_atomic_read_u64(&wait->xid) == xid;
}

static void
end_wait(int proc, WaitState end)
{
	uint32		pending = WAIT_PENDING;

	if (pg_atomic_compare_exchange_u32(&Shared_state->wait_slots[proc].state,
									   &pending, end))
		SetLatch(&GetPGProcByNumber(proc)->procLatch);
}

static void
row_delivered_to(int proc, uint64 xid)
{
	WaitSlot   *wait = &Shared_state->wait_slots[proc];

	if (!is_waiting_for(wait, xid))
		return;
	FAULT_POINT("waiter-found");
	if (pg_atomic_sub_fetch_u32(&wait->rows_left, 1) == 0)
		end_wait(proc, WAIT_ANSWERED);
}

void
waiters_row_delivered(uint64 xid, int waiter)
{
	if (waiter >= 0)
	{
		row_delivered_to(waiter, xid);
		return;
	}
	if (ngathered == GATHER_MAX)
		waiters_flush();
	gathered[ngathered++] = xid;
}

void
waiters_flush(void)
{
	if (ngathered == 0)
		return;
	for (int proc = 0; proc < Shared_state->nwaitslots; proc++)
	{
		if (pg_atomic_read_u32(&Shared_state->wait_slots[proc].state) != WAIT_PENDING)
			continue;
		for (int i = 0; i < ngathered; i++)
			row_delivered_to(proc, gathered[i]);
	}
	ngathered = 0;
}

void
waiters_give_up(Oid dboid)
{
	for (int proc = 0; proc < Shared_state->nwaitslots; proc++)
	{
		if (pg_atomic_read_u32(&Shared_state->wait_slots[proc].dboid) == dboid)
			end_wait(proc, WAIT_GIVEN_UP);
	}
}

void
waiters_refused(uint64 xid)
{
	for (int proc = 0; proc < Shared_state->nwaitslots; proc++)
	{
		if (is_waiting_for(&Shared_state->wait_slots[proc], xid))
			end_wait(proc, WAIT_GIVEN_UP);
	}
}

int
waiters_count(Oid dboid)
{
	int			count = 0;

	for (int proc = 0; proc < Shared_state->nwaitslots; proc++)
	{
		WaitSlot   *wait = &Shared_state->wait_slots[proc];

		if (pg_atomic_read_u32(&wait->state) == WAIT_PENDING &&
			pg_atomic_read_u32(&wait->dboid) == dboid)
			count++;
	}
	return count;
}
