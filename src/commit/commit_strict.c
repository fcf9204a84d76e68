/*
 * commit_strict.c
 *	  consistency = strict, in the committing backend.
 *
 * Before the commit the session asks the worker, through the ring, to delete the keys'
 * values and to note in their fence records that the transaction is in doubt.  From then on
 * a fenced fill succeeds only if its snapshot has seen the transaction committed, so no old
 * value returns between commit and delivery.  The price: the session waits for the answer
 * while it holds row locks.
 *
 * Any failure is an ERROR and rolls the transaction back, since this is before the commit.
 * The session then tells the worker to remove the doubts.  If that message is lost, the worker
 * finds out by itself that the transaction has ended (fence_doubt.c), and a doubt that is
 * not renewed expires.
 *
 * Patterns are not fenced before the commit: for TRUNCATE and the like, strict promises what
 * read_your_writes does.
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

/* How long to sleep before trying a full ring again: the worker empties it within this time. */
#define FULL_RING_MS	1

/*
 * Most bytes of keys that a transaction can have fenced.  Two rings of default size: the worker
 * takes them in a moment, and has memory for them.
 */
#define MAX_KEY_BYTES	(16 * 1024 * 1024)

/* Rows whose doubts the worker may have noted, and their transaction; NULL: none. */
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

/*
 * True if a row holds a fragment of a key that is too long for one row.  A fragment is the only
 * item of its row.  Fragments of patterns do not count, since patterns are not fenced here.
 */
static bool
begins_with_long_key(const OutboxItems *items)
{
	InvalidationReader reader;
	Invalidation item;

	invalidation_reader_init(&reader, items->bytes, items->len);
	return invalidation_read(&reader, &item) > 0 && item.kind == INVALIDATION_FRAGMENT &&
		invalidation_traits_of_whole(&item)->fence == INVALIDATION_FENCE_RECORD;
}

/* The keys are limited because this session and the worker hold all of them in memory. */
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
		detail = psprintf("It has " UINT64_FORMAT " keys; "
						  "%d (uncache.wait_max_keys) can be fenced.",
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
			 errhint("Divide it, or use "
					 "SET LOCAL uncache.consistency = read_your_writes for it.")));
}

static void
check_possible(DatabaseState *database, OutboxItems *items)
{
	if (setting_fence_ttl == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("uncache.consistency = strict needs the fence"),
				 errhint("Set uncache.fence_ttl in postgresql.conf; "
						 "five minutes are recommended.")));
	if (database == NULL)
		raise_not_fenced("This database has no worker; see uncache.stat.");
	if (!setting_delivery)
		raise_not_fenced("Delivery is off (uncache.delivery).");
	if (pg_atomic_read_u32(&database->serving) == 0)
		raise_not_fenced("Redis cannot be reached.");
	/* Whether the fence is on at the keys' own nodes, only the worker knows (fence_doubt.c). */
	if (pg_atomic_read_u32(&database->fence.any_on) == 0)
		raise_not_fenced("The fence is not on yet, or not possible, or another server's readers "
						 "fill instead; see fence and last_error in uncache.stat.");
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

/* Put the items of one row into the ring; false if it has no room, or is another database's. */
static bool
try_to_put(DatabaseState *database, RingKind kind, const OutboxItems *items)
{
	RingEntry	entry = {0};
	bool		done;

	Assert(kind == RING_DOUBT || kind == RING_RELEASE);
	Assert(items->len <= OUTBOX_ROW_ITEMS);
	entry.kind = kind;
	entry.xid = doubt_xid;
	entry.waiter = kind == RING_DOUBT ? MyProcNumber : -1;

	LWLockAcquire(database->lock, LW_EXCLUSIVE);
	done = pg_atomic_read_u32(&database->dboid) == MyDatabaseId &&
		ring_put(&database->ring, &entry, items->bytes, items->len);
	LWLockRelease(database->lock);
	return done;
}

/* Sleep until the latch is set or the time is over, and check for interrupts. */
static void
sleep_before_commit(long ms)
{
	static uint32 wait_event = 0;	/* kept, since finding it takes a lock */

	Assert(IsTransactionState() && InterruptHoldoffCount == 0);
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
			raise_not_fenced("The Redis of one of its keys is away, has refused the key, or has "
							 "its fence off, or another server's readers fill instead; see "
							 "last_error in uncache.stat.");
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

	Assert(mine != NULL && doubt_xid != 0);
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
	/* One entry is enough: the worker finds all keys by the transaction. */
	if (database != NULL && try_to_put(database, RING_RELEASE, in_doubt))
		shmem_wake_worker(database);
	in_doubt = NULL;
}

void
commit_strict_forget(void)
{
	in_doubt = NULL;
}
