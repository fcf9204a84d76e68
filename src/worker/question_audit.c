/*
 * question_audit.c
 *	  The worker's answer to uncache.audit_keys(): some keys of Redis, and whether they have
 *	  a TTL.
 *
 * The keys come from SCAN, whose order is that of a hash, so that its first keys are as good
 * a sample as any; where Redis has no more keys than are wanted it is all of them.  SCAN and
 * PTTL change nothing and count as no use of a key.  They go by the link that patterns use
 * (node_scan.c), so that no commit waits for them; when a pass closes it, or an answer breaks
 * it, the step is repeated a few times.  A key may then come twice.
 *
 * pg_uncache's own keys are left out: the fence's records, and the stream.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/pattern_scan.h"
#include "delivery/stream.h"
#include "redis/redis_error.h"
#include "settings/settings.h"
#include "topology/node.h"
#include "topology/target.h"
#include "worker/question.h"
#include "worker/worker_int.h"

/* A step of SCAN: some hundred microseconds of Redis. */
#define SCAN_COUNT		500

/* Where most keys are pg_uncache's own, or most of a table is empty, so many steps are enough. */
#define MOST_STEPS		2000

/* How often a node's link may break. */
#define MOST_BREAKS		3

/* Bytes of keys; with keys of a usual size more than AUDIT_MOST_KEYS. */
#define MOST_BYTES		(16 * 1024 * 1024)

/* While a link is being opened look again after this; and give up all after that. */
#define OPENING_MS		10
#define PATIENCE_MS		20000

typedef struct NodeAudit
{
	RedisNode  *node;
	bool		done;
	bool		answered;		/* SCAN, once at least */
	bool		complete;		/* done, and nothing is missing */
	char		cursor[24];		/* 20 digits at the most */
	int			steps;
	int			breaks;
	int			due;			/* commands without an answer */
	int			taken;			/* keys */
	List	   *untold;			/* offsets in "keys" of those whose TTL is asked for, in order */
} NodeAudit;

/* The running audit; context is NULL without one. */
static MemoryContext context = NULL;
static uint32 number = 0;		/* of the question, so that late answers are known */
static int32 wanted;			/* keys of each node */
static bool started;
static TimestampTz begun_at;
static NodeAudit *audits;
static int	naudits;
static uint32 nnodes;			/* with those that have no link, and so no NodeAudit */
static StringInfoData keys;		/* the answer: AuditedKey and bytes, without padding */

void
question_audit_begin(const char *question, size_t len)
{
	Assert(len == sizeof(int32));
	context = CurrentMemoryContext;
	memcpy(&wanted, question, sizeof(int32));
	number++;
	started = false;
	begun_at = clock_now();
	audits = NULL;
	naudits = 0;
	initStringInfo(&keys);
}

void
question_audit_end(void)
{
	context = NULL;
	for (int i = 0; i < node_count() && !pattern_scan_is_running(); i++)
		node_release_scan_link(node_at(i));
}

/* A cluster of which no node is known yet counts as one. */
static uint32
count_nodes(void)
{
	uint32		count = node_count();

	for (int t = 0; t < target_count(); t++)
	{
		bool		found = false;

		for (int i = 0; i < node_count() && !found; i++)
			found = node_at(i)->target == target_at(t);
		count += !found;
	}
	return count;
}

static void
start(void)
{
	nnodes = count_nodes();
	audits = palloc0(sizeof(NodeAudit) * Max(node_count(), 1));
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->link == NULL)
			continue;
		audits[naudits].node = node_at(i);
		strcpy(audits[naudits++].cursor, "0");
	}
	wanted = (wanted + naudits - 1) / Max(naudits, 1);
}

/*
 * --------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------
 */

static NodeAudit *
answering_audit(void)
{
	for (int i = 0; i < naudits; i++)
	{
		if (audits[i].node == node_answering())
			return &audits[i];
	}
	return NULL;
}

/* Count an answer; NULL where it is of an earlier question. */
static NodeAudit *
take_answer(void *arg)
{
	NodeAudit  *audit = context != NULL && (uintptr_t) arg == number ? answering_audit() : NULL;

	if (audit != NULL)
		audit->due--;
	return audit;
}

static bool
is_own(const char *key, size_t len)
{
	if (len > 8 && (memcmp(key, "uncache:{", 9) == 0 || memcmp(key, "uncache::", 9) == 0))
		return true;
	return stream_is_key(key, len);
}

static void
ttl_answered(void *arg, const RedisReply *reply)
{
	NodeAudit  *audit = take_answer(arg);
	MemoryContext old_context;
	AuditedKey	head;
	int			at;

	if (audit == NULL || audit->untold == NIL)
		return;
	old_context = MemoryContextSwitchTo(context);
	at = linitial_int(audit->untold);
	audit->untold = list_delete_first(audit->untold);
	if (reply != NULL && redis_reply_type(reply) == REDIS_INTEGER)
	{
		memcpy(&head, keys.data + at, sizeof(head));
		head.ttl = redis_reply_integer(reply) == -1 ? 'f' : 't';
		memcpy(keys.data + at, &head, sizeof(head));
	}
	MemoryContextSwitchTo(old_context);
}

static void
ask_ttl(NodeAudit *audit, RedisLink *link, const char *key, size_t len, int at)
{
	const char *words[] = {"PTTL", key};
	const size_t lens[] = {4, len};

	if (!redis_send(link, 2, words, lens, ttl_answered, (void *) (uintptr_t) number))
		return;
	audit->due++;
	audit->untold = lappend_int(audit->untold, at);
}

static void
take_key(NodeAudit *audit, RedisLink *link, const RedisReply *reply)
{
	size_t		len;
	const char *key = redis_reply_text(reply, &len);
	AuditedKey	head = {
		.len = Min(len, AUDIT_KEY_BYTES), .whole = len <= AUDIT_KEY_BYTES, .ttl = '?'
	};
	int			at = keys.len;

	if (audit->taken >= wanted || keys.len > MOST_BYTES || is_own(key, len))
		return;
	audit->taken++;
	appendBinaryStringInfo(&keys, (char *) &head, sizeof(head));
	appendBinaryStringInfo(&keys, key, head.len);
	ask_ttl(audit, link, key, len, at);
}

static void
take_keys(NodeAudit *audit, const RedisReply *reply)
{
	const RedisReply *found = redis_reply_element(reply, 1);
	RedisLink  *link = node_scan_link(audit->node);

	/* Without a link the step is repeated. */
	if (link == NULL)
		return;
	audit->answered = true;
	strlcpy(audit->cursor, redis_reply_text(redis_reply_element(reply, 0), NULL),
			sizeof(audit->cursor));
	for (size_t i = 0; i < redis_reply_count(found); i++)
		take_key(audit, link, redis_reply_element(found, i));
	if (strcmp(audit->cursor, "0") == 0 || audit->taken >= wanted || keys.len > MOST_BYTES ||
		++audit->steps >= MOST_STEPS)
		audit->done = audit->complete = true;
}

/* An error, such as -NOPERM, ends the node's part. */
static void
scan_answered(void *arg, const RedisReply *reply)
{
	NodeAudit  *audit = take_answer(arg);
	MemoryContext old_context;

	if (audit == NULL)
		return;
	if (reply == NULL)
	{
		audit->done = ++audit->breaks >= MOST_BREAKS;
		return;
	}
	if (redis_reply_type(reply) != REDIS_ARRAY || redis_reply_count(reply) != 2)
	{
		node_note_error(audit->node, "uncache.audit_keys() cannot use SCAN: %s",
						redis_error_text(reply));
		audit->done = true;
		return;
	}
	old_context = MemoryContextSwitchTo(context);
	take_keys(audit, reply);
	MemoryContextSwitchTo(old_context);
}

/*
 * --------------------------------------------------------------------------
 * Going on
 * --------------------------------------------------------------------------
 */

static bool
still_exists(const RedisNode *node)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i) == node)
			return node->link != NULL;
	}
	return false;
}

/* Returns whether the node is through. */
static bool
go_on(NodeAudit *audit, TimestampTz now, TimestampTz *wake)
{
	const char *words[] = {"SCAN", audit->cursor, "COUNT", CppAsString2(SCAN_COUNT)};
	RedisLink  *link;

	if (!still_exists(audit->node))
		return true;
	if (audit->due > 0 || audit->done)
		return audit->due == 0;
	link = node_scan_link(audit->node);
	if (link == NULL)
		*wake = Min(*wake, TimestampTzPlusMilliseconds(now, OPENING_MS));
	else if (redis_send_texts(link, lengthof(words), words, scan_answered,
							  (void *) (uintptr_t) number))
		audit->due++;
	else
		audit->done = true;
	return audit->done;
}

static void
write_answer(StringInfo answer)
{
	AuditSummary summary = {.nodes = nnodes};

	for (int i = 0; i < naudits; i++)
	{
		summary.answered += audits[i].answered;
		summary.complete += audits[i].complete;
	}
	appendBinaryStringInfo(answer, (char *) &summary, sizeof(summary));
	appendBinaryStringInfo(answer, keys.data, keys.len);
}

/* Whether a link may be there in a moment. */
static bool
is_connecting(TimestampTz now)
{
	return pg_atomic_read_u32(&MyDatabaseState->state) == WORKER_CONNECTING &&
		!TimestampDifferenceExceeds(begun_at, now,
									setting_connect_timeout + setting_command_timeout);
}

bool
question_audit_run(TimestampTz now, TimestampTz *wake, StringInfo answer)
{
	TimestampTz end = TimestampTzPlusMilliseconds(begun_at, PATIENCE_MS);
	bool		through = true;

	if (!started && is_connecting(now))
	{
		*wake = TimestampTzPlusMilliseconds(now, OPENING_MS);
		return false;
	}
	if (!started)
		start();
	started = true;
	*wake = end;
	for (int i = 0; i < naudits; i++)
		through &= go_on(&audits[i], now, wake);
	if (!through && now < end)
		return false;
	write_answer(answer);
	return true;
}
