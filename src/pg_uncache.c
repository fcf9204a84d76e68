/*
 * pg_uncache.c
 *	  Module entry.  Keeps a Redis cache consistent with the database.
 *
 * The map (README.md beside this file has a line for each file).  A folder calls itself
 * and those before it in this order:
 *
 *		base redis settings shmem topology template pending rules outbox fence
 *		delivery commit worker monitoring
 *
 *	 in a session							 in the worker of its database
 *		rules: a row's change				 worker: the turn
 *		  |	template: its keys				   |	 outbox: rows that the ring has not brought
 *		pending: until the commit			   |	 delivery: batches, patterns, what follows
 *		  |									   |	 fence: keeps stale fills out
 *		commit --+--> outbox: the truth  --->  |	 topology: which servers there are
 *				 +--> shmem: ring, the hint -> |	 redis: one link to one server
 *				 +--> shmem: the wait  <-------+
 *
 * `make tidy` keeps that true.  What has to go the other way goes as a returned value, a
 * counter, a latch, or a function that was handed down (OutboxSink).
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "commit/commit.h"
#include "rules/rules.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	bool		preloaded = process_shared_preload_libraries_in_progress;

	log_mask_init();
	settings_define(preloaded);
	xact_init();
	if (preloaded)
	{
		shmem_install_hooks();
		launcher_register();
	}
	utility_hook_init();
	drop_notice_init();
}
