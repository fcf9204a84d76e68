/*
 * commit_strict.c
 *	  consistency = strict, in the committing backend.
 *
 * Before the commit the worker is asked, through the ring, to delete the keys'
 * values and to note the transaction in their fence records as in doubt.  From
 * then on no fenced fill succeeds whose snapshot has not seen the transaction
 * committed, so no old value comes back in the moment between commit and
 * delivery.  The answer is waited for with row locks held, which is the price.
 *
 * It is still before the commit: whatever goes wrong is an ERROR, and the
 * transaction is rolled back.  The worker is then told to take the doubts out; if
 * that is lost, it finds out by itself that the transaction has ended (fence_doubt.c),
 * and a doubt that nobody renews expires.
 *
 * Patterns are not fenced beforehand: for TRUNCATE and the like strict promises
 * what read_your_writes does.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/fault_point.h"
#include "base/invalidation.h"
#include "commit/commit_int.h"
#include "pending/pending_set.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "shmem/wait_slots.h"

/* How long to sleep before the ring is looked at again for room. */
#define FULL_RING_MS	1

/* Two rings of usual size: a moment's work, and no burden for the worker's memory. */
#define MAX_KEY_BYTES	(16 * 1024 * 1024)

/* Whose doubts the worker may have; NULL: nobody's. */
static OutboxItems *in_doubt = NULL;
static uint64 doubt_xid;

pg_noreturn
static void
raise_not_fenced(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("keys could not be fenced in Redis before the commit"),
			 errdetail("%s The transaction is rolled back.", detail),
			 errhint("Try again, or use another value of uncache.consistency.")));
}

/* A piece is the only item of its row.  Patterns are not fenced before the commit. */
static bool
begins_with_long_key(const OutboxItems *items)
{
	InvalidationReader	reader;
	Invalidation	item;

	invalidation_reader_init(&reader, items->bytes, items->len);
	return invalidation_read(&reader, &item) > 0 && item.kind == INVALIDATION_FRAGMENT &&
		invalidation_traits_of_whole(&item)->fence == INVALIDATION_FENCE_RECORD;
}

/* All of it is held in memory, here and in the worker, and goes through the ring. */
void
commit_strict_check_size(const OutboxWritten *written)
{
	uint64		keys = pending_set_keys();
	uint64		bytes = pending_set_bytes();
	const char *detail;

	for (; written; written = written->next)
	{
		keys += written->nkeys;
		bytes += written->key_bytes;
	}
	if (keys > (uint64) setting_wait_max_keys)
		detail = psprintf("It has " UINT64_FORMAT " keys; %d (uncache.wait_max_keys) can be fenced.",
						  keys, setting_wait_max_keys);
	else if (bytes > MAX_KEY_BYTES)
		detail = psprintf("Its keys have " UINT64_FORMAT " bytes; %d can be fenced.",
						  bytes, MAX_KEY_BYTES);
	else
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the transaction has too many keys for uncache.consistency = strict"),
			 errdetail("%s The transaction is rolled back.", detail),
			 errhint("Divide it, or use SET LOCAL uncache.consistency = read_your_writes for it.")));
}

static void
check_possible(DatabaseState *database, OutboxItems *items)
{
	if (setting_fence_ttl == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("uncache.consistency = strict needs the fence"),
				 errhint("Set uncache.fence_ttl in postgresql.conf; five minutes are recommended.")));
	if (database == NULL)
		raise_not_fenced("This database has no worker; see uncache.stat.");
	if (!setting_delivery)
		raise_not_fenced("Delivery is off (uncache.delivery).");
	if (pg_atomic_read_u32(&database->serving) == 0)
		raise_not_fenced("Redis cannot be reached.");
	/* Which nodes the keys belong to is known to the worker (fence_doubt.c). */
	if (pg_atomic_read_u32(&database->fence.any_on) == 0)
		raise_not_fenced("The fence is not on yet, or not possible; see uncache.stat.");
	for (; items; items = items->next)
	{
		if (begins_with_long_key(items))
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("a key is too long for uncache.consistency = strict"),
					 errdetail("Keys of up to %d bytes can be fenced before the commit.",
							   OUTBOX_ROW_ITEMS - INVALIDATION_MAX_HEAD)));
	}
}

static bool
try_to_put(DatabaseState *database, RingKind kind, const OutboxItems *items)
{
	RingEntry	entry = {0};
	bool		done;

	entry.kind = kind;
	entry.xid = doubt_xid;
	entry.waiter = kind == RING_DOUBT ? MyProcNumber : -1;

	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	done = pg_atomic_read_u32(&database->dboid) == MyDatabaseId &&
		ring_put(&database->ring, &entry, items->bytes, items->len);
	LWLockRelease(database->lock);
	return done;
}

/* Sleep until the latch is set or the time is over; interrupts are served. */
static void
sleep_before_commit(long ms)
{
	static uint32 wait_event = 0;	/* is looked up under a lock */

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("UncacheStrict");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
put_doubts(DatabaseState *database, TimestampTz deadline)
{
	for (OutboxItems *items = in_doubt; items; items = items->next)
	{
		while (!try_to_put(database, RING_DOUBT, items))
		{
			shmem_wake_worker(database);
			if (clock_now() >= deadline)
				raise_not_fenced("The ring (uncache.ring_size) has no room for its keys.");
			sleep_before_commit(FULL_RING_MS);
		}
	}
	shmem_wake_worker(database);
}

static void
wait_for_fences(WaitSlot *mine, TimestampTz deadline)
{
	for (;;)
	{
		WaitState	state = wait_slots_state(mine);
		long		left = TimestampDifferenceMilliseconds(clock_now(), deadline);

		if (state == WAIT_ANSWERED)
			return;
		if (state == WAIT_GIVEN_UP)
			raise_not_fenced("The Redis that one of its keys belongs to is away, has refused it, or has no fence that is on; see last_error in uncache.stat.");
		if (left <= 0)
			raise_not_fenced("Redis has not answered in time.");
		sleep_before_commit(left);
	}
}

void
commit_strict_fence(OutboxWritten *written)
{
	DatabaseState *database = shmem_my_database();
	WaitSlot   *mine = shmem_my_wait_slot();
	int			timeout = setting_wait_timeout > 0 ? setting_wait_timeout : setting_command_timeout;
	TimestampTz deadline = TimestampTzPlusMilliseconds(clock_now(), timeout);
	uint32		count = 0;

	check_possible(database, written->all_items);
	in_doubt = written->all_items;
	doubt_xid = U64FromFullTransactionId(written->xid);
	for (OutboxItems *items = in_doubt; items; items = items->next)
		count++;
	if (count == 0)
		return;

	wait_slots_announce(mine, doubt_xid, count, true);
	put_doubts(database, deadline);
	FAULT_POINT("doubts-put");
	wait_for_fences(mine, deadline);
	(void) wait_slots_leave(mine);
}

void
commit_strict_release(void)
{
	DatabaseState *database = shmem_my_database();
	WaitSlot   *mine = shmem_my_wait_slot();

	if (in_doubt == NULL)
		return;
	(void) wait_slots_leave(mine);
	/* One entry is enough: the worker knows the keys by the transaction. */
	if (database != NULL && try_to_put(database, RING_RELEASE, in_doubt))
		shmem_wake_worker(database);
	in_doubt = NULL;
}

void
commit_strict_forget(void)
{
	in_doubt = NULL;
}
