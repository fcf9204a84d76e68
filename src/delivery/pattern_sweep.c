/*
 * pattern_sweep.c
 *	  SCAN and UNLINK at the nodes: the steps of a pass that delete keys.
 *
 * Redis is asked only for keys with the text that all patterns of the set begin with, and
 * each key is checked here against the patterns before it is deleted.  The cursor goes from
 * each answer of SCAN into the next one, until it is 0 again.
 *
 * Of each node one SCAN is under way at a time, on a link of its own (node_scan.c).  The keys
 * of its answer are kept, and looked up in slices, one in a turn of the worker, so that
 * other deliveries are sent in between; when they are all looked up, and not too many
 * UNLINKs are under way (pattern_unlink.c), the next SCAN is sent.  SCAN returns every key
 * that exists during the whole of a walk; keys made meanwhile hold data that is newer than
 * the commit.
 *
 * A SCAN that breaks its link is repeated smaller, and a pattern whose keys can't be read even so
 * is set aside (scan_step.h).  A node's own link that breaks ends the walk there, and the sweep is
 * lost; the other nodes are walked to the end.  A pattern that Redis refuses (no right to
 * SCAN, say) is marked so, and the sweep goes on.  A key that a node of a
 * cluster redirects is not followed: it counts as missed.  After a crash the pass is made again
 * from its beginning; to delete keys again is harmless.
 *
 * It costs every node its whole key space, however few keys match.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/log_throttle.h"
#include "delivery/pattern_sweep.h"
#include "delivery/pattern_unlink.h"
#include "delivery/scan_step.h"
#include "delivery/stream.h"
#include "settings/settings.h"
#include "redis/redis_error.h"
#include "topology/cluster_map.h"

/*
 * Work of a slice: some 100 microseconds.  A unit is what it takes to try one byte of a key
 * with one part of a pattern; to get at a key, or at the next pattern, costs as much as a
 * few of these.
 */
#define SLICE_WORK		10000
#define STEP_WORK		16

/* So often in a row the node's own link may break at a step of one key. */
#define LOST_AT_ONE_KEY	2

/* That patterns were set aside is logged at most so often: they are tried every minute. */
#define LOG_MS			(60 * 60 * 1000)

/* A key that the walk has found, and that Redis does not delete. */
typedef struct KeptKey
{
	struct KeptKey *next;
	size_t		len;
	char		bytes[FLEXIBLE_ARRAY_MEMBER];
} KeptKey;

/* The walk over a node, in RedisNode.walk. */
typedef struct NodeWalk
{
	uint64		sweep;			/* of which; else only the next two mean anything */
	ScanStep	step;
	int			lost_at_one;	/* times in a row, see above */

	bool		asked;			/* a SCAN is under way */
	TimestampTz asked_at;

	/* Keys that are not looked up yet: a uint32 for the length, then the key. */
	StringInfoData found;
	int			next_found;		/* offset of the next one */
	KeptKey    *refused;

	/* The key that is being looked up. */
	bool		searching;
	KeptKey    *is_refused;		/* then every pattern that covers it is refused, too; or NULL */
	PatternSearch search;
} NodeWalk;

static void (*answered) (void);

/* Of the running sweep. */
static PatternSweep sweep;
static uint64 sweep_number = 0;
static MemoryContext context;
static PatternSet *patterns = NULL; /* NULL while there is none */
static char *match;				/* argument of SCAN MATCH */
static bool set_aside;			/* some pattern is */

/* The work of the sweep, for the log at DEBUG1. */
static struct
{
	uint64		scans;
	uint64		breaks;
	uint64		keys;
	uint64		tried;			/* patterns, against a key */
	uint64		slices;
	int			most;			/* work of a slice */
}			cost;

static void key_refused(RedisNode *node, const char *key, size_t len);

void
pattern_sweep_init(void (*when_answered) (void))
{
	answered = when_answered;
	pattern_unlink_init(key_refused);
}

void
pattern_sweep_begin(PatternSet *set, bool asking)
{
	Assert(patterns == NULL && pattern_set_count(set) > 0);
	patterns = set;
	context = CurrentMemoryContext;
	match = pattern_set_glob(set);
	set_aside = false;
	sweep_number++;
	memset(&sweep, 0, sizeof(sweep));
	memset(&cost, 0, sizeof(cost));
	pattern_unlink_begin(asking);
}

void
pattern_sweep_end(void)
{
	Assert(patterns != NULL);
	elog(DEBUG1, "pass for %d patterns: " UINT64_FORMAT " scans, " UINT64_FORMAT " breaks, "
		 UINT64_FORMAT " keys, " UINT64_FORMAT " tried, " UINT64_FORMAT " slices, most work %d",
		 pattern_set_count(patterns), cost.scans, cost.breaks, cost.keys, cost.tried, cost.slices,
		 cost.most);
	for (int i = 0; i < node_count(); i++)
		node_release_scan_link(node_at(i));
	patterns = NULL;
	sweep_number++;
}

PatternSweep
pattern_sweep_state(void)
{
	PatternSweep state = sweep;

	state.lost |= pattern_unlink_lost();
	state.missed |= pattern_unlink_missed();
	return state;
}

/* NULL for a node that is not walked in this sweep. */
static NodeWalk *
walk_of(RedisNode *node)
{
	NodeWalk   *walk = node->walk;

	return walk != NULL && walk->sweep == sweep_number ? walk : NULL;
}

void
pattern_sweep_node(RedisNode *node)
{
	NodeWalk   *walk;

	Assert(patterns != NULL);
	if (node->walk == NULL)
		node->walk = MemoryContextAllocZero(node->context, sizeof(NodeWalk));
	walk = node->walk;
	walk->sweep = sweep_number;
	scan_step_begin(&walk->step, pattern_set_count(patterns));
	walk->asked = false;
	walk->refused = NULL;
	walk->searching = false;
	walk->is_refused = NULL;
	walk->next_found = 0;
	walk->found.len = 0;
	walk->found.data = NULL;
}

static bool
has_keys(const NodeWalk *walk)
{
	return walk->searching || walk->refused != NULL || walk->next_found < walk->found.len;
}

static bool
is_through(const NodeWalk *walk)
{
	return !walk->asked && !has_keys(walk) && scan_step_next(&walk->step) == SCAN_DONE;
}

void
pattern_sweep_leave(RedisNode *node)
{
	NodeWalk   *walk = patterns != NULL ? walk_of(node) : NULL;

	if (walk == NULL)
		return;
	sweep.lost |= !is_through(walk);
	walk->sweep = 0;
}

bool
pattern_sweep_is_done(void)
{
	if (pattern_unlink_under_way() > 0)
		return false;
	for (int i = 0; i < node_count(); i++)
	{
		NodeWalk   *walk = walk_of(node_at(i));

		if (walk != NULL && !is_through(walk))
			return false;
	}
	return true;
}

/*
 * --------------------------------------------------------------------------
 * Refused, or set aside
 * --------------------------------------------------------------------------
 */

/* A Redis whose user may not SCAN, or a proxy that has none, deletes single keys all the same. */
static bool
cannot_scan(const RedisReply *reply)
{
	return redis_reply_is_error(reply, "NOPERM") || redis_error_is_unknown_command(reply);
}

/* Redis says no to SCAN; the patterns will be tried again later. */
static void
scan_refused(RedisNode *node, const RedisReply *reply)
{
	const char *why;

	if (node->in_cluster && cluster_map_is_moving(reply))
		sweep.missed = true;
	else if (!cannot_scan(reply) &&
			 (redis_reply_type(reply) != REDIS_ERROR || redis_error_is_fatal(reply, &why)))
	{
		node_note_trouble(node, reply);
		sweep.lost = true;
	}
	else
	{
		shmem_note_error(MyDatabaseState, redis_error_note_refusal(reply));
		for (PassPattern *p = pattern_set_first(patterns); p; p = p->next)
			p->refused = true;
	}
}

static void
note_aside(RedisNode *node, const char *error)
{
	static LogThrottle throttle;
	char		message[400];

	snprintf(message, sizeof(message),
			 "a SCAN for one key at a time breaks the connection, "
			 "so patterns are set aside and tried again: %s",
			 error[0] ? error : node->name);
	shmem_note_error(MyDatabaseState, message);
	if (set_aside || !log_throttle_passes(&throttle, NULL, clock_now(), LOG_MS))
		return;
	ereport(LOG,
			(errmsg("%s", message),
			 errdetail("Redis holds a very long key that a pattern in the outbox covers, or "
					   "it ends connections with large answers (client-output-buffer-limit), or "
					   "it takes longer for a step than uncache.command_timeout. "
					   "All other keys of the patterns are deleted."),
			 errhint("Delete that key, or raise the limit; or forget the patterns, which the view "
					 "uncache.backlog shows, with uncache.discard_backlog().")));
}

static void
set_pattern_aside(PassPattern *pattern)
{
	Assert(patterns != NULL);
	pattern->aside = true;
	set_aside = true;
}

static void
set_all_aside(void)
{
	for (PassPattern *p = pattern_set_first(patterns); p; p = p->next)
		set_pattern_aside(p);
}

/*
 * The node's own link is gone, too: a step that takes Redis too long takes both.  The next
 * walk begins with smaller steps, or not at all.
 */
static void
step_lost(RedisNode *node, NodeWalk *walk)
{
	sweep.lost = true;
	if (walk->step.count > 1)
		(void) scan_step_broke(&walk->step);
	else if (++walk->lost_at_one >= LOST_AT_ONE_KEY)
	{
		note_aside(node, node_scan_error(node));
		set_all_aside();
	}
	walk->step.walking = false;
}

static void
step_broke(RedisNode *node, NodeWalk *walk)
{
	cost.breaks++;
	switch (scan_step_broke(&walk->step))
	{
		case BREAK_REPEAT:
			break;
		case BREAK_ONE:
			note_aside(node, node_scan_error(node));
			set_pattern_aside(pattern_set_nth(patterns, scan_step_aside(&walk->step)));
			break;
		case BREAK_ALL:
			note_aside(node, node_scan_error(node));
			set_all_aside();
			break;
	}
}

/*
 * --------------------------------------------------------------------------
 * SCAN
 * --------------------------------------------------------------------------
 */

/* Keep the keys of an answer; returns their bytes. */
static size_t
keep_keys(NodeWalk *walk, const RedisReply *keys)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	size_t		bytes = 0;

	Assert(!has_keys(walk) || walk->found.len == walk->next_found);
	if (walk->found.data == NULL)
		initStringInfo(&walk->found);
	resetStringInfo(&walk->found);
	walk->next_found = 0;
	for (size_t i = 0; i < redis_reply_count(keys); i++)
	{
		size_t		len;
		const char *key = redis_reply_text(redis_reply_element(keys, i), &len);
		uint32		head = (uint32) len;

		if (stream_is_key(key, len))
			continue;			/* its readers would lose their places */
		appendBinaryStringInfo(&walk->found, (const char *) &head, sizeof(head));
		appendBinaryStringInfo(&walk->found, key, len);
		bytes += len;
	}
	MemoryContextSwitchTo(old);
	return bytes;
}

static void
scan_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();
	NodeWalk   *walk = patterns != NULL ? walk_of(node) : NULL;

	if (walk == NULL)
		return;					/* it was not walked to the end */
	Assert(walk->asked);
	walk->asked = false;
	if (reply == NULL && node->link == NULL)
		step_lost(node, walk);
	else if (reply == NULL)
		step_broke(node, walk);
	else if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) == 2)
	{
		const char *cursor = redis_reply_text(redis_reply_element(reply, 0), NULL);
		size_t		bytes = keep_keys(walk, redis_reply_element(reply, 1));
		int			ms = (int) ((clock_now() - walk->asked_at) / 1000);

		walk->lost_at_one = 0;
		if (!scan_step_answered(&walk->step, cursor, bytes, ms, setting_command_timeout))
			sweep.missed = true;
	}
	else
	{
		scan_refused(node, reply);
		walk->step.walking = false;
	}
	answered();
}

static const char *
match_of(ScanAsk what, const ScanStep *step)
{
	ScanRange	range;

	if (what == SCAN_FOR_ALL)
		return match;
	if (what == SCAN_FOR_NONE)
		return "";
	range = scan_step_range(step);
	return pattern_set_glob_of(patterns, range.from, range.count);
}

/* Send the next SCAN, if there is a link for it. */
static void
ask(RedisNode *node, NodeWalk *walk)
{
	RedisLink  *link = node_scan_link(node);
	MemoryContext old;
	char		count[12];
	const char *argv[] = {"SCAN", walk->step.cursor, "MATCH", NULL, "COUNT", count};

	Assert(!walk->asked && !has_keys(walk));
	if (link == NULL)
		return;
	old = MemoryContextSwitchTo(context);
	argv[3] = match_of(scan_step_next(&walk->step), &walk->step);
	MemoryContextSwitchTo(old);
	snprintf(count, sizeof(count), "%u", walk->step.count);
	walk->asked = redis_send_texts(link, lengthof(argv), argv, scan_answered, NULL);
	walk->asked_at = clock_now();
	cost.scans++;
}

/*
 * --------------------------------------------------------------------------
 * Looking keys up
 * --------------------------------------------------------------------------
 */

static void
key_refused(RedisNode *node, const char *key, size_t len)
{
	NodeWalk   *walk = walk_of(node);
	KeptKey    *refused;

	Assert(patterns != NULL || walk == NULL);
	if (walk == NULL)
		return;
	refused = MemoryContextAlloc(context, offsetof(KeptKey, bytes) + len);
	refused->len = len;
	memcpy(refused->bytes, key, len);
	refused->next = walk->refused;
	walk->refused = refused;
}

/* Begin with the next key, unless one is being looked up.  False where there is none. */
static bool
have_key(NodeWalk *walk)
{
	uint32		len;

	if (walk->searching)
		return true;
	if (walk->is_refused)
		pfree(walk->is_refused);
	walk->is_refused = walk->refused;
	if (walk->refused != NULL)
	{
		walk->refused = walk->refused->next;
		pattern_set_search(&walk->search, patterns, walk->is_refused->bytes, walk->is_refused->len);
	}
	else if (walk->next_found < walk->found.len)
	{
		memcpy(&len, walk->found.data + walk->next_found, sizeof(len));
		pattern_set_search(&walk->search, patterns,
						   walk->found.data + walk->next_found + sizeof(len), len);
		walk->next_found += sizeof(len) + len;
		cost.keys++;
	}
	else
		return false;
	walk->searching = true;
	return true;
}

/* Look at one pattern for the key.  Returns the work. */
static int
try_pattern(RedisNode *node, NodeWalk *walk)
{
	const PatternSearch *search = &walk->search;
	PassPattern *pattern;

	Assert(walk->searching && search->set == patterns);
	walk->searching = pattern_set_next(&walk->search, &pattern);
	if (pattern == NULL)
		return STEP_WORK;
	cost.tried++;
	if (keypattern_matches(pattern->matcher, search->key, search->len))
	{
		if (walk->is_refused)
			pattern->refused = true;
		else
		{
			pattern_unlink_add(node, pattern->item.rule, search->key, search->len);
			walk->searching = false;
		}
	}
	return STEP_WORK + keypattern_work(pattern->matcher, search->len);
}

/* Returns the work that is left. */
static int
look_up_some(RedisNode *node, NodeWalk *walk, int work)
{
	while (work > 0 && pattern_unlink_has_room(node) && have_key(walk))
		work -= try_pattern(node, walk);
	pattern_unlink_send(node);
	return work;
}

static TimestampTz
turn_node(RedisNode *node, NodeWalk *walk, int *work)
{
	*work = look_up_some(node, walk, *work);
	if (has_keys(walk))
		return pattern_unlink_has_room(node) ? 0 : DT_NOEND;
	if (walk->asked || scan_step_next(&walk->step) == SCAN_DONE)
		return DT_NOEND;
	ask(node, walk);
	return walk->asked ? DT_NOEND : node_scan_link_retry_at(node);
}

TimestampTz
pattern_sweep_run(void)
{
	static int	first = 0;		/* the nodes take turns in being first */
	TimestampTz wake = DT_NOEND;
	int			work = SLICE_WORK;
	int			n = node_count();

	if (patterns == NULL)
		return DT_NOEND;
	for (int i = 0; i < n; i++)
	{
		RedisNode  *node = node_at((first + i) % n);
		NodeWalk   *walk = walk_of(node);

		if (walk != NULL && node->link != NULL)
			wake = Min(wake, turn_node(node, walk, &work));
	}
	first++;
	if (work < SLICE_WORK)
		cost.slices++;
	cost.most = Max(cost.most, SLICE_WORK - work);
	return wake;
}
