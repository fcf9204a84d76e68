/*
 * shmem.c
 *	  Making and finding what the processes share (see shmem.h).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/log_text.h"
#include "settings/settings.h"
#include "shmem/shmem_int.h"

#define TRANCHE			"pg_uncache"
#define DELIVERED_TRANCHE	"pg_uncache_delivered"

/* Below this a ring could not hold a single entry of a usual size. */
#define RING_MIN_BYTES	256

Shared	   *UncacheShmem = NULL;
DatabaseState *MyDatabaseState = NULL;

static shmem_request_hook_type next_shmem_request = NULL;
static shmem_startup_hook_type next_shmem_startup = NULL;

static Size
ring_bytes(void)
{
	Size		bytes = (Size) setting_ring_size * 1024 / setting_max_database_workers;

	return MAXALIGN_DOWN(Max(bytes, RING_MIN_BYTES));
}

static Size
shared_bytes(void)
{
	Size		size = MAXALIGN(sizeof(Shared));

	size = add_size(size, MAXALIGN(mul_size(MaxBackends, sizeof(WaitSlot))));
	size = add_size(size, MAXALIGN(mul_size(RULE_STATS_ENTRIES, sizeof(RuleStats))));
	size = add_size(size, MAXALIGN(mul_size(setting_max_database_workers, sizeof(DatabaseState))));
	size = add_size(size, mul_size(setting_max_database_workers, ring_bytes()));
	return size;
}

static void
request_shmem(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(shared_bytes());
	RequestNamedLWLockTranche(TRANCHE, 1 + setting_max_database_workers);
	/* Only its number is used: every process can look up the name that belongs to it. */
	RequestNamedLWLockTranche(DELIVERED_TRANCHE, 1);
}

static void
init_wait_slot(WaitSlot *wait)
{
	pg_atomic_init_u64(&wait->word, WAIT_NONE);
	pg_atomic_init_u32(&wait->dboid, InvalidOid);
	pg_atomic_init_u32(&wait->handing_over, 0);
	pg_atomic_init_u64(&wait->xid, 0);
}

static void
init_rule_stats(RuleStats *entry)
{
	pg_atomic_init_u64(&entry->id, 0);
	pg_atomic_init_u64(&entry->keys, 0);
	pg_atomic_init_u64(&entry->existed, 0);
	pg_atomic_init_u64(&entry->last_at, 0);
}

static void
init_database_state(DatabaseState *database, LWLock *lock, char *ring, Size ring_size)
{
	memset(database, 0, sizeof(DatabaseState));
	pg_atomic_init_u32(&database->dboid, InvalidOid);
	pg_atomic_init_u32(&database->assignment, 0);
	pg_atomic_init_u32(&database->restart_requested, 0);
	pg_atomic_init_u32(&database->left_behind, LEFT_UNKNOWN);
	pg_atomic_init_u32(&database->yield_requested, 0);
	pg_atomic_init_u64(&database->idle_since, 0);
	database->lock = lock;
	database->worker_proc = INVALID_PROC_NUMBER;
	database->delivered_area = DSM_HANDLE_INVALID;
	ring_init(&database->ring, ring, ring_size);
	pg_atomic_init_u32(&database->state, WORKER_NONE);
	pg_atomic_init_u32(&database->serving, 0);
	pg_atomic_init_u32(&database->sleep, WORKER_AWAKE);
	pg_atomic_init_u32(&database->breaker, 0);
	pg_atomic_init_u32(&database->current_table, 0);
	pg_atomic_init_u32(&database->unwritable_tables, 0);
	pg_atomic_init_u32(&database->any_dirty, 0);
	for (int t = 0; t < OUTBOX_TABLES; t++)
		pg_atomic_init_u32(&database->late_writers[t], 0);
	for (int t = 0; t < OUTBOX_TABLES; t++)
		for (int w = 0; w < DIRTY_WORDS; w++)
			pg_atomic_init_u32(&database->dirty[t][w], 0);
	pg_atomic_init_u32(&database->markers_dirty, 0);
	pg_atomic_init_u32(&database->side_dirty, 0);
	pg_atomic_init_u64(&database->barrier_drawn, 0);
	pg_atomic_init_u64(&database->barrier_done, 0);
	ConditionVariableInit(&database->barrier_cv);
	pg_atomic_init_u64(&database->discard_drawn, 0);
	pg_atomic_init_u64(&database->discard_done, 0);
	pg_atomic_init_u32(&database->discard_callers, 0);
	pg_atomic_init_u64(&database->discard_xid, 0);
	pg_atomic_init_u64(&database->discarded, 0);
	pg_atomic_init_u64(&database->reclaim_drawn, 0);
	pg_atomic_init_u64(&database->reclaim_done, 0);
	pg_atomic_init_u32(&database->reclaim_callers, 0);
	pg_atomic_init_u64(&database->question_drawn, 0);
	pg_atomic_init_u64(&database->question_done, 0);
	pg_atomic_init_u32(&database->question_callers, 0);
	pg_atomic_init_u32(&database->fence.state, FENCE_UNKNOWN);
	pg_atomic_init_u32(&database->fence.any_on, 0);
	pg_atomic_init_u64(&database->fence.stored, 0);
	pg_atomic_init_u64(&database->fence.refused, 0);
	pg_atomic_init_u64(&database->fence.beats, 0);
	counters_init(&database->stats);
}

/* Hand out the next piece of the allocation. */
static void *
carve(char **from, Size size)
{
	void	   *piece = *from;

	*from += MAXALIGN(size);
	return piece;
}

static void
init_shared(Shared *shared)
{
	char	   *next = (char *) shared;
	char	   *ring;
	LWLockPadded *locks = GetNamedLWLockTranche(TRANCHE);

	carve(&next, sizeof(Shared));
	shared->lock = &locks[0].lock;
	pg_atomic_init_u32(&shared->launcher_proc, 0);
	for (int i = 0; i < lengthof(shared->requests); i++)
		pg_atomic_init_u64(&shared->requests[i], 0);
	pg_atomic_init_u32(&shared->look_everywhere, 0);
	pg_atomic_init_u64(&shared->probed, 0);
	lineage_begin(shared);
	shared->dsa_tranche = GetNamedLWLockTranche(DELIVERED_TRANCHE)->lock.tranche;
	shared->ndatabases = setting_max_database_workers;
	shared->nwaitslots = MaxBackends;
	Assert(shared->ndatabases > 0 && shared->nwaitslots > 0);
	shared->wait_slots = carve(&next, shared->nwaitslots * sizeof(WaitSlot));
	shared->rule_stats = carve(&next, RULE_STATS_ENTRIES * sizeof(RuleStats));
	shared->databases = carve(&next, shared->ndatabases * sizeof(DatabaseState));
	ring = carve(&next, shared->ndatabases * ring_bytes());

	for (int i = 0; i < shared->nwaitslots; i++)
		init_wait_slot(&shared->wait_slots[i]);
	for (int i = 0; i < RULE_STATS_ENTRIES; i++)
		init_rule_stats(&shared->rule_stats[i]);
	for (int i = 0; i < shared->ndatabases; i++)
		init_database_state(&shared->databases[i], &locks[1 + i].lock,
							ring + i * ring_bytes(), ring_bytes());
	Assert(ring + shared->ndatabases * ring_bytes() <= (char *) shared + shared_bytes());
}

/*
 * The launcher is registered by now, or there was no room for it and PostgreSQL has
 * said so without naming pg_uncache.  Besides it there is a worker for each database that
 * is served, and now and then a process that looks into a database.
 */
static void
warn_of_processes(void)
{
	int			needed = 1 + setting_max_database_workers + 1;
	int			others = bgworkers_registered("pg_uncache", false);
	bool		launcher = bgworkers_registered("pg_uncache", true) > 0;

	if (launcher && others + needed <= max_worker_processes)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg(launcher ? "max_worker_processes (%d) may be too small for pg_uncache" :
					"max_worker_processes (%d) is too small for pg_uncache", max_worker_processes),
			 errdetail("pg_uncache needs up to %d background workers beside the %d of others; "
					   "those that it does not get deliver nothing.", needed, others),
			 errhint("Increase max_worker_processes, or lower uncache.max_database_workers (%d).",
					 setting_max_database_workers)));
}

static void
startup_shmem(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	UncacheShmem = ShmemInitStruct(TRANCHE, shared_bytes(), &found);
	if (!found)
		init_shared(UncacheShmem);
	LWLockRelease(AddinShmemInitLock);
	if (!found && !IsBinaryUpgrade)
		warn_of_processes();
}

void
shmem_install_hooks(void)
{
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

void
shmem_require_preload(const char *what)
{
	if (UncacheShmem == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs pg_uncache in shared_preload_libraries", what),
				 errhint("Append pg_uncache to shared_preload_libraries in postgresql.conf "
						 "and restart the server.")));
}

/*
 * The launcher calls this, and a worker that finds its database without the extension.
 * Whatever the ring held for the database before is dropped.
 */
void
shmem_assign_database(DatabaseState *database, Oid dboid)
{
	Oid			before = pg_atomic_read_u32(&database->dboid);

	Assert(LWLockHeldByMeInMode(UncacheShmem->lock, LW_EXCLUSIVE));
	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	ring_init(&database->ring, database->ring.data, database->ring.size);
	database->endpoint[0] = '\0';
	database->last_error[0] = '\0';
	database->last_error_at = 0;
	memset(&database->survey, 0, sizeof(Survey));
	database->delivered_area = DSM_HANDLE_INVALID;
	pg_atomic_write_u32(&database->state, WORKER_NONE);
	pg_atomic_write_u32(&database->serving, 0);
	pg_atomic_write_u32(&database->breaker, 0);
	pg_atomic_write_u32(&database->current_table, 0);
	pg_atomic_write_u32(&database->unwritable_tables, 0);
	pg_atomic_write_u32(&database->restart_requested, 0);
	pg_atomic_write_u32(&database->yield_requested, 0);
	pg_atomic_write_u64(&database->idle_since, 0);
	/* What sessions of one database have asked for must not be done to the next. */
	pg_atomic_write_u64(&database->discard_done, pg_atomic_read_u64(&database->discard_drawn));
	pg_atomic_write_u64(&database->reclaim_done, pg_atomic_read_u64(&database->reclaim_drawn));
	pg_atomic_write_u64(&database->question_done, pg_atomic_read_u64(&database->question_drawn));
	pg_atomic_fetch_add_u32(&database->assignment, 1);
	pg_atomic_write_u32(&database->dboid, dboid);
	LWLockRelease(database->lock);
	counters_init(&database->stats);
	if (OidIsValid(before) && before != dboid)
		counters_forget_database(before);
}

void
shmem_note_error(DatabaseState *database, const char *error)
{
	Assert(database != NULL && !LWLockHeldByMe(database->lock));
	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	log_text_copy(database->last_error, sizeof(database->last_error), error);
	database->last_error_at = GetCurrentTimestamp();
	LWLockRelease(database->lock);
}

void
shmem_forget_error(DatabaseState *database, const char *beginning)
{
	Assert(!LWLockHeldByMe(database->lock));
	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	if (strncmp(database->last_error, beginning, strlen(beginning)) == 0)
	{
		database->last_error[0] = '\0';
		database->last_error_at = 0;
	}
	LWLockRelease(database->lock);
}

pid_t
shmem_worker_pid(DatabaseState *database)
{
	pid_t		pid;

	Assert(!LWLockHeldByMe(database->lock));
	LWLockAcquire(database->lock, LW_SHARED);
	pid = database->worker_pid;
	LWLockRelease(database->lock);
	return pid;
}

DatabaseState *
shmem_database(int i)
{
	Assert(i >= 0 && i < UncacheShmem->ndatabases);
	return &UncacheShmem->databases[i];
}

DatabaseState *
shmem_find_database(Oid dboid)
{
	if (UncacheShmem == NULL || !OidIsValid(dboid))
		return NULL;
	for (int i = 0; i < UncacheShmem->ndatabases; i++)
	{
		if (pg_atomic_read_u32(&UncacheShmem->databases[i].dboid) == dboid)
			return &UncacheShmem->databases[i];
	}
	return NULL;
}

DatabaseState *
shmem_my_database(void)
{
	return shmem_find_database(MyDatabaseId);
}

WaitSlot *
shmem_my_wait_slot(void)
{
	if (UncacheShmem == NULL || MyProcNumber >= UncacheShmem->nwaitslots)
		return NULL;
	return &UncacheShmem->wait_slots[MyProcNumber];
}

void
shmem_request_launch(Oid dboid, bool written)
{
	uint64		request = launch_request(dboid, written);

	if (UncacheShmem == NULL)
		return;
	for (int i = 0; i < lengthof(UncacheShmem->requests); i++)
	{
		uint64		empty = 0;

		if (pg_atomic_read_u64(&UncacheShmem->requests[i]) == request)
			return;				/* asked for already */
		if (pg_atomic_compare_exchange_u64(&UncacheShmem->requests[i], &empty, request))
		{
			shmem_wake_launcher();
			return;
		}
		if (empty == request)
			return;
	}
	pg_atomic_write_u32(&UncacheShmem->look_everywhere, 1);
	shmem_wake_launcher();
}

/*
 * The latches of PGPROCs stay where they are for the life of the server, so a
 * process that is gone by now costs at most a needless wake-up of its successor.
 */
void
shmem_wake_worker(DatabaseState *database)
{
	ProcNumber	proc = database->worker_proc;

	if (proc != INVALID_PROC_NUMBER)
		SetLatch(&GetPGProcByNumber(proc)->procLatch);
}

void
shmem_wake_launcher(void)
{
	uint32		proc = pg_atomic_read_u32(&UncacheShmem->launcher_proc);

	Assert(proc <= ProcGlobal->allProcCount);
	if (proc != 0)
		SetLatch(&GetPGProcByNumber(proc - 1)->procLatch);
}
