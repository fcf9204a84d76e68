/*
 * database_probe.c
 *	  Looking into a database for the extension, on behalf of the launcher.
 *
 * Extensions stand in catalogs of their database, and a process can connect to one
 * database only, so each look takes a process of its own, for some milliseconds.
 * It takes no slot: a server with many databases needs slots for those only that
 * have the extension, and a warning that slots are short is always about one of
 * these.
 *
 * The answer comes back in shared memory.  A probe that ends without one has
 * failed, and the launcher tries again later.  So does the launcher that was
 * started in place of another: an answer to its predecessor names another database,
 * or is true anyway.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "worker/database_probe.h"
#include "shmem/shmem.h"

/*
 * Whoever copies or drops the database holds its lock.  The launcher looks into
 * other databases meanwhile.
 */
#define LOCK_TIMEOUT	"1s"

/* Of the launcher. */
static BackgroundWorkerHandle *probe_handle = NULL;
static Oid	probe_dboid = InvalidOid;

bool
database_probe_start(Oid dboid)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	Assert(probe_handle == NULL);
	pg_atomic_write_u64(&UncacheShmem->probed, 0);
	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_uncache probe of database %u", dboid);
	strlcpy(worker.bgw_type, "pg_uncache probe", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BGWORKER_INTERRUPTIBLE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_uncache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "uncache_probe_main", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &probe_handle);
	MemoryContextSwitchTo(old);
	probe_dboid = dboid;
	return started;
}

ProbeResult
database_probe_result(void)
{
	uint64		probed;
	pid_t		pid;

	if (GetBackgroundWorkerPid(probe_handle, &pid) != BGWH_STOPPED)
		return PROBE_RUNNING;
	pfree(probe_handle);
	probe_handle = NULL;

	probed = pg_atomic_read_u64(&UncacheShmem->probed);
	if (probed / 2 != probe_dboid)
		return PROBE_FAILED;
	return probed % 2 == 1 ? PROBE_FOUND : PROBE_ABSENT;
}

void
uncache_probe_main(Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);
	bool		found;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);

	StartTransactionCommand();
	found = OidIsValid(get_extension_oid("pg_uncache", true));
	CommitTransactionCommand();
	pg_atomic_write_u64(&UncacheShmem->probed, (uint64) dboid * 2 + (found ? 1 : 0));
	proc_exit(0);
}
