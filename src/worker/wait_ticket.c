/*
 * wait_ticket.c
 *	  How a session asks the worker of its database for something, and waits for it.
 *
 * A request is a ticket: the session draws a number in the DatabaseState of its database,
 * wakes the worker, and sleeps until the worker has counted up to that number.  A worker
 * that ends loses nothing: the next one finds the numbers.  When the DatabaseState is given
 * to another database meanwhile, because the extension is gone, its tickets are void.  What
 * a request says is written with the draw, in one section under the lock of the DatabaseState
 * after a look at whose it is, so that no session writes into that of another database.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "worker/worker_int.h"

bool
wait_ticket_draw(WaitTicket *ticket, DatabaseState *database, pg_atomic_uint64 *drawn,
				 pg_atomic_uint64 *done, WaitTicketWriter write, const void *request)
{
	bool		is_ours;

	Assert(!LWLockHeldByMe(database->lock) && (write != NULL || request == NULL));
	ticket->database = database;
	ticket->done = done;
	LWLockAcquire(database->lock, write != NULL ? LW_EXCLUSIVE : LW_SHARED);
	is_ours = pg_atomic_read_u32(&database->dboid) == MyDatabaseId;
	ticket->assignment = pg_atomic_read_u32(&database->assignment);
	if (is_ours && write != NULL)
		write(database, request);
	if (is_ours)
		ticket->number = pg_atomic_add_fetch_u64(drawn, 1);
	LWLockRelease(database->lock);
	if (is_ours)
		shmem_wake_worker(database);
	return is_ours;
}

static bool
ticket_is_void(const WaitTicket *ticket)
{
	return pg_atomic_read_u32(&ticket->database->assignment) != ticket->assignment;
}

bool
wait_ticket_await(const WaitTicket *ticket, TimestampTz deadline)
{
	DatabaseState *database = ticket->database;
	bool		reached;
	uint32		wait_event = WaitEventExtensionNew("UncacheWait");

	Assert(ticket->number > 0);
	ConditionVariablePrepareToSleep(&database->barrier_cv);
	while (!(reached = pg_atomic_read_u64(ticket->done) >= ticket->number))
	{
		long		left = TimestampDifferenceMilliseconds(clock_now(), deadline);

		if (left <= 0 || ticket_is_void(ticket))
			break;
		ConditionVariableTimedSleep(&database->barrier_cv, Min(left, 1000), wait_event);
	}
	ConditionVariableCancelSleep();
	/* In this order: the worker of another database may have counted. */
	pg_read_barrier();
	return reached && !ticket_is_void(ticket);
}

static void
stop_waiting(int code, Datum callers)
{
	pg_atomic_fetch_sub_u32((pg_atomic_uint32 *) DatumGetPointer(callers), 1);
}

bool
wait_ticket_ask(DatabaseState *database, pg_atomic_uint32 *callers, pg_atomic_uint64 *drawn,
				pg_atomic_uint64 *done, WaitTicketWriter write, const void *request,
				TimestampTz deadline)
{
	WaitTicket	ticket;
	volatile bool answered = false;

	pg_atomic_fetch_add_u32(callers, 1);
	PG_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(callers));
	{
		answered = wait_ticket_draw(&ticket, database, drawn, done, write, request) &&
			wait_ticket_await(&ticket, deadline);
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(callers));
	stop_waiting(0, PointerGetDatum(callers));
	return answered;
}

DatabaseState *
wait_ticket_database(TimestampTz deadline)
{
	DatabaseState *database;

	while ((database = shmem_my_database()) == NULL)
	{
		shmem_request_launch(MyDatabaseId, false);
		CHECK_FOR_INTERRUPTS();
		if (clock_now() >= deadline)
			return NULL;
		pg_usleep(10 * 1000);
	}
	return database;
}
