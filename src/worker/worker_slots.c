/*
 * worker_slots.c
 *	  The worker slots, as the launcher sees them.
 *
 * There are uncache.max_database_workers worker slots.  A WorkerSlot is the launcher's own
 * knowledge of the DatabaseState in shared memory with the same number.  The launcher gives
 * a DatabaseState to a database.  The launcher frees it when the database is gone, and a
 * worker frees it that finds its database without the extension; the WorkerSlot becomes
 * free only when the worker is gone too.
 *
 * A worker that ends is started again: at once when it was asked to end, otherwise
 * after a pause that grows as long as the worker keeps failing.
 *
 * When the launcher ends, the workers stay and go on delivering.  The next launcher has no
 * handles for them; it knows them by their process ids in shared memory, and a worker
 * wakes the launcher when it ends.  After a crash of the server everything is new.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "shmem/shmem.h"
#include "worker/worker_int.h"
#include "worker/worker_slots.h"

/* A worker that lived this long has not failed to start. */
#define LIVED_MS		30000

/*
 * Long enough that a worker which fails at every start does not fill the log, and
 * short enough that one whose trouble is over is back soon.
 */
#define FIRST_PAUSE_MS		1000
#define LONGEST_PAUSE_MS	10000

typedef struct WorkerSlot
{
	Oid			dboid;			/* InvalidOid: free, the other fields mean nothing */
	bool		running;		/* a worker was started and is not known to be gone */
	BackgroundWorkerHandle *handle; /* NULL: not running, or started by another launcher */
	TimestampTz started_at;
	bool		asked;			/* the database has asked since its worker was started */
	bool		written;		/* the same, by a commit with invalidations */
	bool		to_yield;		/* its worker was asked to give up the slot */
	Backoff		backoff;		/* before its worker is started again */
} WorkerSlot;

static WorkerSlot *slots;

/* The WARNING was written, and no worker could be started since. */
static bool warned_of_processes = false;

void
worker_slots_back_off(Backoff *backoff)
{
	backoff_fail(backoff, clock_now(), FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
}

static bool
worker_has_ended(const WorkerSlot *slot, DatabaseState *database)
{
	pid_t		pid;

	if (slot->handle == NULL)
		return shmem_worker_pid(database) == 0;
	return GetBackgroundWorkerPid(slot->handle, &pid) == BGWH_STOPPED;
}

/* --------------- start and end of the launcher --------------- */

/*
 * A worker that has not written its process id into shared memory yet would be unknown to
 * the next launcher, which would start a second one.
 */
static void
end_unknown_workers(int code, Datum arg)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (slots[i].running && slots[i].handle != NULL &&
			shmem_worker_pid(shmem_database(i)) == 0)
			TerminateBackgroundWorker(slots[i].handle);
	}
}

void
worker_slots_init(void)
{
	slots = palloc0(UncacheShmem->ndatabases * sizeof(WorkerSlot));
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		WorkerSlot *slot = &slots[i];

		slot->dboid = pg_atomic_read_u32(&shmem_database(i)->dboid);
		slot->running = OidIsValid(slot->dboid) && shmem_worker_pid(shmem_database(i)) != 0;
		slot->started_at = clock_now();
	}
	before_shmem_exit(end_unknown_workers, 0);
}

/* --------------- giving and freeing --------------- */

static WorkerSlot *
find_slot(Oid dboid)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (slots[i].dboid == dboid)
			return &slots[i];
	}
	return NULL;
}

bool
worker_slots_have(Oid dboid)
{
	return find_slot(dboid) != NULL;
}

bool
worker_slots_note_request(Oid dboid, bool written)
{
	WorkerSlot *slot = find_slot(dboid);

	if (slot == NULL)
		return false;
	slot->asked = true;
	slot->written |= written;
	return true;
}

/* False when the state is not free, or a session still holds it (database_hold.c). */
static bool
take_state(DatabaseState *database, Oid dboid)
{
	bool		free;

	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	free = database->holds == 0 && !OidIsValid(pg_atomic_read_u32(&database->dboid));
	if (free)
		shmem_assign_database(database, dboid);
	LWLockRelease(UncacheShmem->lock);
	return free;
}

bool
worker_slots_give(Oid dboid)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		WorkerSlot *slot = &slots[i];

		if (OidIsValid(slot->dboid) || !take_state(shmem_database(i), dboid))
			continue;
		memset(slot, 0, sizeof(WorkerSlot));
		slot->dboid = dboid;
		return true;
	}
	return false;
}

static void
worker_ended(WorkerSlot *slot)
{
	slot->running = false;
	if (slot->handle != NULL)
		pfree(slot->handle);
	slot->handle = NULL;

	if (TimestampDifferenceExceeds(slot->started_at, clock_now(), LIVED_MS))
		backoff_reset(&slot->backoff);
	worker_slots_back_off(&slot->backoff);
}

static bool
is_due(const WorkerSlot *slot)
{
	return OidIsValid(slot->dboid) && !slot->running && backoff_left(&slot->backoff) == 0;
}

/* Free the state, if the database still has it; no worker is running. */
static void
free_state(DatabaseState *database, Oid dboid)
{
	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&database->dboid) == dboid)
		shmem_assign_database(database, InvalidOid);
	LWLockRelease(UncacheShmem->lock);
}

static void
tell_of_yield(Oid dboid)
{
	const Database *database = database_find(dboid);

	if (database != NULL)
		ereport(LOG,
				(errmsg("database \"%s\", which was idle, has given its pg_uncache worker to one "
						"that is written",
						NameStr(database->name)),
				 errhint("Increase uncache.max_database_workers and restart the server, so that "
						 "each has its own.")));
}

void
worker_slots_look_after(void (*ask) (Oid dboid, bool written, bool told))
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		WorkerSlot *slot = &slots[i];
		DatabaseState *database = shmem_database(i);
		Oid			dboid = slot->dboid;

		if (!OidIsValid(dboid))
			continue;
		/* A worker that refuses clears the request only; one that yields clears dboid first. */
		if (slot->to_yield && pg_atomic_read_u32(&database->yield_requested) == 0 &&
			pg_atomic_read_u32(&database->dboid) == dboid)
			slot->to_yield = false;
		if (slot->running && worker_has_ended(slot, database))
			worker_ended(slot);
		if (slot->running)
			continue;

		/* A session that asks a worker to end wants the next one at once. */
		if (pg_atomic_read_u32(&database->restart_requested) != 0)
			backoff_reset(&slot->backoff);
		if (is_due(slot) && database_find(dboid) == NULL)
			free_state(database, dboid);
		if (pg_atomic_read_u32(&database->dboid) != dboid)
		{
			slot->dboid = InvalidOid;
			if (slot->to_yield)
				tell_of_yield(dboid);
			if (slot->asked || slot->to_yield)
				ask(dboid, slot->written, slot->to_yield);
		}
	}
}

/* --------------- making room --------------- */

/* Since when a worker is idle; 0: it is not, or the launcher may not ask it to yield. */
static TimestampTz
idle_since(int i)
{
	DatabaseState *database = shmem_database(i);

	if (!OidIsValid(slots[i].dboid) || !slots[i].running ||
		pg_atomic_read_u32(&database->dboid) != slots[i].dboid)
		return 0;
	return (TimestampTz) pg_atomic_read_u64(&database->idle_since);
}

void
worker_slots_ask_to_yield(void)
{
	TimestampTz now = clock_now();
	TimestampTz longest = 0;
	int			idlest = -1;

	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		TimestampTz since = idle_since(i);

		/* One slot that is about to become free is enough. */
		if (OidIsValid(slots[i].dboid) &&
			pg_atomic_read_u32(&shmem_database(i)->dboid) != slots[i].dboid)
			return;
		if (since == 0 || !TimestampDifferenceExceeds(since, now, YIELD_IDLE_MS) ||
			(idlest >= 0 && since >= longest))
			continue;
		longest = since;
		idlest = i;
	}
	if (idlest < 0)
		return;
	slots[idlest].to_yield = true;
	pg_atomic_write_u32(&shmem_database(idlest)->yield_requested, 1);
	shmem_wake_worker(shmem_database(idlest));
}

/* --------------- remembering --------------- */

static int
compare_idle_times(const void *a, const void *b)
{
	TimestampTz left = idle_since(*(const int *) a);
	TimestampTz right = idle_since(*(const int *) b);

	/* 0 says busy, which comes first. */
	if (left == 0 || right == 0)
		return (left != 0) - (right != 0);
	return left > right ? -1 : left < right;
}

List *
worker_slots_add_databases(List *dboids)
{
	int		   *order = palloc(UncacheShmem->ndatabases * sizeof(int));

	for (int i = 0; i < UncacheShmem->ndatabases; i++)
		order[i] = i;
	qsort(order, UncacheShmem->ndatabases, sizeof(int), compare_idle_times);
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (OidIsValid(slots[order[i]].dboid))
			dboids = list_append_unique_oid(dboids, slots[order[i]].dboid);
	}
	return dboids;
}

/* --------------- workers --------------- */

void
worker_slots_warn_of_processes(void)
{
	if (!warned_of_processes)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("out of background worker slots for pg_uncache"),
				 errdetail("Committed invalidations stay in the outbox until a worker can be "
						   "started."),
				 errhint("You might need to increase max_worker_processes.")));
	warned_of_processes = true;
}

/*
 * Whether a worker may start: no session holds the database.  A restart that is
 * requested from here on is meant for the new worker.
 */
static bool
may_start(DatabaseState *database)
{
	bool		held;

	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	held = database->holds > 0;
	if (!held)
		pg_atomic_write_u32(&database->restart_requested, 0);
	LWLockRelease(UncacheShmem->lock);
	return !held;
}

static void
start_worker(WorkerSlot *slot)
{
	slot->asked = false;
	slot->written = false;
	slot->to_yield = false;
	if (!database_start_process("worker", "uncache_worker_main", slot->dboid,
								Int32GetDatum(slot - slots), &slot->handle))
	{
		worker_slots_warn_of_processes();
		worker_slots_back_off(&slot->backoff);
		return;
	}
	warned_of_processes = false;
	slot->running = true;
	slot->started_at = clock_now();
}

void
worker_slots_start_workers(void)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (is_due(&slots[i]) && may_start(shmem_database(i)))
			start_worker(&slots[i]);
	}
}

long
worker_slots_due_in(long longest)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		const WorkerSlot *slot = &slots[i];

		/*
		 * A worker that is due and was not started is held by a session, which wakes the
		 * launcher when it releases the hold.
		 */
		if (OidIsValid(slot->dboid) && !slot->running && !is_due(slot))
			longest = Min(longest, backoff_left(&slot->backoff));
	}
	return longest;
}
