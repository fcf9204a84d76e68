/*
 * fence_doubt.c
 *	  Transactions in doubt (consistency = strict), in the worker.
 *
 * A session that is about to commit has the worker delete its keys' values and
 * note its transaction as in doubt in their fence records.  The worker remembers
 * each doubt until the transaction has ended, looks once a second whether it has, and
 * renews the doubt every third of fence_ttl, so that it expires only when there
 * is no worker any more.
 *
 *		committed		the delivery of the outbox row makes the doubt an
 *						ordinary xid, so the worker forgets it
 *		rolled back		the worker takes the doubt out of the records
 *
 * A key goes to its node of each target.  Where one of these nodes is down, or has no
 * fence, the worker tells the session that its keys are not fenced, and the session
 * raises an ERROR.  When a link breaks, the doubts that were under way on it are sent
 * again: their sessions may have gone on to commit.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/transam.h"
#include "lib/ilist.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/invalidation.h"
#include "base/log_text.h"
#include "fence/fence_command.h"
#include "fence/fence_int.h"
#include "redis/redis_error.h"
#include "shmem/wait_slots.h"
#include "topology/target.h"

/* Between looks whether the transaction has ended. */
#define LOOK_MS			1000

typedef enum DoubtState
{
	DOUBT_TO_SEND,				/* at once */
	DOUBT_SENT,
	DOUBT_TO_RELEASE,
	DOUBT_ENDED,				/* to be freed when nothing is under way */
} DoubtState;

typedef struct Doubt
{
	dlist_node	node;
	uint64		xid;
	int			waiter;			/* ProcNumber of the session; -1 once it was answered */
	DoubtState	state;
	bool		promised;		/* the session was told that all is fenced, and may commit */
	bool		failed;			/* since it was sent last some key was not fenced */
	int			under_way;		/* calls without an answer */
	TimestampTz look_at;
	TimestampTz renew_at;
	uint32		len;
	char		items[FLEXIBLE_ARRAY_MEMBER];
} Doubt;

static MemoryContext context;
static dlist_head doubts = DLIST_STATIC_INIT(doubts);

/* Bytes of items that were allocated since memory was given back. */
static uint64 bytes_taken = 0;

/* For less than this malloc_trim() does not walk through the whole heap. */
#define WORTH_GIVING_BACK	(1024 * 1024)

void
fence_doubt_init(void)
{
	/* With small blocks a doubt of a row's size has its own block, which pfree() frees. */
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache doubts",
									ALLOCSET_SMALL_SIZES);
}

static void
add(const RingEntry *entry)
{
	uint32		len = ring_items_len(entry);
	Doubt	   *doubt = MemoryContextAllocZero(context, offsetof(Doubt, items) + len);

	Assert(entry->waiter >= 0 && entry->xid != 0);
	doubt->xid = entry->xid;
	doubt->waiter = entry->waiter;
	doubt->len = len;
	memcpy(doubt->items, ring_items(entry), len);
	dlist_push_tail(&doubts, &doubt->node);
	bytes_taken += len;
}

void
fence_doubt_take(const RingEntry *entry)
{
	dlist_iter	iter;

	Assert(entry->kind == RING_DOUBT || entry->kind == RING_RELEASE);
	if (entry->kind == RING_DOUBT)
	{
		add(entry);
		return;
	}
	dlist_foreach(iter, &doubts)
	{
		Doubt	   *doubt = dlist_container(Doubt, node, iter.cur);

		if (doubt->xid == entry->xid)
			doubt->state = DOUBT_TO_RELEASE;
	}
}

/*
 * --------------------------------------------------------------------------
 * Calls
 * --------------------------------------------------------------------------
 */

/* The session's ERROR tells its reader to look at last_error. */
static void
note_refusal(const RedisReply *reply)
{
	char		message[256];

	snprintf(message, sizeof(message),
			 "Redis has not fenced a key of a strict transaction: %s",
			 log_text_cut(redis_error_text(reply), 180));
	shmem_note_error(shmem_my_database(), message);
}

static void
answered(Doubt *doubt, const RedisReply *reply)
{
	const char *why;

	Assert(doubt->under_way > 0);
	doubt->under_way--;
	if (reply != NULL && redis_reply_type(reply) != REDIS_ERROR)
		return;
	doubt->failed = true;
	/* The functions were lost: the doubt is sent again, but the session gets its ERROR. */
	if (reply == NULL || fence_note_loss(node_answering(), reply))
		return;
	if (redis_error_is_fatal(reply, &why))
		node_note_trouble(node_answering(), reply);
	else
		note_refusal(reply);
}

/* No call is under way any more: tell the session. */
static void
doubt_is_sent(Doubt *doubt)
{
	Assert(doubt->under_way == 0);
	/* Send it again soon, also where no session waits: as long as it lasts it needs a fence. */
	if (doubt->failed)
		doubt->renew_at = doubt->look_at;
	/* After a renewal the session is not told: it may be waiting for its delivery by now. */
	if (doubt->waiter < 0)
		return;
	if (doubt->failed)
		wait_slots_refused(doubt->xid);
	else
	{
		doubt->promised = true;
		wait_slots_row_delivered(doubt->xid, doubt->waiter);
	}
	doubt->waiter = -1;
}

static void
fence_answered(void *arg, const RedisReply *reply)
{
	Doubt	   *doubt = arg;

	answered(doubt, reply);
	if (doubt->under_way == 0 && doubt->state == DOUBT_SENT)
		doubt_is_sent(doubt);
}

static void
release_answered(void *arg, const RedisReply *reply)
{
	answered(arg, reply);
}

/* Send the call that has been put together. */
static void
send_call(RedisNode *node, Doubt *doubt, bool release)
{
	Assert(node != NULL && fence_command_keys() > 0);
	if (fence_command_send(node, release ? release_answered : fence_answered, doubt))
		doubt->under_way++;
	else
		doubt->failed = true;
}

/* Fence, or release, the keys of a doubt at one target. */
static void
send_keys_to(Target *target, Doubt *doubt, bool release)
{
	FenceCommand command = release ? COMMAND_RELEASE : COMMAND_INVALIDATE;

	/* The functions may refuse a new doubt ("?"), and never one that was promised ("!"). */
	const char *mark = release ? "" : doubt->promised ? "!" : "?";
	RedisNode  *call_node = NULL;
	InvalidationReader reader;
	Invalidation item;

	invalidation_reader_init(&reader, doubt->items, doubt->len);
	fence_command_begin(command);
	while (invalidation_read(&reader, &item) > 0)
	{
		uint16		key_slot;
		RedisNode  *node;

		if (invalidation_traits(item.kind)->fence != INVALIDATION_FENCE_RECORD)
			continue;
		node = target_node(target, item.bytes, item.len, &key_slot);
		if (node == NULL || !node->open || !fence_is_on(node))
		{
			doubt->failed = true;
			continue;
		}
		call_node = node;
		fence_command_add(item.bytes, item.len, mark, doubt->xid);
		if (fence_command_keys() == FENCE_COMMAND_KEYS || node->in_cluster)
		{
			send_call(node, doubt, release);
			fence_command_begin(command);
		}
	}
	if (fence_command_keys() > 0)
		send_call(call_node, doubt, release);
}

static void
send_keys(Doubt *doubt, bool release)
{
	doubt->failed = false;
	for (int i = 0; i < target_count(); i++)
		send_keys_to(target_at(i), doubt, release);
}

/*
 * --------------------------------------------------------------------------
 * Turns
 * --------------------------------------------------------------------------
 */

static void
send_fence(Doubt *doubt, TimestampTz now)
{
	doubt->state = DOUBT_SENT;
	doubt->look_at = TimestampTzPlusMilliseconds(now, LOOK_MS);
	doubt->renew_at = TimestampTzPlusMilliseconds(now, fence_ttl_ms() / 3);
	send_keys(doubt, false);
	if (doubt->under_way == 0)
		doubt_is_sent(doubt);	/* it has only patterns, or no node is open */
}

/* Look whether the transaction has ended; renew its doubt if it is time. */
static void
look_at_transaction(Doubt *doubt, TimestampTz now)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(doubt->xid));

	Assert(doubt->state == DOUBT_SENT);
	doubt->look_at = TimestampTzPlusMilliseconds(now, LOOK_MS);
	if (TransactionIdIsInProgress(xid))
	{
		if (now >= doubt->renew_at)
			send_fence(doubt, now);
	}
	else if (TransactionIdDidCommit(xid))
		doubt->state = DOUBT_ENDED;
	else
		doubt->state = DOUBT_TO_RELEASE;
}

/* Freed blocks lie between used ones, so glibc keeps them until malloc_trim(). */
static void
give_memory_back(void)
{
	Assert(dlist_is_empty(&doubts));
	if (bytes_taken == 0)
		return;
	MemoryContextReset(context);
#ifdef __GLIBC__
	if (bytes_taken > WORTH_GIVING_BACK)
		malloc_trim(0);
#endif
	bytes_taken = 0;
}

TimestampTz
fence_doubt_run(TimestampTz now)
{
	TimestampTz wake = DT_NOEND;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &doubts)
	{
		Doubt	   *doubt = dlist_container(Doubt, node, iter.cur);

		if (doubt->state == DOUBT_TO_SEND)
			send_fence(doubt, now);
		else if (doubt->state == DOUBT_SENT && now >= doubt->look_at)
			look_at_transaction(doubt, now);

		if (doubt->state == DOUBT_TO_RELEASE)
		{
			send_keys(doubt, true); /* a doubt that can't be released expires */
			doubt->state = DOUBT_ENDED;
		}
		if (doubt->state == DOUBT_ENDED && doubt->under_way == 0)
		{
			dlist_delete(&doubt->node);
			pfree(doubt);
		}
		else if (doubt->state != DOUBT_ENDED)
			wake = Min(wake, doubt->look_at);
	}
	if (dlist_is_empty(&doubts))
		give_memory_back();
	return wake;
}

bool
fence_doubt_has_any(void)
{
	return !dlist_is_empty(&doubts);
}
