/*
 * launcher.c
 *	  Starts a worker for each database that has the extension.
 *
 * A database's way to its worker:
 *
 *		candidate --probe finds the extension--> wants a slot --> place, worker
 *
 * Every database is a candidate once when the launcher starts, and again whenever
 * it asks (CREATE EXTENSION, or a commit with invalidations that found no slot).
 * One without the extension is forgotten until it asks.  One that finds all slots
 * taken waits for its turn.
 *
 * Looking into a database takes a process and some 50 ms, so the order matters where
 * there are many: a database that is written comes first, then those that had a worker
 * before the restart (served_databases.c), then all others.  Where uncache.databases gives an
 * order, that takes the place of the last two.  In this order slots are given, too, and
 * where none is left for a database that is written, one that is idle is asked for its
 * slot (worker_yield.c).
 *
 * The launcher sleeps unless its latch is set: by who asks, by the postmaster when a
 * process that it started has ended, by who gives up a hold.  It keeps nothing that
 * can't be found out again, so it may end at any time; the postmaster starts
 * another one, and the workers go on in between.  On a standby there is no
 * launcher before promotion.
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

#include "worker/databases.h"
#include "worker/launcher.h"
#include "base/backoff.h"
#include "worker/worker_slots.h"
#include "worker/database_probe.h"
#include "worker/served_databases.h"
#include "settings/settings.h"
#include "shmem/shmem.h"

/* Safety net: every request sets the latch; this finds one that did not. */
#define IDLE_MS			60000

/* How often an idle worker is looked for while a database that is written waits. */
#define YIELD_LOOK_MS	1000

/* Until the postmaster starts a launcher that has failed again. */
#define RESTART_S		1

typedef enum Stage
{
	STAGE_UNKNOWN,				/* to be looked into */
	STAGE_PROBED,				/* a probe is in it */
	STAGE_WANTS_SLOT,			/* has the extension */
} Stage;

typedef struct Candidate
{
	Oid			dboid;
	Stage		stage;
	bool		asked;			/* since the probe was started */
	bool		written;		/* has invalidations that nobody delivers */
	bool		warned;			/* that no slot is left */
	Pause		pause;			/* after a probe that failed */
} Candidate;

static List *candidates = NIL;
static Candidate *probed = NULL;	/* the one that is STAGE_PROBED */

/* Lives as long as the launcher; the other is emptied every turn. */
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
 * A database asks to be looked into.  An answer that is on its way already may be
 * out of date, so it is kept in mind to look again.
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

/* A database has lost its place, and may need one again. */
static void
add_again(Oid dboid, bool written, bool told)
{
	Candidate  *candidate = add_candidate(dboid);

	candidate->written |= written;
	candidate->warned |= told;
}

/* Those first that had a worker before, unless the order is set. */
static void
add_all_databases(void)
{
	List	   *dboids = settings_database_names() == NIL ? served_databases_read() : NIL;
	ListCell   *lc;

	foreach(lc, databases_list())
		dboids = list_append_unique_oid(dboids, ((const Database *) lfirst(lc))->dboid);
	foreach(lc, dboids)
	{
		if (databases_find(lfirst_oid(lc)) != NULL && !worker_slots_have(lfirst_oid(lc)))
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

/* Take in the answer of the probe that is out, if it is there. */
static void
take_probe_result(void)
{
	Candidate  *candidate = probed;
	ProbeResult result = candidate == NULL ? PROBE_RUNNING : database_probe_result();

	if (result == PROBE_RUNNING)
		return;
	probed = NULL;
	candidate->stage = result == PROBE_FOUND ? STAGE_WANTS_SLOT : STAGE_UNKNOWN;
	if (result == PROBE_FAILED)
		pause_more(&candidate->pause);
	if (result == PROBE_ABSENT && !candidate->asked)
	{
		candidates = list_delete_ptr(candidates, candidate);
		pfree(candidate);
	}
}

static void
probe(Candidate *candidate)
{
	candidate->asked = false;
	if (!database_probe_start(candidate->dboid))
	{
		worker_slots_warn_of_processes();
		pause_more(&candidate->pause);
		return;
	}
	candidate->stage = STAGE_PROBED;
	probed = candidate;
}

/* Look into the next database whose turn it is, of those that are written or not. */
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
			pause_left(&candidate->pause) > 0)
			continue;
		if (databases_find(candidate->dboid) != NULL)
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
	const Database *database = databases_find(candidate->dboid);

	if (database == NULL)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no pg_uncache worker is left for database \"%s\"",
					NameStr(database->name)),
			 errdetail("Invalidations of this database stay in its outbox until one of the %d databases that are served gives up its worker.",
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
		if (!worker_slots_have_room())
		{
			if (!candidate->warned)
				warn_of_slots(candidate);
		}
		else if (databases_find(candidate->dboid) == NULL ||
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
 * Leave to the next launcher which databases matter: those that wait have something
 * to deliver.  While the first look at all is not over, what the one before has left is
 * worth more.
 */
static void
remember_served(void)
{
	static bool looked_at_all = false;
	List	   *dboids = NIL;
	ListCell   *lc;

	foreach(lc, candidates)
	{
		const Candidate *candidate = lfirst(lc);

		if (candidate->stage == STAGE_WANTS_SLOT && candidate->written)
			dboids = lappend_oid(dboids, candidate->dboid);
		if (candidate->stage != STAGE_WANTS_SLOT && !looked_at_all)
			return;
	}
	looked_at_all = true;
	served_databases_write(worker_slots_add_databases(dboids));
}

/*
 * --------------------------------------------------------------------------
 * The process
 * --------------------------------------------------------------------------
 */

static void
warn_of_names(void)
{
	ListCell   *name;

	foreach(name, settings_database_names())
	{
		bool		found = false;
		ListCell   *lc;

		foreach(lc, databases_list())
			found |= strcmp(NameStr(((const Database *) lfirst(lc))->name), lfirst(name)) == 0;
		if (!found)
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_DATABASE),
					 errmsg("database \"%s\" in uncache.databases does not exist, or does not accept connections",
							(char *) lfirst(name))));
	}
}

static void
take_a_turn(void)
{
	static bool first = true;
	MemoryContext old = MemoryContextSwitchTo(turn_context);

	databases_begin_turn();
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

/* Milliseconds in which nothing is to be done unless the latch is set. */
static long
time_to_sleep(void)
{
	long		ms = worker_slots_due_in(written_waits() ? YIELD_LOOK_MS : IDLE_MS);
	ListCell   *lc;

	foreach(lc, candidates)
	{
		const Candidate *candidate = lfirst(lc);

		if (candidate->stage == STAGE_UNKNOWN && probed == NULL)
			ms = Min(ms, pause_left(&candidate->pause));
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
