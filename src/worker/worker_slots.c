/*
 * worker_slots.c
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

#include "base/clock.h"
#include "worker/databases.h"
#include "base/backoff.h"
#include "worker/worker_slots.h"
#include "shmem/shmem.h"
#include "worker/worker_yield.h"

/* A worker that lived this long has not failed to start. */
#define LIVED_MS		30000

typedef struct Place
{
	Oid			dboid;			/* InvalidOid: empty, nothing else counts */
	bool		running;		/* a worker was started and is not known to be gone */
	BackgroundWorkerHandle *handle; /* NULL: not running, or of a predecessor */
	TimestampTz started_at;
	bool		asked;			/* since its worker was started */
	bool		written;		/* likewise, by a commit with invalidations */
	bool		to_yield;		/* its worker was asked to give up the slot */
	Pause		pause;
} Place;

static Place *places;
static MemoryContext places_context;

/* One WARNING until a worker could be started again. */
static bool warned_of_processes = false;

static bool
worker_has_ended(const Place *place, DatabaseState *database)
{
	pid_t		pid;

	if (place->handle == NULL)
		return shmem_worker_pid(database) == 0;
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
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (places[i].running && places[i].handle != NULL &&
			shmem_worker_pid(shmem_database(i)) == 0)
			TerminateBackgroundWorker(places[i].handle);
	}
}

void
worker_slots_init(void)
{
	places_context = CurrentMemoryContext;
	places = palloc0(UncacheShmem->ndatabases * sizeof(Place));
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		Place	   *place = &places[i];

		place->dboid = pg_atomic_read_u32(&shmem_database(i)->dboid);
		place->running = OidIsValid(place->dboid) && shmem_worker_pid(shmem_database(i)) != 0;
		place->started_at = clock_now();
	}
	before_shmem_exit(end_unknown_workers, 0);
}

/* --------------- giving and taking --------------- */

static Place *
find_place(Oid dboid)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (places[i].dboid == dboid)
			return &places[i];
	}
	return NULL;
}

bool
worker_slots_have(Oid dboid)
{
	return find_place(dboid) != NULL;
}

bool
worker_slots_note_request(Oid dboid, bool written)
{
	Place	   *place = find_place(dboid);

	if (place == NULL)
		return false;
	place->asked = true;
	place->written |= written;
	return true;
}

bool
worker_slots_have_room(void)
{
	return worker_slots_have(InvalidOid);
}

/* False when the slot is not free, or somebody still has a hold on it. */
static bool
take_slot(DatabaseState *database, Oid dboid)
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
		Place	   *place = &places[i];

		if (OidIsValid(place->dboid) || !take_slot(shmem_database(i), dboid))
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
free_slot(DatabaseState *database, Oid dboid)
{
	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&database->dboid) == dboid)
		shmem_assign_database(database, InvalidOid);
	LWLockRelease(UncacheShmem->lock);
}

static void
tell_of_yield(Oid dboid)
{
	const Database *database = databases_find(dboid);

	if (database != NULL)
		ereport(LOG,
				(errmsg("database \"%s\", which was idle, has given its pg_uncache worker to one that is written",
						NameStr(database->name)),
				 errhint("Increase uncache.max_database_workers and restart the server, so that each has its own.")));
}

void
worker_slots_look_after(void (*ask) (Oid dboid, bool written, bool told))
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		Place	   *place = &places[i];
		DatabaseState *database = shmem_database(i);
		Oid			dboid = place->dboid;

		if (!OidIsValid(dboid))
			continue;
		/* A worker that refuses clears the request; one that does not, the slot first. */
		if (place->to_yield && pg_atomic_read_u32(&database->yield_requested) == 0 &&
			pg_atomic_read_u32(&database->dboid) == dboid)
			place->to_yield = false;
		if (place->running && worker_has_ended(place, database))
			worker_ended(place);
		if (place->running)
			continue;

		/* Whoever asks a worker to end wants it back at once. */
		if (pg_atomic_read_u32(&database->restart_requested) != 0)
			pause_reset(&place->pause);
		if (is_due(place) && databases_find(dboid) == NULL)
			free_slot(database, dboid);
		if (pg_atomic_read_u32(&database->dboid) != dboid)
		{
			place->dboid = InvalidOid;
			if (place->to_yield)
				tell_of_yield(dboid);
			if (place->asked || place->to_yield)
				ask(dboid, place->written, place->to_yield);
		}
	}
}

/* --------------- making room --------------- */

/* Since when a place is idle; 0: it is not, or may not be asked. */
static TimestampTz
idle_since(int i)
{
	DatabaseState *database = shmem_database(i);

	if (!OidIsValid(places[i].dboid) || !places[i].running ||
		pg_atomic_read_u32(&database->dboid) != places[i].dboid)
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

		/* One that is about to be free is enough. */
		if (OidIsValid(places[i].dboid) &&
			pg_atomic_read_u32(&shmem_database(i)->dboid) != places[i].dboid)
			return;
		if (since == 0 || !TimestampDifferenceExceeds(since, now, YIELD_IDLE_MS) ||
			(idlest >= 0 && since >= longest))
			continue;
		longest = since;
		idlest = i;
	}
	if (idlest < 0)
		return;
	places[idlest].to_yield = true;
	pg_atomic_write_u32(&shmem_database(idlest)->yield_requested, 1);
	shmem_wake_worker(shmem_database(idlest));
}

/* --------------- remembering --------------- */

static int
compare_idle_times(const void *a, const void *b)
{
	TimestampTz left = idle_since(*(const int *) a);
	TimestampTz right = idle_since(*(const int *) b);

	/* 0, which is busy, comes first. */
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
		if (OidIsValid(places[order[i]].dboid))
			dboids = list_append_unique_oid(dboids, places[order[i]].dboid);
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
start_worker(Place *place)
{
	place->asked = false;
	place->written = false;
	place->to_yield = false;
	if (!register_worker(place))
	{
		worker_slots_warn_of_processes();
		pause_more(&place->pause);
		return;
	}
	warned_of_processes = false;
	place->running = true;
	place->started_at = clock_now();
}

void
worker_slots_start_workers(void)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (is_due(&places[i]) && may_start(shmem_database(i)))
			start_worker(&places[i]);
	}
}

long
worker_slots_due_in(long longest)
{
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		const Place *place = &places[i];

		/* One that is due and was not started is held, and is told when not. */
		if (OidIsValid(place->dboid) && !place->running && !is_due(place))
			longest = Min(longest, pause_left(&place->pause));
	}
	return longest;
}
