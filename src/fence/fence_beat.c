/*
 * fence_beat.c
 *	  Beats: marker transactions.  A snapshot that sees one as committed has seen
 *	  everything that was delivered before it.
 *
 * The worker announces a beat to every node while its transaction is open, commits it
 * when they have answered, and then confirms it.  A snapshot that sees the beat
 * committed sees all that was delivered to a node before the announcement to that
 * node.  So the proof holds for each node that has answered, whatever the others do.
 *
 * It is the one transaction that stays open while Redis is asked.  It has an xid, and a
 * snapshot only for the moments in which the worker reads the outbox within it, so that
 * a node that hangs holds up no delivery.  What the worker writes (the side table,
 * overflow markers, the rotation) waits for the end of the beat.  The worker does not
 * wait longer than command_timeout for a node's answer: that node gets the next beat.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "utils/timestamp.h"

#include "fence/fence_int.h"
#include "settings/settings.h"

/*
 * At most one beat in this time, however many refused fills ask: five transaction ids and as
 * many commit records a second are little beside the writes that make fills wait for beats.
 */
#define BEAT_MS				200

/* Whether the transaction is open; otherwise the variables after it mean nothing. */
static bool is_open = false;
static uint64 xid;
static TimestampTz give_up_at;
static int	due;				/* announcements without an answer */
static int	answered;
static RedisNode *answered_by[NODES_MAX];

static TimestampTz next_at = 0;

bool
fence_beat_holds_transaction(void)
{
	return is_open;
}

/* arg tells which beat was announced, since an answer may come after its beat has ended. */
static void
announcement_answered(void *arg, const RedisReply *reply)
{
	if (!is_open || (uint64) (uintptr_t) arg != xid % UINTPTR_MAX)
		return;
	Assert(due > 0 && answered < NODES_MAX);
	due--;
	if (reply != NULL && redis_reply_integer(reply) == 1)
		answered_by[answered++] = node_answering();
}

static void
confirmation_answered(void *arg, const RedisReply *reply)
{
	/* A beat that is not confirmed proves nothing, and does no harm. */
}

static bool
send_beat(RedisNode *node, const char *step, RedisAnswer answer)
{
	char		text[24];
	const char *argv[] = {
		"FCALL", "uncache_beat", "0", step, UncacheShmem->incarnation, text
	};

	Assert(node->link != NULL && xid != 0);
	snprintf(text, sizeof(text), UINT64_FORMAT, xid);
	return redis_send_texts(node->link, lengthof(argv), argv, answer,
							(void *) (uintptr_t) (xid % UINTPTR_MAX));
}

static void
begin(TimestampTz now)
{
	Assert(!is_open && !IsTransactionState());
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
	Assert(is_open && IsTransactionState() && answered <= NODES_MAX);
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
	/* The next one begins in another turn: some things are done without a transaction only. */
	if (is_open && (due <= 0 || now >= give_up_at))
	{
		end();
		return now;
	}
	if (is_open)
		return give_up_at;
	if (setting_fence_ttl == 0 || !node_turn_is_full() || !fence_wants_beat())
		return DT_NOEND;
	if (now < next_at)
		return next_at;
	begin(now);
	return give_up_at;
}
