/*
 * fence_beat.c
 *	  Transactions by which old snapshots prove that they are young enough.
 *
 * A beat is announced to every node while its transaction is open, committed when
 * they have answered, and then confirmed.  Whoever sees it committed sees all that
 * was delivered to a node before the announcement to that node; so it is of use to
 * each node that has answered, whatever the others do.
 *
 * It is the one transaction that stays open while Redis is asked.  It has an xid and
 * no snapshot, but for moments: the worker reads the outbox within it, so that nobody
 * waits for a node that hangs.  What the worker writes (the side table, notes, the
 * rotation) waits for its end.  A node that does not answer within command_timeout is
 * not waited for: it gets the next one.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "utils/timestamp.h"

#include "fence/fence_beat.h"
#include "fence/fence.h"
#include "settings/settings.h"

/* At most one beat in this time. */
#define BEAT_MS				1000

static bool is_open = false;	/* the transaction; else the rest means nothing */
static uint64 xid;
static TimestampTz give_up_at;
static int	due;				/* answers */
static int	answered;
static RedisNode *answered_by[NODES_MAX];

static TimestampTz next_at = 0;

bool
fence_beat_holds_transaction(void)
{
	return is_open;
}

/* An answer to an announcement: arg tells which, as they may come late. */
static void
announcement_answered(void *arg, const RedisReply *reply)
{
	if (!is_open || (uint64) (uintptr_t) arg != xid % UINTPTR_MAX)
		return;
	due--;
	if (reply != NULL && redis_reply_integer(reply) == 1)
		answered_by[answered++] = node_answering();
}

static void
confirmation_answered(void *arg, const RedisReply *reply)
{
	/* A beat that is not confirmed is of no use, and does no harm. */
}

static bool
send_beat(RedisNode *node, const char *step, RedisAnswer answer)
{
	char		text[24];
	const char *argv[] = {
		"FCALL", "uncache_beat", "0", step, UncacheShmem->incarnation, text
	};

	snprintf(text, sizeof(text), UINT64_FORMAT, xid);
	return redis_send_texts(node->link, lengthof(argv), argv, answer,
							(void *) (uintptr_t) (xid % UINTPTR_MAX));
}

static void
begin(TimestampTz now)
{
	fence_beat_begun();
	next_at = TimestampTzPlusMilliseconds(now, BEAT_MS);
	give_up_at = TimestampTzPlusMilliseconds(now, setting_command_timeout);
	StartTransactionCommand();
	xid = U64FromFullTransactionId(GetTopFullTransactionId());
	is_open = true;
	due = answered = 0;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->open && fence_is_on(node) &&
			send_beat(node, "announce", announcement_answered))
			due++;
	}
}

/* A node that answered may be gone by now, and another may be in its place. */
static bool
is_still_there(const RedisNode *node)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i) == node)
			return node->open;
	}
	return false;
}

static void
end(void)
{
	CommitTransactionCommand();
	is_open = false;
	for (int i = 0; i < answered; i++)
	{
		if (is_still_there(answered_by[i]))
			send_beat(answered_by[i], "confirm", confirmation_answered);
	}
}

TimestampTz
fence_beat_run(TimestampTz now)
{
	if (is_open && (due <= 0 || now >= give_up_at))
		end();
	if (is_open)
		return give_up_at;
	if (setting_fence_ttl == 0 || !fence_wants_beat())
		return DT_NOEND;
	if (now < next_at)
		return next_at;
	begin(now);
	return give_up_at;
}
