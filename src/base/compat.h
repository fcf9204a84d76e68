/*
 * compat.h
 *	  The newest spelling of a PostgreSQL API, brought to older majors.
 *
 * This is the only file that looks at PG_VERSION_NUM.  The code elsewhere is
 * written for the newest major; what an older one spells differently is
 * translated here.
 */
#ifndef UNCACHE_COMPAT_H
#define UNCACHE_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "pg_uncache needs PostgreSQL 15 or later"
#endif

#include <inttypes.h>			/* PRIx64; postgres.h includes it from 18 on */

#include "storage/proc.h"
#include "utils/wait_event.h"

/* 19: signal handlers have a second argument, which the system's SIG_IGN does not have. */
#ifndef PG_SIG_IGN
#define PG_SIG_IGN	SIG_IGN
#endif

#if PG_VERSION_NUM < 190000
#include "access/tableam.h"
#include "commands/dbcommands.h"	/* get_database_name(); in utils/lsyscache.h from 19 on */

/* A worker that DROP DATABASE and the like may end; earlier, we end it ourselves. */
#define BGWORKER_INTERRUPTIBLE	0

#define SO_NONE		0
#define table_beginscan(rel, snapshot, nkeys, key, flags) \
	(AssertMacro((flags) == SO_NONE), table_beginscan(rel, snapshot, nkeys, key))
#endif

/*
 * How many background workers are registered with the postmaster: those of a library, or
 * those of all others.  For the postmaster, before it has started any.
 */
#include "postmaster/bgworker_internals.h"
static inline int
bgworkers_registered(const char *library, bool of_library)
{
	int			count = 0;
#if PG_VERSION_NUM >= 180000
	dlist_iter	iter;

	dlist_foreach(iter, &BackgroundWorkerList)
	{
		RegisteredBgWorker *rw = dlist_container(RegisteredBgWorker, rw_lnode, iter.cur);
#else
	slist_iter	iter;

	slist_foreach(iter, &BackgroundWorkerList)
	{
		RegisteredBgWorker *rw = slist_container(RegisteredBgWorker, rw_lnode, iter.cur);
#endif
		if ((strcmp(rw->rw_worker.bgw_library_name, library) == 0) == of_library)
			count++;
	}
	return count;
}

/*
 * Declare a C function of the SQL surface.  Before 16 PG_FUNCTION_INFO_V1 alone
 * leaves it hidden.
 */
#define SQL_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

#if PG_VERSION_NUM < 180000
#define pg_noreturn		pg_attribute_noreturn()
#endif

#if PG_VERSION_NUM < 170000
#define MyProcNumber	(MyProc->pgprocno)
#define INVALID_PROC_NUMBER (-1)
typedef int ProcNumber;
#define GetPGProcByNumber(n) (&ProcGlobal->allProcs[(n)])

#include "storage/latch.h"
#define CreateWaitEventSet(resowner, n) CreateWaitEventSet(TopMemoryContext, n)

/* Before 17 the wait events of extensions have no names of their own. */
static inline uint32
WaitEventExtensionNew(const char *name)
{
	return PG_WAIT_EXTENSION;
}
#endif

#if PG_VERSION_NUM >= 160000
#include "common/relpath.h"		/* RelFileNumber */
#define RelationGetFileNumber(rel)	((rel)->rd_locator.relNumber)
#else
typedef Oid RelFileNumber;
#define RelFileLocator	RelFileNode
#define RelationGetFileNumber(rel)	((rel)->rd_node.relNode)
#endif

#if PG_VERSION_NUM < 160000
#include "catalog/pg_database.h"
#include "storage/buffile.h"
#include "storage/relfilenode.h"
#include "utils/acl.h"

/* Before 16 every kind of object has a function of its own: only these two here. */
#define object_ownercheck(classid, objectid, roleid) \
	((classid) == DatabaseRelationId ? \
	 pg_database_ownercheck(objectid, roleid) : \
	 (AssertMacro((classid) == RelationRelationId), \
	  pg_class_ownercheck(objectid, roleid)))

#define object_aclcheck(classid, objectid, roleid, mode) \
	(AssertMacro((classid) == ProcedureRelationId), \
	 pg_proc_aclcheck(objectid, roleid, mode))

/* Minor releases of 15 may not change the old function's signature. */
#define EnableDisableTrigger(rel, tgname, tgparent, fires_when, skip_system, recurse, lockmode) \
	EnableDisableTriggerNew2(rel, tgname, tgparent, fires_when, skip_system, recurse, lockmode)

static inline void
BufFileReadExact(BufFile *file, void *ptr, size_t size)
{
	if (BufFileRead(file, ptr, size) != size)
		elog(ERROR, "could not read from a temporary file");
}
#endif

/*
 * heap_getattr() for a row of a table.  In minor releases from 15.20 and its like on, the
 * inlined one calls a function that earlier servers of the same major do not have, and this
 * library would not load there.  What that function checks concerns composite values only.
 */
#include "access/htup_details.h"
static inline Datum
row_getattr(HeapTuple row, int attnum, TupleDesc desc, bool *isnull)
{
	Assert(attnum > 0 && attnum <= desc->natts);
	if (attnum > (int) HeapTupleHeaderGetNatts(row->t_data))
		return getmissingattr(desc, attnum, isnull);
	return fastgetattr(row, attnum, desc, isnull);
}

/* ON EMPTY and ON ERROR of JSON_VALUE() and the like came with 17. */
#if PG_VERSION_NUM >= 170000
#define is_json_behavior(node)	IsA(node, JsonBehavior)
#else
#define is_json_behavior(node)	false
#endif

/* Virtual generated columns came with 18. */
#if PG_VERSION_NUM >= 180000
#define attribute_is_virtual(att)	((att)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define attribute_is_virtual(att)	false
#endif

#endif							/* UNCACHE_COMPAT_H */
