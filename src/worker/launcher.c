/*
 * launcher.c
 *	  Starts a worker for each database that has the extension.
 *
 * A database's way to its worker:
 *
 *		candidate --a probe finds the extension--> wants a worker slot --> slot, worker
 *
 * Every database is a candidate once when the launcher starts, and again whenever it
 * asks: after CREATE EXTENSION, or with a commit that has invalidations and finds no
 * worker slot.  A database without the extension is forgotten until it asks.  A database
 * that finds all slots taken waits for its turn.
 *
 * A probe takes a process and some 50 ms, so the order matters where there are many
 * databases: a database that is written comes first, then those that had a worker before
 * the restart (served_databases.c), then all others.  Where uncache.databases gives an
 * order, that takes the place of the last two.  Slots are given in this order, too.  Where
 * none is left for a database that is written, the launcher asks an idle worker to give up
 * its slot (worker_yield.c).
 *
 * The launcher sleeps until its latch is set: by a session that asks for a worker or
 * releases a hold, or by the postmaster when a process that the launcher started has
 * ended.  It keeps nothing that its successor can't find out, so it may end at any time;
 * the postmaster starts another one, and the workers go on in between.  On a standby there
 * is no launcher before promotion.
 */
#include "postgres.h"

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/backoff.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "worker/worker.h"
#include "worker/worker_int.h"
#include "worker/worker_slots.h"

/* Safety net: every request sets the latch; this finds one that did not. */
#define IDLE_MS			60000

/* How often the launcher looks for an idle worker while a written database waits. */
#define YIELD_LOOK_MS	1000

/* After this the postmaster starts a launcher again that has failed. */
#define RESTART_S		1

typedef enum Stage
{
	STAGE_UNKNOWN,				/* to be probed */
	STAGE_PROBED,				/* a probe is running */
	STAGE_WANTS_SLOT,			/* has the extension */
} Stage;

typedef struct Candidate
{
	Oid			dboid;
	Stage		stage;
	bool		asked;			/* since the probe was started */
	bool		written;		/* has invalidations, and no worker that delivers them */
	bool		warned;			/* the log says that no slot is left for it */
	Backoff		backoff;		/* after a probe that failed */
} Candidate;

static List *candidates = NIL;
static Candidate *probed = NULL;	/* the one that is STAGE_PROBED */

/* The first lives as long as the launcher; the second is emptied every turn. */
static MemoryContext launcher_context;
static MemoryContext turn_context;

/*
 * --------------------------------------------------------------------------
 * Candidates
 * --------------------------------------------------------------------------
 */

static Candidate *
find_candidate(Oid dboid)
{
	ListCell   *lc;

	foreach(lc, candidates)
	{
		Candidate  *candidate = lfirst(lc);

		if (candidate->dboid == dboid)
			return candidate;
	}
	return NULL;
}

/*
 * A database asks to be probed.  The answer of a probe that is running may be out of date,
 * so "asked" says to probe it again.
 */
static Candidate *
add_candidate(Oid dboid)
{
	Candidate  *candidate = find_candidate(dboid);
	MemoryContext old;

	if (candidate != NULL)
	{
		candidate->asked = true;
		return candidate;
	}
	old = MemoryContextSwitchTo(launcher_context);
	candidate = palloc0(sizeof(Candidate));
	candidate->dboid = dboid;
	candidates = lappend(candidates, candidate);
	MemoryContextSwitchTo(old);
	return candidate;
}

/* A database has lost its slot, and may need one again. */
static void
add_again(Oid dboid, bool written, bool told)
{
	Candidate  *candidate = add_candidate(dboid);

	candidate->written |= written;
	candidate->warned |= told;
}

/* Databases that had a worker before come first, unless uncache.databases sets the order. */
static void
add_all_databases(void)
{
	List	   *dboids = settings_database_names() == NIL ? served_databases_read() : NIL;
	ListCell   *lc;

	foreach(lc, database_list())
		dboids = list_append_unique_oid(dboids, ((const Database *) lfirst(lc))->dboid);
	foreach(lc, dboids)
	{
		if (database_find(lfirst_oid(lc)) != NULL && !worker_slots_have(lfirst_oid(lc)))
			add_candidate(lfirst_oid(lc));
	}
}

static void
take_requests(void)
{
	for (int i = 0; i < lengthof(UncacheShmem->requests); i++)
	{
		uint64		request = pg_atomic_exchange_u64(&UncacheShmem->requests[i], 0);
		Oid			dboid = launch_request_dboid(request);
		bool		written = (request & LAUNCH_WRITTEN) != 0;

		if (OidIsValid(dboid) && !worker_slots_note_request(dboid, written))
			add_candidate(dboid)->written |= written;
	}
	if (pg_atomic_exchange_u32(&UncacheShmem->look_everywhere, 0) != 0)
		add_all_databases();
}

/* Take in the answer of the probe that is running, if it is there. */
static void
take_probe_result(void)
{
	Candidate  *candidate = probed;
	ProbeResult result = candidate == NULL ? PROBE_RUNNING : database_probe_result();

	if (result == PROBE_RUNNING)
		return;
	Assert(candidate->stage == STAGE_PROBED);
	probed = NULL;
	candidate->stage = result == PROBE_FOUND ? STAGE_WANTS_SLOT : STAGE_UNKNOWN;
	if (result == PROBE_FAILED)
		worker_slots_back_off(&candidate->backoff);
	if (result == PROBE_ABSENT && !candidate->asked)
	{
		candidates = list_delete_ptr(candidates, candidate);
		pfree(candidate);
	}
}

static void
probe(Candidate *candidate)
{
	Assert(probed == NULL && candidate->stage == STAGE_UNKNOWN);
	candidate->asked = false;
	if (!database_probe_start(candidate->dboid))
	{
		worker_slots_warn_of_processes();
		worker_slots_back_off(&candidate->backoff);
		return;
	}
	candidate->stage = STAGE_PROBED;
	probed = candidate;
}

/* Probe the next database whose turn it is, of those that are written or of the others. */
static void
probe_next(bool written)
{
	ListCell   *lc;

	foreach(lc, candidates)
	{
		Candidate  *candidate = lfirst(lc);

		if (probed != NULL)
			return;
		if (candidate->stage != STAGE_UNKNOWN || candidate->written != written ||
			backoff_left(&candidate->backoff) > 0)
			continue;
		if (database_find(candidate->dboid) != NULL)
			probe(candidate);
		else
		{
			candidates = foreach_delete_current(candidates, lc);
			pfree(candidate);
		}
	}
}

static void
warn_of_slots(Candidate *candidate)
{
	const Database *database = database_find(candidate->dboid);

	if (database == NULL)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no pg_uncache worker is left for database \"%s\"",
					NameStr(database->name)),
			 errdetail("Invalidations of this database stay in its outbox until one of the %d "
					   "databases that are served gives up its worker.",
					   UncacheShmem->ndatabases),
			 errhint("Increase uncache.max_database_workers and restart the server.")));
	candidate->warned = true;
}

static void
give_slots(bool written)
{
	ListCell   *lc;

	foreach(lc, candidates)
	{
		Candidate  *candidate = lfirst(lc);

		if (candidate->stage != STAGE_WANTS_SLOT || candidate->written != written)
			continue;
		if (!worker_slots_have(InvalidOid))
		{
			if (!candidate->warned)
				warn_of_slots(candidate);
		}
		else if (database_find(candidate->dboid) == NULL ||
				 worker_slots_give(candidate->dboid))
		{
			candidates = foreach_delete_current(candidates, lc);
			pfree(candidate);
		}
	}
}

/* Whether a database that is written waits for a slot. */
static bool
written_waits(void)
{
	ListCell   *lc;

	foreach(lc, candidates)
	{
		const Candidate *candidate = lfirst(lc);

		if (candidate->stage == STAGE_WANTS_SLOT && candidate->written)
			return true;
	}
	return false;
}

/*
 * Leave a list of the databases that matter to the next launcher: those with a slot, and
 * those that wait for one and have something to deliver.  Until all databases were probed
 * once, the list of the launcher before is more complete, and stays.
 */
static void
remember_served(void)
{
	static bool probed_all = false;
	List	   *dboids = NIL;
	ListCell   *lc;

	foreach(lc, candidates)
	{
		const Candidate *candidate = lfirst(lc);

		if (candidate->stage == STAGE_WANTS_SLOT && candidate->written)
			dboids = lappend_oid(dboids, candidate->dboid);
		if (candidate->stage != STAGE_WANTS_SLOT && !probed_all)
			return;
	}
	probed_all = true;
	served_databases_write(worker_slots_add_databases(dboids));
}

/*
 * --------------------------------------------------------------------------
 * The process
 * --------------------------------------------------------------------------
 */

/* Warn of names in uncache.databases that no database has. */
static void
warn_of_names(void)
{
	ListCell   *name;

	foreach(name, settings_database_names())
	{
		bool		found = false;
		ListCell   *lc;

		foreach(lc, database_list())
			found |= strcmp(NameStr(((const Database *) lfirst(lc))->name), lfirst(name)) == 0;
		if (!found)
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_DATABASE),
					 errmsg("database \"%s\" in uncache.databases does not exist, or does not "
							"accept connections",
							(char *) lfirst(name))));
	}
}

static void
take_a_turn(void)
{
	static bool first = true;
	MemoryContext old = MemoryContextSwitchTo(turn_context);

	database_begin_turn();
	if (first)
		warn_of_names();
	first = false;
	take_requests();
	take_probe_result();
	worker_slots_look_after(add_again);
	give_slots(true);
	give_slots(false);
	if (written_waits())
		worker_slots_ask_to_yield();
	worker_slots_start_workers();
	probe_next(true);
	probe_next(false);
	remember_served();
	MemoryContextSwitchTo(old);
	MemoryContextReset(turn_context);
}

/* Milliseconds until there is something to do, unless the latch is set before. */
static long
time_to_sleep(void)
{
	long		ms = worker_slots_due_in(written_waits() ? YIELD_LOOK_MS : IDLE_MS);
	ListCell   *lc;

	foreach(lc, candidates)
	{
		const Candidate *candidate = lfirst(lc);

		if (candidate->stage == STAGE_UNKNOWN && probed == NULL)
			ms = Min(ms, backoff_left(&candidate->backoff));
	}
	return ms;
}

static void
clear_launcher(int code, Datum arg)
{
	uint32		me = MyProcNumber + 1;

	pg_atomic_compare_exchange_u32(&UncacheShmem->launcher_proc, &me, 0);
}

static void
set_up(void)
{
	launcher_context = AllocSetContextCreate(TopMemoryContext, "pg_uncache launcher",
											 ALLOCSET_DEFAULT_SIZES);
	turn_context = AllocSetContextCreate(launcher_context, "pg_uncache launcher turn",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(launcher_context);

	before_shmem_exit(clear_launcher, 0);
	pg_atomic_write_u32(&UncacheShmem->launcher_proc, MyProcNumber + 1);
	worker_slots_init();
	pg_atomic_write_u32(&UncacheShmem->look_everywhere, 1);
}

void
uncache_launcher_main(Datum arg)
{
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, PG_SIG_IGN);	/* pg_cancel_backend() would be an ERROR */
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	wait_event = WaitEventExtensionNew("UncacheLauncherMain");
	set_up();

	for (;;)
	{
		if (ProcDiePending)
		{
			remember_served();
			proc_exit(1);		/* without a FATAL in the log of every shutdown */
		}
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		take_a_turn();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 time_to_sleep(), wait_event);
		ResetLatch(MyLatch);
	}
}

void
launcher_register(void)
{
	BackgroundWorker worker;

	if (IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "pg_uncache launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pg_uncache launcher", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_S;
	strlcpy(worker.bgw_library_name, "pg_uncache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "uncache_launcher_main", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
