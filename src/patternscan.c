/*
 * patternscan.c
 *	  Deletes the keys that patterns cover: SCAN and UNLINK, in steps.
 *
 * A pass walks the whole key space of every node once with SCAN and serves every pattern that
 * was waiting when it began; equal patterns are served as one.  Redis is asked
 * only for keys with the text that all patterns of the pass begin with, and each
 * key is checked here against the patterns before it is deleted.  What comes
 * while a pass runs waits for the next one, which begins no sooner than after as
 * long a pause as the last pass took: so a storm of TRUNCATEs keeps Redis busy
 * half of the time at the most.
 *
 * One SCAN is under way at a time at a node, and each answer is followed by the UNLINKs of
 * its keys, so other deliveries find their way in between.  SCAN returns every
 * key that exists during the whole of a pass; keys made meanwhile hold data that
 * is newer than the commit.
 *
 * When a node's link breaks, or a node is away, the patterns of the pass are lost at
 * its end, and the rows that hold them are sent again.
 *
 * In a cluster a key can move from a node that is not scanned yet to one that is, and
 * while it does the map need not change.  So every node is asked for the state of its
 * slots before and after.  Where slots are on the move, or the map changed, a second
 * pass is made: what had moved ahead of the first scan is found by the second.  A pass
 * in which a key had moved before it was deleted, or a node came up that had not been
 * scanned, does not count at all.
 *
 * Where the fence is in use all nodes get a new epoch before the first is scanned.
 * A pattern that Redis refuses (no right to SCAN, say) moves to the
 * side table like a refused key.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "fence.h"
#include "node.h"
#include "outboxside.h"
#include "patternscan.h"
#include "patternset.h"
#include "replicas.h"
#include "slotstate.h"
#include "target.h"
#include "trouble.h"

/* Buckets that one SCAN visits: some 200 microseconds of Redis's time. */
#define SCAN_COUNT		"1000"

/* Keys in one UNLINK; in a cluster one, since they must be of one slot. */
#define UNLINK_KEYS		128

/* Before a pass is made once more, at the least; doubles with each. */
#define AGAIN_FIRST_MS	100
#define AGAIN_LAST_MS	(60 * 1000)

/* A part of a delivery that waits for a pass, or is served by one. */
typedef struct Job
{
	dlist_node	node;
	Delivery   *delivery;
	PackedItem	item;			/* bytes belong to the delivery */
	PassPattern *pattern;		/* of the running pass */
	bool		had_pass;		/* this is not the first one */
} Job;

static DatabaseSlot *slot;
static MemoryContext context;	/* jobs */
static MemoryContext pass_context;	/* patterns of the pass; reset at its end */

static dlist_head waiting = DLIST_STATIC_INIT(waiting);
static int	nwaiting = 0;

/* How far the pass is at a node, in RedisNode.scan. */
typedef struct NodeScan
{
	uint64		pass;			/* of which; else the rest means nothing */
	char		cursor[32];
	bool		scanned;		/* the cursor has come round */
	uint32		slots;			/* their state when it began */
} NodeScan;

/* Of the running pass; meaningless unless "running". */
static bool running = false;
static uint64 pass_number = 0;	/* also while none is running: of the last one */
static dlist_head served = DLIST_STATIC_INIT(served);
static PatternSet patterns;
static char *match;				/* argument of SCAN MATCH */
static int	under_way;			/* commands, or epochs, without an answer */
static bool pass_lost;
static bool pass_confirmed;		/* replicas were asked, or need not be */
static bool pass_compared;		/* nodes were asked for their slots once more */
static bool pass_moves;			/* slots were on the move: a second pass is needed */
static bool pass_again;			/* it has missed keys that it knows of */
static TimestampTz pass_began;

static TimestampTz next_pass_at = 0;
static int	again_ms = AGAIN_FIRST_MS;

/* Keys may be at nodes that do not have their slots yet. */
static bool asking = false;

static void send_scan(RedisNode *node);
static void end_pass_if_done(void);

void
patternscan_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache patterns",
									ALLOCSET_DEFAULT_SIZES);
	pass_context = AllocSetContextCreate(context, "pg_uncache pattern pass",
										 ALLOCSET_DEFAULT_SIZES);
}

void
patternscan_add(Delivery *delivery, const PackedItem *item)
{
	Job		   *job = MemoryContextAllocZero(context, sizeof(Job));

	job->delivery = delivery;
	job->item = *item;
	dlist_push_tail(&waiting, &job->node);
	nwaiting++;
	pg_atomic_fetch_add_u32(&slot->stats.patterns_running, 1);
}

static void
finish_job(Job *job, PartOutcome outcome)
{
	dlist_delete(&job->node);
	pg_atomic_fetch_sub_u32(&slot->stats.patterns_running, 1);
	deliver_part_done(job->delivery, outcome, &job->item);
	pfree(job);
}

/*
 * --------------------------------------------------------------------------
 * The nodes of a pass
 * --------------------------------------------------------------------------
 */

static NodeScan *
scan_of(RedisNode *node)
{
	if (node->scan == NULL)
		node->scan = MemoryContextAllocZero(node->context, sizeof(NodeScan));
	return node->scan;
}

static bool
takes_part(RedisNode *node)
{
	return node->open && scan_of(node)->pass == pass_number;
}

static void
scan_nodes(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (takes_part(node_at(i)))
			send_scan(node_at(i));
	}
}

/* One thing less to be done before the first SCAN. */
static void
come_nearer(void)
{
	if (--under_way == 0)
		scan_nodes();
	end_pass_if_done();
}

static void
slots_told(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	scan_of(node)->slots = reply ? slotstate_read(node, reply) : SLOTS_MOVE;
	come_nearer();
}

/* No token of before the pass is good any more at this node; at all, it may begin. */
static void
tokens_are_void(bool ok, const RedisReply *reply)
{
	if (!running)
		return;
	if (!ok)
	{
		pass_lost = true;
		if (reply)
			node_note_trouble(node_answering(), reply);
	}
	come_nearer();
}

/* Which nodes there are, and their epochs; what is away is lost. */
static void
begin_at_nodes(void)
{
	pass_number++;
	under_way = 0;
	for (int i = 0; i < target_count(); i++)
		pass_lost |= !target_is_whole(target_at(i));
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);
		NodeScan   *scan = scan_of(node);

		if (!node->open)
		{
			pass_lost = true;
			continue;
		}
		scan->pass = pass_number;
		scan->scanned = false;
		scan->slots = SLOTS_MOVE;
		strcpy(scan->cursor, "0");
		if (node->in_cluster && slotstate_ask(node, slots_told))
			under_way++;
		if (!fence_is_used(node))
			continue;
		if (fence_new_epoch(node, tokens_are_void))
			under_way++;
		else
			pass_lost = true;
	}
	if (under_way == 0)
		scan_nodes();
}

/*
 * --------------------------------------------------------------------------
 * Beginning and end of a pass
 * --------------------------------------------------------------------------
 */

static void
begin_pass(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(pass_context);
	dlist_mutable_iter iter;

	patterns = NULL;
	dlist_foreach_modify(iter, &waiting)
	{
		Job		   *job = dlist_container(Job, node, iter.cur);

		job->pattern = patternset_add(&patterns, &job->item);
		if (job->pattern == NULL)
		{
			ereport(LOG,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a key pattern in the outbox cannot be read and is left out: %.*s",
							(int) Min(job->item.len, 200), job->item.bytes)));
			finish_job(job, PART_DELIVERED);
			continue;
		}
		dlist_delete(&job->node);
		dlist_push_tail(&served, &job->node);
	}
	nwaiting = 0;

	if (patterns != NULL)
	{
		running = true;
		match = patternset_glob(patterns);
		pass_lost = false;
		pass_confirmed = !replicas_are_wanted();
		pass_compared = false;
		pass_moves = false;
		pass_again = false;
		pass_began = GetCurrentTimestamp();
		begin_at_nodes();
	}
	MemoryContextSwitchTo(old_context);
}

/*
 * What is lost waits for a node to come back, unless one came back while the pass
 * went on, or all are here.
 */
static PartOutcome
outcome_of_loss(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->open && !takes_part(node_at(i)))
			return PART_AGAIN;
	}
	for (int i = 0; i < target_count(); i++)
	{
		if (!target_is_whole(target_at(i)))
			return PART_LOST;
	}
	for (int i = 0; i < node_count(); i++)
	{
		if (!node_at(i)->open)
			return PART_LOST;
	}
	return PART_AGAIN;
}

/* A job is finished, or goes back to those that wait for a pass. */
static void
leave_pass(Job *job)
{
	bool		again = pass_again || (pass_moves && !job->had_pass);

	if (again && !pass_lost && !job->pattern->refused)
	{
		job->had_pass = true;
		dlist_delete(&job->node);
		dlist_push_tail(&waiting, &job->node);
		nwaiting++;
	}
	else
		finish_job(job, pass_lost ? outcome_of_loss() :
				   job->pattern->refused ? PART_REFUSED : PART_DELIVERED);
}

/* The pause is as long as the pass was; longer where it must be made once more. */
static void
end_pass(void)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &served)
		leave_pass(dlist_container(Job, node, iter.cur));
	patternset_free(&patterns);
	running = false;
	MemoryContextReset(pass_context);

	next_pass_at = now + (now - pass_began);
	if (pass_again)
		next_pass_at = Max(next_pass_at, TimestampTzPlusMilliseconds(now, again_ms));
	asking = pass_again || pass_moves;
	again_ms = pass_again ? Min(again_ms * 2, AGAIN_LAST_MS) : AGAIN_FIRST_MS;
	if (!pass_lost && !pass_again)
		pg_atomic_fetch_add_u64(&slot->stats.pattern_passes, 1);
}

static void
replicas_answered(void *arg, const RedisReply *reply)
{
	under_way--;
	if (!replicas_note(node_answering(), reply))
		pass_lost = true;
	end_pass_if_done();
}

static void
ask_replicas(void)
{
	pass_confirmed = true;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (takes_part(node) && replicas_ask(node, replicas_answered))
			under_way++;
	}
}

static void
slots_told_again(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	uint32		slots = reply ? slotstate_read(node, reply) : SLOTS_MOVE;

	under_way--;
	if (slots == SLOTS_MOVE || slots != scan_of(node)->slots)
		pass_moves = true;
	end_pass_if_done();
}

/* Has everything been where it was looked for? */
static void
compare_slots(void)
{
	pass_compared = true;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (takes_part(node) && node->in_cluster && slotstate_ask(node, slots_told_again))
			under_way++;
	}
}

static bool
is_complete(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (!takes_part(node_at(i)))
			return false;
	}
	return true;
}

static void
end_pass_if_done(void)
{
	if (running && under_way == 0 && !pass_compared)
		compare_slots();
	if (running && under_way == 0 && !pass_confirmed)
		ask_replicas();
	if (running && under_way == 0)
	{
		pass_again |= !pass_lost && !is_complete();
		end_pass();
	}
}

/*
 * --------------------------------------------------------------------------
 * Steps of a pass
 * --------------------------------------------------------------------------
 */

/* The key that was to be deleted is about to be at another node. */
static bool
is_moving(const RedisReply *reply)
{
	return redis_reply_is_error(reply, "MOVED") || redis_reply_is_error(reply, "ASK") ||
		redis_reply_is_error(reply, "TRYAGAIN");
}

/* Redis says no to this step; its patterns will be tried again later. */
static void
note_error(const RedisReply *reply, PassPattern *pattern)
{
	const char *why;
	bool		no_right = redis_reply_is_error(reply, "NOPERM");

	if (node_answering()->in_cluster && is_moving(reply))
	{
		pass_again = true;
		return;
	}

	if (!no_right && (redis_reply_type(reply) != REDIS_ERROR || trouble_is(reply, &why)))
	{
		node_note_trouble(node_answering(), reply);
		pass_lost = true;
		return;
	}
	trouble_note_refusal(reply);
	for (PassPattern *p = patterns; p; p = p->next)
	{
		if (pattern == NULL || p == pattern)
			p->refused = true;
	}
}

static void
unlink_answered(void *arg, const RedisReply *reply)
{
	PassPattern *pattern = arg;

	under_way--;
	if (reply == NULL)
		pass_lost = true;
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		int64		existed = redis_reply_integer(reply);

		pg_atomic_fetch_add_u64(&slot->stats.keys_existed, existed);
		pg_atomic_fetch_add_u64(&slot->stats.keys, existed);
		stats_count_rule(pattern->item.rule, existed, existed);
	}
	else
		note_error(reply, pattern);
	end_pass_if_done();
}

static void
asking_answered(void *arg, const RedisReply *reply)
{
	/* What comes after it tells. */
}

static void
send_unlink(RedisNode *node, PassPattern *pattern, int nkeys, const char **argv, size_t *lens)
{
	const char *word[] = {"ASKING"};
	const size_t wordlen[] = {6};

	if (node->in_cluster && asking)
		redis_send(node->link, 1, word, wordlen, asking_answered, NULL);
	if (redis_send(node->link, 1 + nkeys, argv, lens, unlink_answered, pattern))
		under_way++;
	else
		pass_lost = true;
}

/* Delete those keys of an answer that this pattern covers. */
static void
unlink_matching(RedisNode *node, PassPattern *pattern, const RedisReply *keys)
{
	int			most = node->in_cluster ? 1 : UNLINK_KEYS;
	const char *argv[1 + UNLINK_KEYS] = {"UNLINK"};
	size_t		lens[1 + UNLINK_KEYS] = {strlen("UNLINK")};
	int			n = 0;

	for (size_t i = 0; i < redis_reply_count(keys); i++)
	{
		size_t		len;
		const char *key = redis_reply_text(redis_reply_element(keys, i), &len);

		if (!keypattern_matches(pattern->matcher, key, len))
			continue;
		argv[1 + n] = key;
		lens[1 + n] = len;
		if (++n == most)
		{
			send_unlink(node, pattern, n, argv, lens);
			n = 0;
		}
	}
	if (n > 0)
		send_unlink(node, pattern, n, argv, lens);
}

static void
scan_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	NodeScan   *scan = scan_of(node);

	under_way--;
	if (reply == NULL)
		pass_lost = true;
	else if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) == 2)
	{
		const RedisReply *keys = redis_reply_element(reply, 1);

		strlcpy(scan->cursor, redis_reply_text(redis_reply_element(reply, 0), NULL),
				sizeof(scan->cursor));
		for (PassPattern *p = patterns; p; p = p->next)
			unlink_matching(node, p, keys);
		scan->scanned = strcmp(scan->cursor, "0") == 0;
		if (!scan->scanned)
			send_scan(node);
	}
	else
		note_error(reply, NULL);
	end_pass_if_done();
}

static void
send_scan(RedisNode *node)
{
	const char *argv[] = {"SCAN", scan_of(node)->cursor, "MATCH", match, "COUNT", SCAN_COUNT};
	size_t		lens[lengthof(argv)];

	for (int i = 0; i < lengthof(argv); i++)
		lens[i] = strlen(argv[i]);
	if (redis_send(node->link, lengthof(argv), argv, lens, scan_answered, NULL))
		under_way++;
	else
		pass_lost = true;
}

TimestampTz
patternscan_turn(void)
{
	end_pass_if_done();
	if (running || nwaiting == 0)
		return DT_NOEND;
	if (GetCurrentTimestamp() < next_pass_at)
		return next_pass_at;
	begin_pass();
	end_pass_if_done();
	return nwaiting > 0 ? next_pass_at : DT_NOEND;
}

void
patternscan_note_moves(void)
{
	pass_moves = true;
}

void
patternscan_leave_out(RedisNode *node)
{
	if (node->scan != NULL)
		node->scan->pass = 0;
}

void
patternscan_forget(void)
{
	dlist_mutable_iter iter;

	if (running)
	{
		pass_lost = true;
		under_way = 0;
		end_pass();
	}
	dlist_foreach_modify(iter, &waiting)
		finish_job(dlist_container(Job, node, iter.cur), PART_LOST);
	nwaiting = 0;
	next_pass_at = 0;
}
