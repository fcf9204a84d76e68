/*
 * database_probe.c
 *	  Which databases can be served: the list of them, and a look into each.
 *
 * The launcher is connected to no database, so of catalogs it reads only pg_database: at
 * most once in a turn, and only in a turn that needs it.  The list may be out of date as
 * soon as it is read: a process that connects to a database of the list must expect it
 * to be gone.
 *
 * Extensions stand in catalogs of their database, and a process can connect to one
 * database only.  So the launcher starts a probe for each look: a process that lives for
 * some milliseconds.  A probe takes no worker slot: a server with many databases needs
 * worker slots only for those that have the extension, and a warning that they are short
 * is always about one of these.
 *
 * The probe leaves its answer in shared memory.  A probe that ends without an answer has
 * failed, and the launcher tries again later.  A launcher that was started in place of
 * another may find an answer to its predecessor: it names another database, or it is
 * true anyway.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "settings/settings.h"
#include "shmem/shmem.h"
#include "worker/worker.h"
#include "worker/worker_int.h"

/*
 * A session that copies or drops the database holds its lock.  The probe does not wait
 * for that: the launcher looks into other databases meanwhile.
 */
#define LOCK_TIMEOUT	"1s"

/* Of the launcher: the probe that is running, if there is one. */
static BackgroundWorkerHandle *probe_handle = NULL;
static Oid	probe_dboid = InvalidOid;

/* Made anew by each turn that needs it; means nothing before list_is_read. */
static MemoryContext list_context;
static List *databases = NIL;
static bool list_is_read = false;

/*
 * --------------------------------------------------------------------------
 * The list
 * --------------------------------------------------------------------------
 */

static void
add_database(Form_pg_database form)
{
	MemoryContext old = MemoryContextSwitchTo(list_context);
	int			rank = settings_database_rank(NameStr(form->datname));
	Database   *database;

	if (rank < 0)
	{
		MemoryContextSwitchTo(old);
		return;
	}
	database = palloc(sizeof(Database));
	database->dboid = form->oid;
	database->name = form->datname;
	database->rank = rank;
	databases = lappend(databases, database);
	MemoryContextSwitchTo(old);
}

static int
compare_ranks(const ListCell *a, const ListCell *b)
{
	return ((Database *) lfirst(a))->rank - ((Database *) lfirst(b))->rank;
}

static void
read_databases(void)
{
	MemoryContext old = CurrentMemoryContext;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate && !database_is_invalid_form(form))
			add_database(form);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	list_sort(databases, compare_ranks);
	list_is_read = true;
}

void
database_begin_turn(void)
{
	list_context = CurrentMemoryContext;
	databases = NIL;
	list_is_read = false;
}

List *
database_list(void)
{
	if (!list_is_read)
		read_databases();
	return databases;
}

const Database *
database_find(Oid dboid)
{
	ListCell   *lc;

	foreach(lc, database_list())
	{
		const Database *database = lfirst(lc);

		if (database->dboid == dboid)
			return database;
	}
	return NULL;
}

/*
 * --------------------------------------------------------------------------
 * A look into one
 * --------------------------------------------------------------------------
 */

bool
database_start_process(const char *kind, const char *function, Oid dboid, Datum arg,
					   BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_uncache %s of database %u", kind, dboid);
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_uncache %s", kind);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BGWORKER_INTERRUPTIBLE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_uncache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	worker.bgw_main_arg = arg;
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	return started;
}

bool
database_probe_start(Oid dboid)
{
	Assert(probe_handle == NULL);
	pg_atomic_write_u64(&UncacheShmem->probed, 0);
	probe_dboid = dboid;
	return database_start_process("probe", "uncache_probe_main", dboid, ObjectIdGetDatum(dboid),
								  &probe_handle);
}

ProbeResult
database_probe_result(void)
{
	uint64		probed;
	pid_t		pid;

	Assert(probe_handle != NULL);
	if (GetBackgroundWorkerPid(probe_handle, &pid) != BGWH_STOPPED)
		return PROBE_RUNNING;
	pfree(probe_handle);
	probe_handle = NULL;

	/* The OID twice, plus 1 where the extension was found (uncache_probe_main()). */
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
