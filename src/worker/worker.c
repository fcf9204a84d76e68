/*
 * worker.c
 *	  The background process of one database that delivers to Redis.
 *
 * A turn of the main loop takes what has come (from the ring, from marked blocks,
 * from the side table), sends it, reads answers and answers waiters; then the
 * worker sleeps until its latch, its socket or a deadline wakes it.  Nothing in a
 * turn waits for Redis, and no transaction is open while the worker sleeps.
 *
 * The worker may lose its memory at any time: the outbox has it all.  When the last node
 * is lost, deliveries under way are unsent again, waiters are woken, the ring is thrown
 * away, and with the next connection the worker reads the outbox from its beginning.  When
 * the worker itself ends (exit code 1) its successor does the same.  When one of several
 * nodes is lost, the rows with keys for it wait in the outbox and all others go on; with
 * its next connection the worker reads the outbox from its beginning, too.
 *
 * While the worker serves no node, committers may skip the ring.  That is sound because the
 * worker first sets "serving" and then reads the outbox: a transaction whose committer saw
 * "serving" unset is visible to that reading.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/fault_point.h"
#include "base/version.h"
#include "delivery/delivery.h"
#include "delivery/replica_ack.h"
#include "delivery/resend.h"
#include "fence/fence.h"
#include "fence/incarnation.h"
#include "outbox/delivery_map.h"
#include "outbox/outbox_damage.h"
#include "outbox/outbox_overflow.h"
#include "outbox/outbox_rotate.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_side.h"
#include "outbox/outbox_tables.h"
#include "rules/rules.h"
#include "settings/settings_redis.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "shmem/wait_slots.h"
#include "topology/connections.h"
#include "worker/worker.h"
#include "worker/worker_int.h"

/* Before the worker tries again to make the incarnation known, where a table was locked. */
#define INCARNATION_RETRY_MS	1000

static MemoryContext turn_context;

/*
 * --------------------------------------------------------------------------
 * Begin and end
 * --------------------------------------------------------------------------
 */

static void
leave_database(int code, Datum arg)
{
	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	MyDatabaseState->worker_proc = INVALID_PROC_NUMBER;
	MyDatabaseState->worker_pid = 0;
	MyDatabaseState->delivered_area = DSM_HANDLE_INVALID;
	LWLockRelease(MyDatabaseState->lock);

	pg_atomic_write_u32(&MyDatabaseState->state, WORKER_NONE);
	pg_atomic_write_u32(&MyDatabaseState->serving, 0);
	pg_atomic_write_u32(&MyDatabaseState->stats.patterns_running, 0);
	pg_memory_barrier();
	wait_slots_give_up(MyDatabaseId);
	/* The postmaster does not tell a launcher that was started after this worker. */
	shmem_wake_launcher();
}

/*
 * A restart that was requested while this worker started is meant for it; the
 * launcher has cleared what was requested of others.
 */
static void
enter_database(void)
{
	pid_t		other;

	LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
	other = MyDatabaseState->worker_pid;
	if (other == 0)
	{
		MyDatabaseState->worker_proc = MyProcNumber;
		MyDatabaseState->worker_pid = MyProcPid;
		/* Entries from before this worker: their rows may be gone, and others have their tids. */
		MyDatabaseState->ring.taken = MyDatabaseState->ring.put;
	}
	LWLockRelease(MyDatabaseState->lock);
	if (other != 0)
		elog(ERROR, "database %u has a worker already, PID %d", MyDatabaseId, (int) other);
	before_shmem_exit(leave_database, (Datum) 0);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.worker_starts, 1);
	pg_atomic_write_u32(&MyDatabaseState->sleep, WORKER_AWAKE);
	pg_atomic_write_u32(&MyDatabaseState->state,
						setting_delivery ? WORKER_CONNECTING : WORKER_PAUSED);
}

/* Settings that a database or role has by default must not break the worker. */
static void
force_settings(void)
{
	static const char *const forced[][2] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},	/* since 17 */
		{"synchronous_commit", "off"},
		{"search_path", ""},
		{"uncache.max_transaction_size", "2147483647"}, /* patterns in place of lost keys */
	};

	for (int i = 0; i < lengthof(forced); i++)
	{
		if (GetConfigOption(forced[i][0], true, false) != NULL)
			SetConfigOption(forced[i][0], forced[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

static bool
extension_exists(void)
{
	bool		exists;

	StartTransactionCommand();
	exists = OidIsValid(get_extension_oid("pg_uncache", true)) && outbox_exists();
	CommitTransactionCommand();
	return exists;
}

/* This database has no extension: free its DatabaseState, and end for good. */
static void
give_database_back(void)
{
	LWLockAcquire(UncacheShmem->lock, LW_EXCLUSIVE);
	shmem_assign_database(MyDatabaseState, InvalidOid);
	LWLockRelease(UncacheShmem->lock);
	shmem_wake_launcher();
	proc_exit(0);
}

/*
 * Lock the tables of the rules that are to be flushed, until the end of the transaction.
 * Returns false where another session has one of them locked; outbox_open_lock() has
 * reported which.
 */
static bool
lock_tables_to_flush(bool only_unlogged)
{
	ListCell   *cell;

	foreach(cell, rule_flush_tables(only_unlogged))
	{
		if (!outbox_open_lock(lfirst_oid(cell), AccessShareLock))
			return false;
	}
	return true;
}

/*
 * After a crash or a promotion readers may have cached rows of commits that are lost, and
 * unlogged tables are empty: the keys to be deleted because of that go to the outbox in the
 * same transaction.  False where another session has a table locked that is needed for it:
 * a prepared transaction from before the crash, say.
 */
static bool
adopt_incarnation(void)
{
	bool		only_unlogged = setting_after_lost_commits == AFTER_LOST_COMMITS_REDELIVER;
	IncarnationStart start = incarnation_look();

	if (start == INCARNATION_SAME)
		return true;
	if (start == INCARNATION_LOCKED ||
		(start == INCARNATION_AFTER_CRASH && !lock_tables_to_flush(only_unlogged)))
		return false;
	incarnation_adopt();
	if (start == INCARNATION_AFTER_CRASH)
		rule_flush_all_rules(only_unlogged);
	/* It may be the first start after pg_upgrade. */
	rule_cover_database();
	return true;
}

/*
 * Before anything is delivered, if that is possible.  Otherwise deliveries go on, fills are
 * refused (incarnation.h), and it is tried again.  Returns when.
 */
static TimestampTz
make_incarnation_known(void)
{
	static bool known = false;
	static TimestampTz retry_at = 0;
	TimestampTz now;

	if (known)
		return DT_NOEND;
	now = clock_now();
	if (now < retry_at)
		return retry_at;
	outbox_begin();
	known = adopt_incarnation();
	outbox_end();
	retry_at = TimestampTzPlusMilliseconds(now, INCARNATION_RETRY_MS);
	return known ? DT_NOEND : retry_at;
}

static void
tell_start(void)
{
	if (setting_delivery)
		ereport(LOG, (errmsg("pg_uncache %s has started a worker for Redis at %s",
							 UNCACHE_VERSION, connections_addresses())));
	else
		ereport(LOG, (errmsg("pg_uncache %s has started a worker, which delivers nothing while "
							 "\"%s\" is off",
							 UNCACHE_VERSION, "uncache.delivery")));
}

static void
read_standing(void)
{
	outbox_begin();
	fence_standing_load();
	outbox_end();
}

static void
start_up(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, PG_SIG_IGN);	/* pg_cancel_backend() would be an ERROR */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	MyDatabaseState = shmem_database(DatumGetInt32(arg));
	BackgroundWorkerInitializeConnectionByOid(pg_atomic_read_u32(&MyDatabaseState->dboid),
											  InvalidOid, 0);
	worker_log_init();
	force_settings();
	pgstat_report_appname("pg_uncache worker");
	if (!extension_exists())
		give_database_back();

	turn_context = AllocSetContextCreate(TopMemoryContext, "pg_uncache turn",
										 ALLOCSET_DEFAULT_SIZES);
	enter_database();
	delivery_map_create(MyDatabaseState);
	connections_init();
	worker_wait_init();
	delivery_queue_init();
	outbox_scan_init(&delivery_queue_sink);
	outbox_side_init(&delivery_queue_sink);
	outbox_damage_init();
	outbox_rotate_init(&delivery_queue_sink);
	fence_init();
	second_delete_init();
	fence_doubt_init();
	worker_yield_init();
	worker_survey_init();
	tell_start();
	worker_version_check();
	read_standing();
	(void) make_incarnation_known();
}

/*
 * --------------------------------------------------------------------------
 * Requests
 * --------------------------------------------------------------------------
 */

static void
reload(void)
{
	int			fence_ttl = setting_fence_ttl;

	ProcessConfigFile(PGC_SIGHUP);
	force_settings();
	if (settings_redis_have_changed())
	{
		connections_reset();
		reconnect_discard_all();
	}
	else if (fence_ttl != setting_fence_ttl)
		fence_change_all();
}

/* A session that holds the database may be about to drop it: tell it what is undelivered. */
static void
tell_what_is_left(void)
{
	if (MyDatabaseState->holds > 0)
		pg_atomic_write_u32(&MyDatabaseState->left_behind,
							outbox_side_has_rows() || outbox_scan_has_undelivered() ?
							LEFT_SOMETHING : LEFT_NOTHING);
}

static void
handle_requests(void)
{
	if (ProcDiePending)
		proc_exit(1);			/* without a FATAL in the log of every shutdown */
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		reload();
	}
	if (pg_atomic_read_u32(&MyDatabaseState->restart_requested) != 0)
	{
		tell_what_is_left();
		proc_exit(1);			/* the launcher starts a new worker at once */
	}
	if (!fence_beat_holds_transaction())
		discard_run(MyDatabaseState);
}

/*
 * --------------------------------------------------------------------------
 * Taking
 * --------------------------------------------------------------------------
 */

static void
take_entry(const RingEntry *entry)
{
	OutboxRow	row = {
		.xid = entry->xid,
		.table = entry->table,
		.tid = entry->tid,
		.at = entry->committed_at,
		.waiter = entry->waiter,
		.items = ring_items(entry),
		.len = ring_items_len(entry),
	};

	if (entry->kind == RING_DISCARDED)
	{
		/* It counts as delivered, as one does that is discarded while it is under way. */
		wait_slots_row_delivered(row.xid, row.waiter);
		return;
	}
	if (entry->kind != RING_COMMITTED)
	{
		fence_doubt_take(entry);
		return;
	}
	Assert(row.table >= 0 && row.table < OUTBOX_TABLES);
	outbox_scan_check_file(row.table, entry->file);
	/* A scan may have found the row first; its waiter is answered by xid then. */
	if (delivery_map_get(row.table, &row.tid) == ROW_UNSENT)
		delivery_queue_take(PRIORITY_COMMIT, &row);
}

/* Returns how many entries there were. */
static int
take_ring(void)
{
	int			count = 0;

	while (delivery_queue_has_room(PRIORITY_COMMIT))
	{
		union
		{
			RingEntry	head;
			char		bytes[MAXALIGN(sizeof(RingEntry)) + OUTBOX_ROW_ITEMS];
		}			copy;
		RingEntry  *entry;

		LWLockAcquire(MyDatabaseState->lock, LW_EXCLUSIVE);
		entry = ring_peek(&MyDatabaseState->ring);
		if (entry)
		{
			Assert(entry->size <= sizeof(copy));
			memcpy(&copy, entry, entry->size);
			ring_take(&MyDatabaseState->ring);
		}
		LWLockRelease(MyDatabaseState->lock);

		if (entry == NULL)
			break;
		count++;
		FAULT_POINT("ring-taken");
		take_entry(&copy.head);
	}
	return count;
}

/*
 * --------------------------------------------------------------------------
 * Main loop
 * --------------------------------------------------------------------------
 */

/*
 * With a connection.  reconnect_connect() has read answers and settled what they ended; now:
 *
 *		reconnect		rows that wait are read again, if it is time
 *		take, send		from the ring first, since sessions wait for it; then from the sources
 *						in the outbox and in memory
 *		patterns		a few steps of their pass
 *		settle			what follows from deliveries that have ended
 *		answer			sessions that wait for a transaction; callers of uncache.wait()
 *
 * Returns how many entries the ring had.
 */
static int
deliver_turn(TimestampTz now, TimestampTz *wake)
{
	int			taken;

	outbox_scan_collect_dirty();
	if (pg_atomic_exchange_u32(&MyDatabaseState->side_dirty, 0) != 0)
		outbox_side_request_scan();

	*wake = Min(*wake, fence_run(now));
	*wake = Min(*wake, fence_beat_run(now));
	*wake = Min(*wake, replica_ack_run(now));
	node_flush_all();
	if (!node_any_open())
		return 0;

	reconnect_run(now);
	taken = take_ring();
	*wake = Min(*wake, fence_doubt_run(now));
	delivery_queue_send();
	*wake = Min(*wake, second_delete_run(now));
	*wake = Min(*wake, refusal_probe_run(now));
	*wake = Min(*wake, outbox_scan_run(now));
	if (!fence_beat_holds_transaction())
		*wake = Min(*wake, outbox_overflow_run(now));
	*wake = Min(*wake, outbox_side_run(now, true));
	delivery_queue_send();
	if (delivery_queue_wants_turn())
		*wake = now;
	*wake = Min(*wake, delivery_fragments_run(now, outbox_scan_is_done() &&
											  !delivery_queue_has_unsent()));
	*wake = Min(*wake, pattern_queue_run(now));
	settle_run();
	reconnect_catch_up();
	node_flush_all();
	wait_slots_flush();
	wait_barrier_run();
	*wake = Min(*wake, resend_release_due_at());
	return taken;
}

/* An attach that replaces a rule leaves the counters of the old one behind. */
static void
forget_dropped_rules(void)
{
	if (fence_beat_holds_transaction() || !counters_has_new_rules())
		return;
	outbox_begin();
	counters_forget_dropped_rules();
	outbox_end();
}

static void
main_loop(void)
{
	for (;;)
	{
		TimestampTz wake = DT_NOEND;
		TimestampTz now;
		int			taken = 0;

		MemoryContextReset(turn_context);
		MemoryContextSwitchTo(turn_context);
		handle_requests();
		reconnect_connect();

		now = clock_now();
		if (connections_is_serving())
			taken = deliver_turn(now, &wake);
		else
		{
			fence_beat_run(now);
			outbox_side_run(now, false);
		}
		if (!fence_beat_holds_transaction())
		{
			wake = Min(wake, make_incarnation_known());
			wake = Min(wake, fence_standing_run(now));
			wake = Min(wake, outbox_rotate_run(now));
			wake = Min(wake, outbox_damage_run(now));
			wake = Min(wake, outbox_overflow_watch_run(now));
			wake = Min(wake, worker_survey_run(now));
		}
		fence_publish();
		wake = Min(wake, question_run(now));
		wake = connections_deadline(wake);
		forget_dropped_rules();
		worker_yield_run(now);

		worker_wait(wake, taken);
	}
}

void
uncache_worker_main(Datum arg)
{
	start_up(arg);
	main_loop();
}
