/*
 * pg_uncache.c
 *	  Module entry.  Keeps a Redis cache consistent with the database.
 *
 * The map.  A call goes from left to right and downwards; a file includes only
 * headers of the files it stands on.  A header *_int.h is for files of that name
 * alone.  What goes the other way:
 *
 *		a latch, an answer and counters, through shared memory
 *		the end of a part, told by whoever was given it (delivery.h)
 *		rows that are to be sent again, from delivery to outboxside and seconddelete
 *		a look at all rules, by the worker that starts and by outboxnote
 *		the incarnation and the lineage, drawn when shmem is made
 *
 *	 rules: what a row's change means
 *		trigger ----------> rule ---------> template_{parse,compile,expr,literal,
 *		   |				 |					 |				depends,class,render,pattern}
 *		   |				 |					 |
 *		   |			rule_catalog		 fixed_settings, column, keypattern, keypattern_match, keyclass, glob
 *		   |
 *		   |	as SQL sees them: attach, attach_notice, invalidate, render, row_change,
 *		   |		rule_check, rule_key, rule_problems, rule_view, sizelimit
 *		   |	as DDL meets them: ddl, ddl_drop, ddl_start, ddl_objects, drop_notice, rule_guard,
 *		   |		rule_partition, rule_rows
 *		   |
 *	 transactions: from there into the outbox, in the backend
 *		pending --> xact --+--> outbox --> outboxnote		before commit: the truth
 *		   |			   +--> strict						before commit, if asked
 *	  pendinglog		   +--> handover --> ring			after commit: the hint
 *		   |			   +--> commitwait --> waiters		the wait
 *		 item
 *
 *	 delivery: from there to Redis, in the worker
 *		worker --+--> outboxscan, outboxside, outboxnote	reads the outbox
 *				 +--> deliver --> command, patternscan		sends
 *				 |		 |			 |			  +--> patternpass --> patternsweep, patternset,
 *				 |		 |			 |									patternunlink, scanstep
 *				 |		 |			 +--> commandsend --> commandend
 *				 |		 |			 +--> replicas, slotstate, lacking, refusal
 *				 |		 +--> deliverpieces
 *				 |		 +--> delivery --> deliveragain		what becomes of a row
 *				 |		 +--> seconddelete, doubt, refusalask
 *				 +--> fence --> fencelook, standing			keeps fills out
 *				 +--> beat, incarnation --> lineage			likewise
 *				 +--> rotation --> emptying --> delivered	empties the outbox
 *				 +--> barrier								answers wait()
 *				 +--> comeback								nodes come and go
 *				 +--> yield									makes room for another database
 *				 +--> idle --> linkset						waits for the next turn
 *				 +--> connection --> target --+--> node		which servers there are
 *											  +--> sentinel
 *											  +--> clusternodes --> slotwatch, cluster
 *									 node --> nodeping, nodescan, settings_redis, redis --> redisturn, redisreply,
 *												redishello, redisnet, redisresolve, redistls, redisurl
 *
 *	 processes
 *		launcher --> place, probe, databases, served, backoff.h; lifecycle --> hold; ddl_start --> drop_guard
 *
 *	 what can be asked
 *		views, backlog, stats; functions, requests; snapshot --> arrived; install (once, by the script)
 *
 *	 under all of them
 *		opening, shmem, settings, redisurl_setting, secrets, trouble, attempt, workerlog,
 *		key_encoding.h, clock.h, log_reasons.h, version.h, compat.h; faultpoint in test builds
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "rules/drop_notice.h"
#include "worker/worker.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "commit/commit.h"

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
