/*
 * lineage.c
 *	  The lives of the server: which is this, and which lost no commit before it.
 *
 * Each life of the server draws an incarnation, a random name (see incarnation.h).  Lives
 * between which the server was shut down cleanly share a lineage, the incarnation of the
 * first of them; a crash begins another one.  A worker compares the server's lineage with
 * the one that its database has seen last, and so learns of a crash also when no worker
 * got to this database before the next shutdown.
 *
 * At a clean shutdown the postmaster leaves the lineage in a file, together with
 * the position of the shutdown checkpoint; at its start it takes the lineage over if
 * that is still the last checkpoint and the server was shut down.  So a file that
 * was left behind by an earlier life, copied from elsewhere, or from before a life
 * without the library means nothing, and need not be removed.
 *
 * Wherever the file is missing or can't be read or written a new lineage begins,
 * as after a crash: then too much is deleted from the cache, never too little.  A
 * promotion is not seen here; it has a timeline of its own (incarnation.c).
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "base/compat.h"
#include "shmem/shmem_int.h"

#define LINEAGE_FILE	PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_uncache.lineage"

/* Lineage, checkpoint and the cluster's own number. */
#define LINEAGE_WRITE	"%s " UINT64_FORMAT " " UINT64_FORMAT "\n"
#define LINEAGE_READ	"%16[0-9a-f] " UINT64_FORMAT " " UINT64_FORMAT

/* Whether the server is, or was, shut down; and where its last checkpoint is. */
static bool
is_shut_down(uint64 *checkpoint, uint64 *system)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		clean = crc_ok && control->state == DB_SHUTDOWNED;

	*checkpoint = control->checkPoint;
	*system = control->system_identifier;
	pfree(control);
	return clean;
}

static bool
write_file(const char *path, const char *lineage, uint64 checkpoint, uint64 system)
{
	FILE	   *file = AllocateFile(path, PG_BINARY_W);
	bool		ok;

	if (file == NULL)
		return false;
	ok = fprintf(file, LINEAGE_WRITE, lineage, checkpoint, system) > 0;
	return FreeFile(file) == 0 && ok;
}

/* In the postmaster, when all its children are gone. */
static void
leave_file(int code, Datum arg)
{
	Shared	   *shared = (Shared *) DatumGetPointer(arg);
	const char *temporary = LINEAGE_FILE ".tmp";
	uint64		checkpoint;
	uint64		system;

	if (code != 0 || !is_shut_down(&checkpoint, &system))
		return;
	if (write_file(temporary, shared->lineage, checkpoint, system) &&
		durable_rename(temporary, LINEAGE_FILE, LOG) == 0)
		return;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", LINEAGE_FILE),
			 errdetail("The next start of the server will count as one after a crash.")));
	unlink(temporary);
}

/* The lineage in the file, if the file is from the last shutdown. */
static bool
read_file(char *lineage)
{
	FILE	   *file;
	uint64		checkpoint;
	uint64		system;
	uint64		checkpoint_in_file;
	uint64		system_in_file;
	bool		valid;

	if (!is_shut_down(&checkpoint, &system))
		return false;
	file = AllocateFile(LINEAGE_FILE, PG_BINARY_R);
	if (file == NULL)
		return false;
	valid = fscanf(file, LINEAGE_READ, lineage, &checkpoint_in_file, &system_in_file) == 3 &&
		strlen(lineage) == sizeof(((Shared *) NULL)->lineage) - 1 &&
		checkpoint_in_file == checkpoint && system_in_file == system;
	FreeFile(file);
	return valid;
}

static void
draw_incarnation(Shared *shared)
{
	uint64		random;

	if (!pg_strong_random(&random, sizeof(random)))
		elog(FATAL, "could not get random bytes for the incarnation");
	snprintf(shared->incarnation, sizeof(shared->incarnation), "%016" PRIx64, random);
}

void
lineage_begin(Shared *shared)
{
	char		lineage[sizeof(shared->lineage)];

	draw_incarnation(shared);
	strlcpy(shared->lineage, read_file(lineage) ? lineage : shared->incarnation,
			sizeof(shared->lineage));
	Assert(strlen(shared->lineage) == sizeof(shared->lineage) - 1);
	on_shmem_exit(leave_file, PointerGetDatum(shared));
}
