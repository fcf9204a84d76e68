/*
 * place.c
 *	  The slots and their workers, as the launcher sees them.
 *
 * A place is the launcher's own knowledge of the slot with the same number.  Slots
 * are given by the launcher.  They are freed by it when their database is gone, and by
 * a worker that finds its database without the extension; the place is empty only once
 * the slot's worker is gone too.
 *
 * A worker that ends is started again: at once when it was asked to end, otherwise
 * after a pause that grows as long as it keeps failing.
 *
 * When the launcher ends, the workers stay and go on delivering.  The next launcher
 * has no handles for them; it takes them over by their process ids in the slots, and
 * a worker wakes the launcher when it ends.  After a crash everything is new.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "clock.h"
#include "databases.h"
#include "pause.h"
#include "place.h"
#include "shmem.h"

/* A worker that lived this long has not failed to start. */
#define LIVED_MS		30000

typedef struct Place
{
	Oid			dboid;			/* InvalidOid: empty, nothing else counts */
	bool		running;		/* a worker was started and is not known to be gone */
	BackgroundWorkerHandle *handle; /* NULL: not running, or of a predecessor */
	TimestampTz started_at;
	bool		asked;			/* since its worker was started */
	Pause		pause;
} Place;

static Place *places;
static MemoryContext places_context;

/* One WARNING until a worker could be started again. */
static bool warned_of_processes = false;

static bool
worker_has_ended(const Place *place, DatabaseSlot *slot)
{
	pid_t		pid;

	if (place->handle == NULL)
		return shmem_worker_pid(slot) == 0;
	return GetBackgroundWorkerPid(place->handle, &pid) == BGWH_STOPPED;
}

/* --------------- coming and going of the launcher --------------- */

/*
 * A worker that has not shown itself in its slot would be unknown to the next
 * launcher, which would start a second one.
 */
static void
end_unknown_workers(int code, Datum arg)
{
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		if (places[i].running && places[i].handle != NULL &&
			shmem_worker_pid(shmem_slot(i)) == 0)
			TerminateBackgroundWorker(places[i].handle);
	}
}

void
places_init(void)
{
	places_context = CurrentMemoryContext;
	places = palloc0(Shared_state->nslots * sizeof(Place));
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		Place	   *place = &places[i];

		place->dboid = pg_atomic_read_u32(&shmem_slot(i)->dboid);
		place->running = OidIsValid(place->dboid) && shmem_worker_pid(shmem_slot(i)) != 0;
		place->started_at = clock_now();
	}
	before_shmem_exit(end_unknown_workers, 0);
}

/* --------------- giving and taking --------------- */

bool
places_have(Oid dboid, bool asks)
{
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		if (places[i].dboid == dboid)
		{
			places[i].asked |= asks;
			return true;
		}
	}
	return false;
}

bool
places_have_room(void)
{
	return places_have(InvalidOid, false);
}

/* False when the slot is not free, or somebody still has a hold on it. */
static bool
take_slot(DatabaseSlot *slot, Oid dboid)
{
	bool		free;

	LWLockAcquire(Shared_state->lock, LW_EXCLUSIVE);
	free = slot->holds == 0 && !OidIsValid(pg_atomic_read_u32(&slot->dboid));
	if (free)
		shmem_slot_assign(slot, dboid);
	LWLockRelease(Shared_state->lock);
	return free;
}

bool
places_give(Oid dboid)
{
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		Place	   *place = &places[i];

		if (OidIsValid(place->dboid) || !take_slot(shmem_slot(i), dboid))
			continue;
		memset(place, 0, sizeof(Place));
		place->dboid = dboid;
		return true;
	}
	return false;
}

static void
worker_ended(Place *place)
{
	place->running = false;
	if (place->handle != NULL)
		pfree(place->handle);
	place->handle = NULL;

	if (TimestampDifferenceExceeds(place->started_at, clock_now(), LIVED_MS))
		pause_reset(&place->pause);
	pause_more(&place->pause);
}

static bool
is_due(const Place *place)
{
	return OidIsValid(place->dboid) && !place->running && pause_left(&place->pause) == 0;
}

/* Take the slot back; no worker is running. */
static void
free_slot(DatabaseSlot *slot, Oid dboid)
{
	LWLockAcquire(Shared_state->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&slot->dboid) == dboid)
		shmem_slot_assign(slot, InvalidOid);
	LWLockRelease(Shared_state->lock);
}

void
places_look_after(void (*ask) (Oid dboid))
{
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		Place	   *place = &places[i];
		DatabaseSlot *slot = shmem_slot(i);
		Oid			dboid = place->dboid;

		if (!OidIsValid(dboid))
			continue;
		if (place->running && worker_has_ended(place, slot))
			worker_ended(place);
		if (place->running)
			continue;

		/* Whoever asks a worker to end wants it back at once. */
		if (pg_atomic_read_u32(&slot->restart_requested) != 0)
			pause_reset(&place->pause);
		if (is_due(place) && databases_find(dboid) == NULL)
			free_slot(slot, dboid);
		if (pg_atomic_read_u32(&slot->dboid) != dboid)
		{
			place->dboid = InvalidOid;
			if (place->asked)
				ask(dboid);
		}
	}
}

/* --------------- workers --------------- */

void
places_warn_of_processes(void)
{
	if (!warned_of_processes)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("out of background worker slots for pg_uncache"),
				 errdetail("Committed invalidations stay in the outbox until a worker can be started."),
				 errhint("You might need to increase max_worker_processes.")));
	warned_of_processes = true;
}

static bool
register_worker(Place *place)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_uncache worker of database %u", place->dboid);
	strlcpy(worker.bgw_type, "pg_uncache worker", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BGWORKER_INTERRUPTIBLE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_uncache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "uncache_worker_main", BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(place - places);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(places_context);
	started = RegisterDynamicBackgroundWorker(&worker, &place->handle);
	MemoryContextSwitchTo(old);
	return started;
}

/*
 * Whether a worker may start: nobody holds the database.  A restart that is
 * requested from here on is meant for the new worker.
 */
static bool
may_start(DatabaseSlot *slot)
{
	bool		held;

	LWLockAcquire(Shared_state->lock, LW_EXCLUSIVE);
	held = slot->holds > 0;
	if (!held)
		pg_atomic_write_u32(&slot->restart_requested, 0);
	LWLockRelease(Shared_state->lock);
	return !held;
}

static void
start_worker(Place *place)
{
	place->asked = false;
	if (!register_worker(place))
	{
		places_warn_of_processes();
		pause_more(&place->pause);
		return;
	}
	warned_of_processes = false;
	place->running = true;
	place->started_at = clock_now();
}

void
places_start_workers(void)
{
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		if (is_due(&places[i]) && may_start(shmem_slot(i)))
			start_worker(&places[i]);
	}
}

long
places_due_in(long longest)
{
	for (int i = 0; i < Shared_state->nslots; i++)
	{
		const Place *place = &places[i];

		/* One that is due and was not started is held, and is told when not. */
		if (OidIsValid(place->dboid) && !place->running && !is_due(place))
			longest = Min(longest, pause_left(&place->pause));
	}
	return longest;
}
