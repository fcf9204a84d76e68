/*
 * shmem.h
 *	  What the processes of pg_uncache share.
 *
 * One DatabaseState stands for one database that is served; there are
 * uncache.max_database_workers of them.  One WaitSlot belongs to each PGPROC.
 * Nothing in shared memory is the truth: that is the outbox.  Shared memory is
 * made anew after every crash of the server, and may be lost at any time.
 *
 * Locks, in the order in which they may be taken (never the other way):
 *
 *		Shared->lock	directory: which database a slot serves, who holds it
 *		database->lock		the ring of a slot, its worker, its last error
 *
 * Both are LWLocks and are held for a few instructions only.  Everything else
 * is atomic.
 */
#ifndef UNCACHE_SHMEM_H
#define UNCACHE_SHMEM_H

#include "base/compat.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"

#include "shmem/ring.h"
#include "shmem/counters.h"

/* The outbox tables that rotate; outbox_side comes on top. */
#define OUTBOX_TABLES	4

/*
 * A table's blocks whose rows may have missed the ring, as a bitmap over the
 * block number modulo this many bits: exact up to 32 MB, and a table is retired
 * at 16 MB unless Redis is away.
 */
#define DIRTY_BITS		4096
#define DIRTY_WORDS		(DIRTY_BITS / 32)

/* What a database's worker is doing; uncache.stat shows it as "state". */
typedef enum WorkerState
{
	WORKER_NONE,				/* zero: a new slot */
	WORKER_CONNECTING,			/* first attempt, or Redis just lost */
	WORKER_CONNECTED,				/* to all nodes */
	WORKER_DOWN,					/* Redis, or a node of it, can't be reached; retrying */
	WORKER_PAUSED,				/* uncache.delivery = off */
} WorkerState;

/* Whether an outbox has rows that are not delivered, as far as it is known. */
typedef enum LeftBehind
{
	LEFT_UNKNOWN,
	LEFT_NOTHING,
	LEFT_SOMETHING,
} LeftBehind;

/* How a worker sleeps: decides who has to set its latch. */
typedef enum WorkerSleep
{
	WORKER_AWAKE,				/* looks at the ring before it sleeps */
	WORKER_GATHERS,				/* looks soon, but not soon enough for who waits */
	WORKER_SLEEPS,
} WorkerSleep;

/* Whether fenced fills are possible; uncache.stat shows it as "fence". */
typedef enum FenceState
{
	FENCE_UNKNOWN,				/* the node has not been asked yet */
	FENCE_LOADING,				/* its functions are being loaded */
	FENCE_NONE,					/* no functions there: keys are deleted with UNLINK */
	FENCE_IMPOSSIBLE,			/* asked for, but the node can't; likewise */
	FENCE_SUPERSEDED,			/* functions there; another server's readers fill instead */
	FENCE_NO_EPOCH,				/* functions there, but every fill is refused */
	FENCE_SETTING,				/* likewise, an epoch is under way */
	FENCE_ON,
} FenceState;

/* What the worker knows of the node's fence, from its last status. */
typedef struct FenceStatus
{
	pg_atomic_uint32 state;		/* FenceState: the least of all nodes' */
	pg_atomic_uint32 any_on;	/* whether some node's is FENCE_ON */
	pg_atomic_uint64 stored;	/* fills, since the functions were loaded */
	pg_atomic_uint64 refused;
	pg_atomic_uint64 beats;
} FenceStatus;

typedef struct DatabaseState
{
	/*
	 * The launcher writes these under Shared->lock and database->lock; readable without
	 * them.
	 */
	pg_atomic_uint32 dboid;		/* 0: the slot is free */
	pg_atomic_uint32 assignment;	/* how often dboid was written */

	/*
	 * How many sessions want this database without a worker for a while
	 * (DROP, RENAME, use as template).  Written under Shared->lock by
	 * utility_hook.c; while it is above 0 the launcher starts no worker.
	 */
	int			holds;

	/*
	 * What a worker that ends because of a hold leaves behind: LeftBehind.  Who takes the
	 * hold resets it under Shared->lock; worker writes.
	 */
	pg_atomic_uint32 left_behind;

	/* Ask the worker to end, to be started again with fresh settings. */
	pg_atomic_uint32 restart_requested;

	/*
	 * The launcher asks the worker to give up the slot if it is idle (worker_yield.c); the
	 * worker clears it.  Since when the worker has had nothing to deliver, by the clock
	 * of clock.h, or 0 while it has: worker writes.
	 */
	pg_atomic_uint32 yield_requested;
	pg_atomic_uint64 idle_since;

	LWLock	   *lock;			/* covers the group below */
	ProcNumber	worker_proc;	/* INVALID_PROC_NUMBER: none; worker writes */
	pid_t		worker_pid;		/* 0: none; worker writes */
	Ring		ring;
	char		endpoint[256];	/* Redis address without secrets; worker writes */
	char		last_error[256];	/* worker writes */
	TimestampTz last_error_at;	/* 0: never */

	pg_atomic_uint32 state;		/* WorkerState; worker writes */

	/* Whether any node is connected: the worker takes what is put into the ring. */
	pg_atomic_uint32 serving;	/* worker writes */
	pg_atomic_uint32 sleep;		/* WorkerSleep; worker writes */

	/*
	 * 0, or the longest wait in ms that was in vain: nobody waits that is not
	 * ready to wait for longer, until an answer of Redis has come back in half
	 * that time.  Set by who waited in vain, cleared by the worker.
	 */
	pg_atomic_uint32 breaker;

	/* Which of the rotating tables takes new rows; worker writes. */
	pg_atomic_uint32 current_table;

	/*
	 * How often somebody has locked a table to write to it when it was not the
	 * current one any more; written under that lock (outbox_truncate.c).
	 */
	pg_atomic_uint32 late_writers[OUTBOX_TABLES];

	/*
	 * Set by committers whose rows are not in the ring, after the commit is
	 * visible; the worker clears a bit, then takes the snapshot for its scan.
	 */
	pg_atomic_uint32 any_dirty;
	pg_atomic_uint32 dirty[OUTBOX_TABLES][DIRTY_WORDS];

	/* Set by committers who left notes, or relied on some (outbox_overflow.h). */
	pg_atomic_uint32 note_dirty;

	/* A COMMIT PREPARED or the like: look into outbox_side. */
	pg_atomic_uint32 side_dirty;

	/*
	 * uncache.wait(): a caller draws the next ticket; the worker answers with
	 * the highest ticket before whose drawing everything is delivered.  Tickets are
	 * drawn under database->lock, and void when the slot has got another assignment.
	 */
	pg_atomic_uint64 barrier_drawn;
	pg_atomic_uint64 barrier_done;
	ConditionVariable barrier_cv;

	/*
	 * uncache.discard_backlog(): tickets drawn by callers and answered by the worker,
	 * as above, and how many callers still wait (on barrier_cv, too); without one
	 * nothing is discarded.  No ticket outlives the assignment of the slot to its
	 * database.  One caller at a time, which holds a heavyweight lock for it, writes what is to
	 * be discarded before it draws.
	 */
	pg_atomic_uint64 discard_drawn;
	pg_atomic_uint64 discard_done;
	pg_atomic_uint32 discard_callers;
	pg_atomic_uint64 discard_xid;	/* a transaction; 0: all */
	pg_atomic_uint64 discarded; /* transactions, ever; worker writes */

	/* uncache.reclaim_fence(), likewise. */
	pg_atomic_uint64 reclaim_drawn;
	pg_atomic_uint64 reclaim_done;
	pg_atomic_uint32 reclaim_callers;

	/*
	 * Which outbox rows are delivered (delivery_map.h): the worker's dynamic shared
	 * memory; DSM_HANDLE_INVALID when there is none, then everything in the
	 * outbox counts as undelivered.  Covered by lock.
	 */
	dsa_handle	delivered_area;
	dsa_pointer delivered_root;

	FenceStatus fence;			/* worker writes */
	DatabaseCounters	stats;
} DatabaseState;

typedef enum WaitState
{
	WAIT_NONE,					/* worker: waiting is of no use, go on */
	WAIT_PENDING,				/* owner waits, or will */
	WAIT_ANSWERED,				/* worker: delivered */
	WAIT_GIVEN_UP,				/* worker: exits or has lost Redis */
} WaitState;

/*
 * One per PGPROC, for wait_slots.c.  State, rows left and a generation are one word,
 * so that a change of it is a change for the wait that was looked at, or none:
 *
 *		| generation: 30 bits | rows not delivered yet: 32 | WaitState: 2 |
 *
 * The owner writes dboid and xid before it writes a word with a new generation, in
 * PRE_COMMIT, so before its commit can be seen by anyone.  The worker reads the
 * word first, then dboid and xid, and changes the word by compare-and-exchange: so
 * a slot that was reused by a later commit is never answered for an earlier one.
 */
typedef struct WaitSlot
{
	pg_atomic_uint64 word;
	pg_atomic_uint32 dboid;
	/* 1 from before the commit is visible until the worker was told of it */
	pg_atomic_uint32 handing_over;
	pg_atomic_uint64 xid;		/* top-level full transaction id */
} WaitSlot;

typedef struct Shared
{
	LWLock	   *lock;
	/* ProcNumber + 1; 0: no launcher, which writes it */
	pg_atomic_uint32 launcher_proc;

	/*
	 * Databases that the launcher should look into, as launch_request() packs them; 0 is
	 * an empty place.  Sessions fill places, the launcher empties them.  Few ask at the
	 * same time; when all places are taken the launcher is told to look everywhere
	 * instead.
	 */
	pg_atomic_uint64 requests[32];
	pg_atomic_uint32 look_everywhere;
	/* Answer of the last probe (database_probe.c), which writes it: dboid * 2 + found. */
	pg_atomic_uint64 probed;

	/* From here on: written once, while shared memory is made. */
	char		incarnation[17];	/* hexadecimal; see incarnation.h */
	char		lineage[17];	/* likewise; see lineage.h */
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

/* Raise an ERROR for a function, "what", that is of no use without preloading. */
extern void shmem_require_preload(const char *what);

/*
 * The slot that serves a database, or NULL.  Takes no lock: may be used where
 * nothing may fail.  Who needs to be sure looks at dboid again under database->lock.
 */
extern DatabaseState *shmem_find_database(Oid dboid);
extern DatabaseState *shmem_my_database(void);	/* of MyDatabaseId */
extern DatabaseState *shmem_database(int i);

/* Make a slot serve a database, or nobody; the caller holds Shared->lock. */
extern void shmem_assign_database(DatabaseState *database, Oid dboid);

/* For a worker: what uncache.stat is to show as the last error, as of now. */
extern void shmem_note_error(DatabaseState *database, const char *error);

/* Process id of the slot's worker; 0: none. */
extern pid_t shmem_worker_pid(DatabaseState *database);

/* NULL where the library is not preloaded, and in auxiliary processes. */
extern WaitSlot *shmem_my_wait_slot(void);

/*
 * Ask the launcher to look into a database; "written": it has invalidations that nobody
 * delivers, so it goes before databases that have none.  May be used where nothing may
 * fail.
 */
extern void shmem_request_launch(Oid dboid, bool written);

/* A request as Shared->requests has it: the database's OID, and whether it is written. */
#define LAUNCH_WRITTEN		((uint64) 1 << 32)
#define launch_request(dboid, written)	((uint64) (dboid) | ((written) ? LAUNCH_WRITTEN : 0))
#define launch_request_dboid(request)	((Oid) ((request) & PG_UINT32_MAX))

/* Set the latch of a slot's worker, of the launcher; no-op without one. */
extern void shmem_wake_worker(DatabaseState *database);
extern void shmem_wake_launcher(void);

#endif							/* UNCACHE_SHMEM_H */
