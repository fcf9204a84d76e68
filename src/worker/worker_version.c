/*
 * worker_version.c
 *	  Telling an administrator that the library and the SQL objects differ in version.
 *
 * The library is that of the last start of the server, the objects are those of the last
 * ALTER EXTENSION pg_uncache UPDATE in this database.  Between the two steps of an upgrade,
 * or where one was forgotten, they differ.  Delivery goes on: a library works with the tables
 * of the versions before and after its own, and fills the columns of views that both know
 * (sql_row.h).  What the newer one brings is missing, so the worker says at its start which
 * step is due.  ALTER EXTENSION restarts the worker, which then forgets what it has said.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/version.h"
#include "worker/worker_int.h"

/* How last_error begins then, and nothing else that a worker notes there. */
#define DIFFERS		"library pg_uncache"

/* extversion of pg_extension, allocated in the caller's context; NULL: there is no extension. */
static char *
version_of_objects(void)
{
	Relation	catalog = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("pg_uncache"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
	{
		bool		isnull;
		Datum		value = row_getattr(row, Anum_pg_extension_extversion,
										RelationGetDescr(catalog), &isnull);

		Assert(!isnull);
		version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return version;
}

/* Of two versions such as 1.0 and 1.10, number by number: below 0, 0 or above 0. */
static int
compare_versions(const char *a, const char *b)
{
	while (*a != '\0' || *b != '\0')
	{
		char	   *rest_a;
		char	   *rest_b;
		long		number_a = strtol(a, &rest_a, 10);
		long		number_b = strtol(b, &rest_b, 10);

		if (number_a != number_b)
			return number_a < number_b ? -1 : 1;
		if (rest_a == a && rest_b == b && *a != *b)
			return strcmp(a, b);
		a = rest_a + (*rest_a != '\0');
		b = rest_b + (*rest_b != '\0');
	}
	return 0;
}

static void
tell_difference(const char *objects)
{
	char	   *text;

	if (compare_versions(UNCACHE_VERSION, objects) > 0)
		text = psprintf("library pg_uncache is version %s, the extension in this database is "
						"version %s: run ALTER EXTENSION pg_uncache UPDATE in this database",
						UNCACHE_VERSION, objects);
	else
		text = psprintf("library pg_uncache is version %s, the extension in this database is "
						"version %s: install the library of that version and restart the server",
						UNCACHE_VERSION, objects);
	Assert(strncmp(text, DIFFERS, strlen(DIFFERS)) == 0);
	shmem_note_error(MyDatabaseState, text);
	ereport(WARNING,
			(errmsg("%s", text),
			 errdetail("Invalidations are delivered meanwhile.")));
}

void
worker_version_check(void)
{
	char	   *objects;

	StartTransactionCommand();
	objects = version_of_objects();
	if (objects != NULL && strcmp(objects, UNCACHE_VERSION) != 0)
		tell_difference(objects);
	else
		shmem_forget_error(MyDatabaseState, DIFFERS);
	CommitTransactionCommand();
}
