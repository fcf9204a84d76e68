/*
 * databases.c
 *	  Which databases can be served, for the launcher.
 *
 * The launcher is connected to no database and so reads pg_database only, at most
 * once in a turn and only in a turn that needs it.  What it read may be out of date
 * at once: who connects to a database must expect it to be gone.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "worker/databases.h"
#include "settings/settings.h"

static MemoryContext context;
static List *databases = NIL;
static bool known = false;

static void
add_database(Form_pg_database form)
{
	MemoryContext old = MemoryContextSwitchTo(context);
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
	known = true;
}

void
databases_begin_turn(void)
{
	context = CurrentMemoryContext;
	databases = NIL;
	known = false;
}

List *
databases_list(void)
{
	if (!known)
		read_databases();
	return databases;
}

const Database *
databases_find(Oid dboid)
{
	ListCell   *lc;

	foreach(lc, databases_list())
	{
		const Database *database = lfirst(lc);

		if (database->dboid == dboid)
			return database;
	}
	return NULL;
}
