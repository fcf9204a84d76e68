/*
 * doubt.c
 *	  Transactions in doubt (consistency = strict), in the worker.
 *
 * A backend that is about to commit has the worker delete its keys' values and
 * note its transaction as in doubt in their fence records.  The worker remembers
 * each until the transaction has ended, looks once a second whether it has, and
 * renews the doubt every third of fence_ttl, so that it expires only when there
 * is no worker any more.
 *
 *		committed		the delivery of the outbox row makes the doubt an
 *						ordinary xid; nothing is to be done
 *		rolled back		the doubt is taken out of the records
 *
 * When the link breaks, doubts are sent again with the next one.
 */
#include "postgres.h"

#include "access/transam.h"
#include "lib/ilist.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "doubt.h"
#include "fence.h"
#include "item.h"
#include "waiters.h"
#include "trouble.h"

#define LOOK_MS			1000
#define COMMAND_KEYS	128

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
	int			waiter;			/* ProcNumber; -1 when answered */
	DoubtState	state;
	bool		failed;			/* an answer since it was sent was no good */
	int			under_way;		/* commands without an answer */
	TimestampTz look_at;
	TimestampTz renew_at;
	uint32		len;
	char		items[FLEXIBLE_ARRAY_MEMBER];
} Doubt;

static MemoryContext context;
static dlist_head doubts = DLIST_STATIC_INIT(doubts);

void
doubt_init(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache doubts",
									ALLOCSET_DEFAULT_SIZES);
}

static void
add(const RingEntry *entry)
{
	uint32		len = ring_items_len(entry);
	Doubt	   *doubt = MemoryContextAllocZero(context, offsetof(Doubt, items) + len);

	doubt->xid = entry->xid;
	doubt->waiter = entry->waiter;
	doubt->len = len;
	memcpy(doubt->items, ring_items(entry), len);
	dlist_push_tail(&doubts, &doubt->node);
}

void
doubt_take(const RingEntry *entry)
{
	dlist_iter	iter;

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
 * Commands
 * --------------------------------------------------------------------------
 */

static void
answered(Doubt *doubt, const RedisReply *reply)
{
	const char *why;

	doubt->under_way--;
	if (reply != NULL && redis_reply_type(reply) != REDIS_ERROR)
		return;
	doubt->failed = true;
	if (reply != NULL && trouble_is(reply, &why))
		trouble_note(reply);
}

static void
fence_answered(void *arg, const RedisReply *reply)
{
	Doubt	   *doubt = arg;

	answered(doubt, reply);
	if (doubt->under_way > 0 || doubt->state != DOUBT_SENT)
		return;
	if (doubt->failed && reply == NULL)
	{
		doubt->state = DOUBT_TO_SEND;
		return;
	}
	/* After a renewal nobody is told: the session may wait for its delivery. */
	if (doubt->waiter < 0)
		return;
	if (doubt->failed)
		waiters_refused(doubt->xid);
	else
		waiters_row_delivered(doubt->xid, doubt->waiter);
	doubt->waiter = -1;
}

static void
release_answered(void *arg, const RedisReply *reply)
{
	answered(arg, reply);
}

/* FCALL function n key..., then what "finish" adds. */
typedef struct Call
{
	int			n;
	int			nkeys;
	const char *argv[5 + 2 * COMMAND_KEYS];
	size_t		lens[5 + 2 * COMMAND_KEYS];
} Call;

static void
add_argument(Call *call, const char *bytes, size_t len)
{
	call->argv[call->n] = bytes;
	call->lens[call->n++] = len;
}

static bool
send_call(RedisLink *link, Doubt *doubt, Call *call, bool release)
{
	char		nkeys[12];
	char		entry[26];

	snprintf(nkeys, sizeof(nkeys), "%d", call->nkeys);
	snprintf(entry, sizeof(entry), "%s" UINT64_FORMAT, release ? "" : "?", doubt->xid);
	call->argv[2] = nkeys;
	call->lens[2] = strlen(nkeys);
	if (!release)
		add_argument(call, fence_ttl_text(), strlen(fence_ttl_text()));
	add_argument(call, Shared_state->incarnation, strlen(Shared_state->incarnation));
	for (int i = 0; i < call->nkeys; i++)
		add_argument(call, entry, strlen(entry));

	if (!redis_send(link, call->n, call->argv, call->lens,
					release ? release_answered : fence_answered, doubt))
		return false;
	doubt->under_way++;
	return true;
}

static void
begin_call(Call *call, bool release)
{
	const char *function = release ? "uncache_release" : "uncache_invalidate";

	call->n = 0;
	call->nkeys = 0;
	add_argument(call, "FCALL", strlen("FCALL"));
	add_argument(call, function, strlen(function));
	add_argument(call, "", 0);	/* the number of keys */
}

/* Fence, or release, the keys of a doubt.  False: the link is gone. */
static bool
send_keys(RedisLink *link, Doubt *doubt, bool release)
{
	static Call call;
	ItemReader	reader;
	PackedItem	item;
	bool		ok = true;

	doubt->failed = false;
	item_reader_init(&reader, doubt->items, doubt->len);
	begin_call(&call, release);
	while (ok && item_read(&reader, &item) > 0)
	{
		if (item.kind != ITEM_KEY)
			continue;
		add_argument(&call, item.bytes, item.len);
		if (++call.nkeys == COMMAND_KEYS)
		{
			ok = send_call(link, doubt, &call, release);
			begin_call(&call, release);
		}
	}
	if (ok && call.nkeys > 0)
		ok = send_call(link, doubt, &call, release);
	return ok;
}

/*
 * --------------------------------------------------------------------------
 * Turns
 * --------------------------------------------------------------------------
 */

static void
send_fence(RedisLink *link, Doubt *doubt, TimestampTz now)
{
	doubt->state = DOUBT_SENT;
	doubt->look_at = TimestampTzPlusMilliseconds(now, LOOK_MS);
	doubt->renew_at = TimestampTzPlusMilliseconds(now, atoi(fence_ttl_text()) / 3);
	if (!send_keys(link, doubt, false))
		doubt->state = DOUBT_TO_SEND;
	else if (doubt->under_way == 0 && doubt->waiter >= 0)
	{
		waiters_row_delivered(doubt->xid, doubt->waiter);	/* patterns only */
		doubt->waiter = -1;
	}
}

/* What has become of the transaction? */
static void
look_after(RedisLink *link, Doubt *doubt, TimestampTz now)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(doubt->xid));

	doubt->look_at = TimestampTzPlusMilliseconds(now, LOOK_MS);
	if (TransactionIdIsInProgress(xid))
	{
		if (now >= doubt->renew_at)
			send_fence(link, doubt, now);
	}
	else if (TransactionIdDidCommit(xid))
		doubt->state = DOUBT_ENDED;
	else
		doubt->state = DOUBT_TO_RELEASE;
}

TimestampTz
doubt_turn(RedisLink *link, TimestampTz now)
{
	TimestampTz wake = DT_NOEND;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &doubts)
	{
		Doubt	   *doubt = dlist_container(Doubt, node, iter.cur);

		if (doubt->state == DOUBT_TO_SEND)
			send_fence(link, doubt, now);
		else if (doubt->state == DOUBT_SENT && now >= doubt->look_at)
			look_after(link, doubt, now);

		if (doubt->state == DOUBT_TO_RELEASE && send_keys(link, doubt, true))
			doubt->state = DOUBT_ENDED;
		if (doubt->state == DOUBT_ENDED && doubt->under_way == 0)
		{
			dlist_delete(&doubt->node);
			pfree(doubt);
		}
		else
			wake = Min(wake, doubt->look_at);
	}
	return wake;
}
