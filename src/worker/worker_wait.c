/*
 * worker_wait.c
 *	  How the worker waits between two turns.
 *
 * Waking up is most of what a small transaction costs the worker, and Redis.  So while many
 * transactions come for which no session waits, the worker gathers: it sleeps for
 * GATHER_MS, and one turn takes all that has come meanwhile, the answers of Redis included.
 * Otherwise it sleeps until something comes.
 *
 * In MyDatabaseState->sleep the worker says which committers have to wake it.  It writes
 * that before it looks a last time, and a committer reads it after it has put its entry, so
 * no entry is overlooked.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/delivery.h"
#include "fence/fence.h"
#include "outbox/outbox_scan.h"
#include "topology/connections.h"
#include "topology/link_set.h"
#include "topology/node.h"
#include "worker/worker_int.h"

/*
 * The worker begins to gather when three transactions a millisecond come.  A single client
 * that waits for its disk makes fewer, so its transactions are delivered at once.  The
 * worker goes on while two a millisecond come, which still share a batch.  They come in
 * bunches, behind one flush of the WAL, so they are counted over some milliseconds.
 */
#define GATHER_MS		1
#define COUNT_MS		4
#define GATHER_BEGIN	(3 * COUNT_MS)
#define GATHER_GO_ON	(2 * COUNT_MS)

/* Numbers of wait events, since they are looked up under a lock. */
static uint32 wait_main;
static uint32 wait_gather;

/*
 * A link whose socket is closed leaves its entry behind, which gives no events: epoll forgets a
 * closed socket.  The set is made anew where it has no room for a further entry.
 */
static WaitEventSet *wait_set = NULL;
static uint64 wait_set_generation;	/* of the name servers' sockets in it */
static WaitEvent *events = NULL;	/* room for all events of the set */
static int	max_events;			/* twice as many as there were when it was made */
static int	nevents;			/* entries of the set */

void
worker_wait_init(void)
{
	wait_main = WaitEventExtensionNew("UncacheWorkerMain");
	wait_gather = WaitEventExtensionNew("UncacheWorkerGather");
}

/* Returns the entry's position. */
static int
add_event(uint32 wanted, pgsocket sock, WaitedLink *waited)
{
	Assert(nevents < max_events);
	nevents++;
	return AddWaitEventToSet(wait_set, wanted, sock, NULL, waited);
}

/* Bring the entry of the link's socket up to date; false: there is no room for a new one. */
static bool
update_link(WaitedLink *waited)
{
	pgsocket	sock = redis_socket(waited->link);
	uint32		wanted = redis_wanted_events(waited->link);

	/* Without events to wait for the link has failed, and is about to be closed. */
	if (sock == PGINVALID_SOCKET || wanted == 0)
		return true;
	if (waited->position < 0 && nevents == max_events)
		return false;
	if (waited->position < 0)
		waited->position = add_event(wanted, sock, waited);
	else if (waited->wanted != wanted)
		ModifyWaitEvent(wait_set, waited->position, wanted, NULL);
	waited->wanted = wanted;
	return true;
}

/* The link's socket, or those that its name is being resolved with. */
static void
add_sockets(WaitedLink *waited)
{
	RedisSocket sockets[REDIS_MAX_SOCKETS];
	int			n = redis_resolver_sockets(waited->link, sockets);

	for (int i = 0; i < n; i++)
		add_event(sockets[i].events, sockets[i].socket, waited);
	waited->position = -1;
	(void) update_link(waited);
}

/* The latch, the postmaster, and all sockets. */
static int
count_events(void)
{
	RedisSocket sockets[REDIS_MAX_SOCKETS];
	int			count = 2;
	dlist_iter	iter;

	dlist_foreach(iter, link_set_all())
	{
		WaitedLink *waited = dlist_container(WaitedLink, node, iter.cur);

		count += 1 + redis_resolver_sockets(waited->link, sockets);
	}
	return count;
}

static void
build_wait_set(void)
{
	dlist_iter	iter;

	if (wait_set)
	{
		FreeWaitEventSet(wait_set);
		pfree(events);
	}
	max_events = 2 * count_events();
	wait_set = CreateWaitEventSet(NULL, max_events);
	events = MemoryContextAlloc(TopMemoryContext, max_events * sizeof(WaitEvent));
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	nevents = 2;
	dlist_foreach(iter, link_set_all())
		add_sockets(dlist_container(WaitedLink, node, iter.cur));
	wait_set_generation = redis_generation();
}

static void
update_wait_set(void)
{
	bool		fits = wait_set != NULL && wait_set_generation == redis_generation();
	WaitedLink *waited;

	while ((waited = link_set_take_changed()) != NULL)
		fits = fits && update_link(waited);
	if (!fits)
		build_wait_set();
}

/*
 * Sets the events of each WaitedLink, and touches its node.  Returns whether the latch was set:
 * then PostgreSQL may not have looked at the sockets.
 */
static bool
wait_for_events(long timeout)
{
	bool		latched = false;
	int			n;

	update_wait_set();
	n = WaitEventSetWait(wait_set, timeout, events, max_events, wait_main);
	for (int i = 0; i < n; i++)
	{
		WaitedLink *waited = events[i].user_data;

		latched |= (events[i].events & WL_LATCH_SET) != 0;
		if (waited == NULL)
			continue;
		waited->events |= events[i].events;
		if (waited->of_node != NULL)
			node_touch(waited->of_node);
	}
	if (latched)
		ResetLatch(MyLatch);
	return latched;
}

/*
 * Let transactions and answers gather.  Answers are due by the end of it; where there are none,
 * reading does no harm.  Of many nodes few have answers, and asking which is cheaper.
 */
static void
gather(long timeout)
{
	int			got = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								timeout, wait_gather);
	dlist_iter	iter;

	if (got & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (node_count() > 1)
	{
		if (wait_for_events(0))
			(void) wait_for_events(0);
		return;
	}
	dlist_foreach(iter, link_set_all())
	{
		WaitedLink *waited = dlist_container(WaitedLink, node, iter.cur);

		if (redis_unanswered(waited->link) > 0)
			waited->events = WL_SOCKET_READABLE;
	}
}

/* Whether transactions come so fast that it pays to gather them. */
static bool
is_busy(int taken)
{
	static TimestampTz since = 0;
	static int	count = 0;
	static bool busy = false;
	TimestampTz now;

	if (taken == 0 && !busy)
		return false;
	now = clock_now();
	count += taken;
	if (now >= since + COUNT_MS * 1000)
	{
		busy = count >= (busy ? GATHER_GO_ON : GATHER_BEGIN);
		count = 0;
		since = now;
	}
	return busy;
}

static bool
shall_gather(int taken)
{
	return is_busy(taken) && connections_is_serving() && !wait_barrier_is_asked_for() &&
		!delivery_queue_has_unsent() && !batch_is_awaited();
}

/*
 * Whether something came after this turn had looked.  While the worker gathers, an entry
 * for which no session waits does not count.
 */
static bool
has_news(bool gathers)
{
	bool		ring;

	if ((pg_atomic_read_u64(&MyDatabaseState->discard_drawn) !=
		 pg_atomic_read_u64(&MyDatabaseState->discard_done) &&
		 !fence_beat_holds_transaction()) ||
		pg_atomic_read_u32(&MyDatabaseState->restart_requested) != 0 ||
		pg_atomic_read_u32(&MyDatabaseState->yield_requested) != 0)
		return true;
	/* Without an open node the worker takes nothing. */
	if (!node_any_open())
		return false;
	LWLockAcquire(MyDatabaseState->lock, LW_SHARED);
	ring = !ring_is_empty(&MyDatabaseState->ring) && delivery_queue_has_room(PRIORITY_COMMIT) &&
		(!gathers || MyDatabaseState->ring.awaited);
	LWLockRelease(MyDatabaseState->lock);
	return ring || wait_barrier_needs_turn() ||
		pg_atomic_read_u32(&MyDatabaseState->any_dirty) != 0 ||
		pg_atomic_read_u32(&MyDatabaseState->side_dirty) != 0 ||
		(delivery_queue_has_room(PRIORITY_SCAN) && outbox_scan_has_work());
}

void
worker_wait(TimestampTz wake, int taken)
{
	bool		gathers = shall_gather(taken);
	long		timeout = -1;

	if (wake != DT_NOEND)
		timeout = TimestampDifferenceMilliseconds(clock_now(), wake);
	if (gathers)
		timeout = timeout < 0 ? GATHER_MS : Min(timeout, GATHER_MS);

	node_flush_all();
	node_forget_touched();
	Assert(!IsTransactionState() || fence_beat_holds_transaction());
	pg_atomic_write_u32(&MyDatabaseState->sleep, gathers ? WORKER_GATHERS : WORKER_SLEEPS);
	pg_memory_barrier();
	if (has_news(gathers))
		timeout = 0;

	if (gathers && timeout > 0)
		gather(timeout);
	else
		(void) wait_for_events(timeout);
	pg_atomic_write_u32(&MyDatabaseState->sleep, WORKER_AWAKE);
}
