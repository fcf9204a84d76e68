/*
 * shmem.h
 *	  What the processes of pg_uncache share.
 *
 * Shared memory holds a DatabaseState for each database that is served, a WaitSlot for
 * each PGPROC, and the counters of rules.  Nothing in it is the truth: that is the outbox.
 * It is made anew after every crash of the server, and may be lost at any time.
 *
 * Locks, in the order in which they may be taken (never the other way):
 *
 *		Shared->lock			which database is served where, and how many sessions hold it
 *		DatabaseState->lock		its ring, its worker, its last error
 *
 * Both are LWLocks and are held for a few instructions only.  Everything else
 * is atomic.
 */
#ifndef UNCACHE_SHMEM_H
#define UNCACHE_SHMEM_H

#include "base/compat.h"

#include "port/atomics.h"
#include "storage/lwlock.h"

#include "shmem/counters.h"
#include "shmem/database_state.h"
#include "shmem/wait_slots.h"

typedef struct Shared
{
	LWLock	   *lock;
	/* ProcNumber + 1; 0: no launcher.  The launcher writes it. */
	pg_atomic_uint32 launcher_proc;

	/*
	 * Databases that the launcher should look into, as launch_request() packs them; 0 is an
	 * empty entry.  Sessions fill entries, the launcher empties them.  Few sessions ask at the
	 * same time; when all entries are taken the launcher is told to look everywhere instead.
	 */
	pg_atomic_uint64 requests[32];
	pg_atomic_uint32 look_everywhere;
	/* Answer of the last probe (database_probe.c), which writes it: dboid * 2 + found. */
	pg_atomic_uint64 probed;

	/* From here on: written once, while shared memory is made. */
	char		incarnation[17];	/* hexadecimal; see incarnation.h */
	char		lineage[17];	/* hexadecimal; see lineage.c */
	int			dsa_tranche;	/* of the workers' delivered maps */
	int			ndatabases;
	int			nwaitslots;
	WaitSlot   *wait_slots;		/* indexed by ProcNumber */
	RuleStats  *rule_stats;
	DatabaseState *databases;
} Shared;

/* NULL where the library is not in shared_preload_libraries. */
extern Shared *UncacheShmem;

/* In a worker: the state of its own database, set once while it starts; else NULL. */
extern DatabaseState *MyDatabaseState;

/* Called in _PG_init while preloading. */
extern void shmem_install_hooks(void);

/* Raise an ERROR unless the library was preloaded, without which "what" cannot work. */
extern void shmem_require_preload(const char *what);

/*
 * The state of a database that is served, or NULL.  Takes no lock: may be used where
 * nothing may fail.  A caller that needs to be sure looks at dboid again under its lock.
 */
extern DatabaseState *shmem_find_database(Oid dboid);
extern DatabaseState *shmem_my_database(void);	/* of MyDatabaseId */
extern DatabaseState *shmem_database(int i);

/* Let a state serve a database, or none (InvalidOid); the caller holds Shared->lock. */
extern void shmem_assign_database(DatabaseState *database, Oid dboid);

/* For a worker: what uncache.stat is to show as the last error, as of now. */
extern void shmem_note_error(DatabaseState *database, const char *error);

/* The same where the last error begins so, and is over. */
extern void shmem_forget_error(DatabaseState *database, const char *beginning);

/* Process id of the database's worker; 0: none. */
extern pid_t shmem_worker_pid(DatabaseState *database);

/* NULL where the library is not preloaded, and in auxiliary processes. */
extern WaitSlot *shmem_my_wait_slot(void);

/*
 * Ask the launcher to look into a database; "written": it has invalidations and no worker
 * that delivers them, so it goes before databases that have none.  May be used where
 * nothing may fail.
 */
extern void shmem_request_launch(Oid dboid, bool written);

/* A request as Shared->requests has it: the database's OID, and whether it is written. */
#define LAUNCH_WRITTEN		((uint64) 1 << 32)
#define launch_request(dboid, written)	((uint64) (dboid) | ((written) ? LAUNCH_WRITTEN : 0))
#define launch_request_dboid(request)	((Oid) ((request) & PG_UINT32_MAX))

/* Set the latch of a database's worker, of the launcher; without one nothing happens. */
extern void shmem_wake_worker(DatabaseState *database);
extern void shmem_wake_launcher(void);

#endif							/* UNCACHE_SHMEM_H */
