/*
 * served_databases.c
 *	  Which databases had a worker, or needed one, before the server was restarted.
 *
 * The launcher has to probe each database, which takes a process each.  On a server with
 * many databases those with something to deliver must not wait until all others were
 * probed.  So the launcher leaves their OIDs in a file, and its successor probes these
 * first.
 *
 * The file is a hint, so it is not flushed to disk.  A database in it that is gone costs
 * nothing, and one without the extension costs a probe.  Where the file is missing,
 * damaged, or copied from another server, databases are probed in the order of the catalog.
 */
#include "postgres.h"

#include <unistd.h>

#include "pgstat.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "worker/worker_int.h"

#define SERVED_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_uncache.databases"
#define SERVED_TEMPORARY	SERVED_FILE ".tmp"

/* More databases than a server can serve, and far more than it pays to remember. */
#define SERVED_MOST		1000

List *
served_databases_read(void)
{
	FILE	   *file = AllocateFile(SERVED_FILE, PG_BINARY_R);
	List	   *dboids = NIL;
	Oid			dboid;

	if (file == NULL)
		return NIL;
	while (list_length(dboids) < SERVED_MOST && fscanf(file, "%u", &dboid) == 1)
		dboids = lappend_oid(dboids, dboid);
	FreeFile(file);
	return dboids;
}

static bool
write_file(const List *dboids)
{
	FILE	   *file = AllocateFile(SERVED_TEMPORARY, PG_BINARY_W);
	bool		ok = file != NULL;
	ListCell   *lc;

	if (file == NULL)
		return false;
	foreach(lc, dboids)
		ok = ok && fprintf(file, "%u\n", lfirst_oid(lc)) > 0;
	ok = FreeFile(file) == 0 && ok;
	return ok && rename(SERVED_TEMPORARY, SERVED_FILE) == 0;
}

void
served_databases_write(const List *dboids)
{
	static List *written = NIL; /* in TopMemoryContext */
	MemoryContext old;

	if (equal(written, dboids))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	list_free(written);
	written = list_copy(dboids);
	MemoryContextSwitchTo(old);
	if (write_file(dboids))
		return;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", SERVED_FILE),
			 errdetail("After the next start of the server the launcher looks into databases in no "
					   "particular order.")));
	(void) unlink(SERVED_TEMPORARY);
}
