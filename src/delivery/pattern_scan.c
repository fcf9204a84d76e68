/*
 * pattern_scan.c
 *	  One walk over all keys of all nodes, which deletes those that patterns cover.
 *
 *		ask for new epochs and the state of the slots	begin_at_nodes()
 *		SCAN a node, UNLINK what matches, SCAN on		at all nodes at the same time
 *		ask for the state of the slots once more		compare_slots()
 *		have replicas acknowledge						ask_replicas()
 *
 * Each step begins when all answers of the one before are there.  Here it is known which
 * nodes take part and whether the pass counts; pattern_sweep.c deletes the keys.
 *
 * When a node's link breaks, or a node is away, the pass goes on at the others, and is lost
 * at its end.  Its keys may be deleted or not; it is for the caller to have the patterns
 * sent again.  All of it is in memory: a crash loses the pass, too.
 *
 * In a cluster a key can move from a node that is not scanned yet to one that is, and
 * while it does the map need not change.  So every node is asked for the state of its
 * slots before and after.  Where slots are on the move, or the map changed, a second
 * pass is needed: it finds the keys that had moved ahead of the first scan.  A pass
 * in which a key had moved before it was deleted, or a node came up that had not been
 * scanned, does not count at all.
 *
 * Where the fence is in use all nodes get a new epoch before the first is scanned.
 *
 * There is one pass at a time.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "fence/fence.h"
#include "topology/node.h"
#include "delivery/pattern_scan.h"
#include "delivery/pattern_sweep.h"
#include "delivery/replica_ack.h"
#include "topology/target.h"

/* The part of a node in a pass, in RedisNode.scan. */
typedef struct NodeScan
{
	uint64		pass;			/* of which; else the rest means nothing */
	uint32		slots;			/* their state when it began */
} NodeScan;

static PatternPassEnded ended;

/* Of the running pass; meaningless unless "running". */
static bool running = false;
static uint64 pass_number = 0;	/* also while none is running: of the last one */
static int	under_way;			/* questions and epochs without an answer; the sweep has its own */
static bool pass_scans;			/* the sweep has begun at the nodes */
static bool pass_lost;
static bool pass_confirmed;		/* replicas were asked, or need not be */
static bool pass_compared;		/* nodes were asked for their slots once more */
static bool pass_moves;			/* slots were on the move: a second pass is needed */
static bool pass_again;			/* it has missed keys that it knows of */
static TimestampTz pass_began;

/* Keys may be at nodes that do not have their slots yet. */
static bool asking = false;

static void end_pass_if_done(void);

void
pattern_scan_init(PatternPassEnded when_ended)
{
	ended = when_ended;
	pattern_sweep_init(end_pass_if_done);
}

bool
pattern_scan_is_running(void)
{
	return running;
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
	Assert(under_way == 0);
	pass_scans = true;
	for (int i = 0; i < node_count(); i++)
	{
		if (takes_part(node_at(i)))
			pattern_sweep_node(node_at(i));
	}
}

/* One thing less to be done before the first SCAN. */
static void
pre_scan_answered(void)
{
	Assert(under_way > 0 && !pass_scans);
	if (--under_way == 0)
		scan_nodes();
	end_pass_if_done();
}

static void
slots_told(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	scan_of(node)->slots = reply ? cluster_migration_read(node, reply) : SLOTS_MOVE;
	pre_scan_answered();
}

/* This node's tokens are void, or it failed.  Once all nodes have said so the scans begin. */
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
	pre_scan_answered();
}

/* Note the nodes, and have them get new epochs.  A node that is away loses the pass. */
static void
begin_at_nodes(void)
{
	Assert(running && !pass_scans);
	pass_number++;
	under_way = 0;
	for (int i = 0; i < target_count(); i++)
		pass_lost |= !target_is_connected(target_at(i));
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
		scan->slots = SLOTS_MOVE;
		if (node->in_cluster && cluster_migration_ask(node, slots_told))
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

void
pattern_scan_begin(PatternSet *set)
{
	Assert(!running && pattern_set_count(set) > 0);
	running = true;
	pass_scans = false;
	pattern_sweep_begin(set, asking);
	pass_lost = false;
	pass_confirmed = !replica_ack_are_wanted();
	pass_compared = false;
	pass_moves = false;
	pass_again = false;
	pass_began = clock_now();
	begin_at_nodes();
}

/*
 * --------------------------------------------------------------------------
 * End of a pass
 * --------------------------------------------------------------------------
 */

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

/*
 * A lost pass waits for a node to come back, unless one came back while the pass went on, or
 * all are here.
 */
static PartOutcome
outcome_of_loss(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->open && !takes_part(node_at(i)))
			return PART_RETRY_SOON;
	}
	for (int i = 0; i < target_count(); i++)
	{
		if (!target_is_connected(target_at(i)))
			return PART_NO_REPLY;
	}
	for (int i = 0; i < node_count(); i++)
	{
		if (!node_at(i)->open)
			return PART_NO_REPLY;
	}
	return PART_RETRY_SOON;
}

static void
end_pass(void)
{
	PatternPassEnd end = {.began = pass_began, .moves = pass_moves};
	PatternSweep sweep = pattern_sweep_state();

	Assert(running && under_way == 0);
	pass_lost |= sweep.lost;
	pass_again |= sweep.missed;
	pass_again |= !pass_lost && !is_complete();
	end.outcome = pass_lost ? outcome_of_loss() : PART_DELIVERED;
	end.again = pass_again;

	running = false;
	pattern_sweep_end();
	asking = pass_again || pass_moves;
	if (!pass_lost && !pass_again)
		pg_atomic_fetch_add_u64(&MyDatabaseState->stats.pattern_passes, 1);
	ended(&end);
}

static void
replicas_answered(void *arg, const RedisReply *reply)
{
	Assert(under_way > 0 && pass_confirmed);
	under_way--;
	if (!replica_ack_note(node_answering(), reply))
		pass_lost = true;
	end_pass_if_done();
}

static void
ask_replicas(void)
{
	Assert(under_way == 0 && pass_compared);
	pass_confirmed = true;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (takes_part(node) && replica_ack_ask(node, replicas_answered))
			under_way++;
	}
}

static void
slots_told_again(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	uint32		slots = reply ? cluster_migration_read(node, reply) : SLOTS_MOVE;

	Assert(under_way > 0 && pass_compared);
	under_way--;
	if (slots == SLOTS_MOVE || slots != scan_of(node)->slots)
		pass_moves = true;
	end_pass_if_done();
}

/* Has everything been where it was looked for? */
static void
compare_slots(void)
{
	Assert(under_way == 0 && pass_scans);
	pass_compared = true;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (takes_part(node) && node->in_cluster && cluster_migration_ask(node, slots_told_again))
			under_way++;
	}
}

static bool
all_answered(void)
{
	return under_way == 0 && pass_scans && pattern_sweep_is_done();
}

static void
end_pass_if_done(void)
{
	if (running && all_answered() && !pass_compared)
		compare_slots();
	if (running && all_answered() && !pass_confirmed)
		ask_replicas();
	if (running && all_answered())
		end_pass();
}

TimestampTz
pattern_scan_run(void)
{
	TimestampTz wake = pattern_sweep_run();

	end_pass_if_done();
	return wake;
}

void
pattern_scan_note_moves(void)
{
	pass_moves = true;
}

void
pattern_scan_leave_out(RedisNode *node)
{
	if (node->scan == NULL)
		return;
	pass_lost |= running && node->scan->pass == pass_number;
	pattern_sweep_leave(node);
	node->scan->pass = 0;
}

void
pattern_scan_break(void)
{
	if (running)
	{
		pass_lost = true;
		under_way = 0;
		end_pass();
	}
}
