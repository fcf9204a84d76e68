/*
 * pg_uncache.c
 *	  Module entry.  Keeps a Redis cache consistent with the database.
 *
 * The map.  A call goes from left to right and downwards; a file includes only
 * headers of the files it stands on.  Only a latch and counters flow back.
 *
 *	 backend
 *		trigger.c ---> rule.c ---> template.c ---> keypattern.c
 *		   |
 *		   +---> pending.c ---> item.c
 *					|
 *				 xact.c ---> outbox.c     before commit: the truth
 *					 \-----> ring.c       after commit: the hint
 *
 *	 worker
 *		launcher.c ..starts..> worker.c ---> deliver.c ---> redis.c
 *
 *	 under all of them
 *		shmem.c, stats.c, settings.c, redisurl.c, compat.h
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "drop_notice.h"
#include "launcher.h"
#include "lifecycle.h"
#include "secrets.h"
#include "settings.h"
#include "shmem.h"
#include "xact.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	bool		preloaded = process_shared_preload_libraries_in_progress;

	secrets_init();
	settings_define(preloaded);
	xact_init();
	if (preloaded)
	{
		shmem_install_hooks();
		launcher_register();
	}
	lifecycle_init();
	drop_notice_init();
}
