/*
 * patternsweep.c
 *	  SCAN and UNLINK at the nodes: the steps of a pass that delete keys.
 *
 * Redis is asked only for keys with the text that all patterns of the set begin with, and
 * each key is checked here against the patterns before it is deleted.  The cursor goes from
 * each answer of SCAN into the next one, until it is 0 again.
 *
 * One SCAN is under way at a time at a node, and each answer is followed by the UNLINKs of
 * its keys, so other deliveries find their way in between.  SCAN returns every
 * key that exists during the whole of a walk; keys made meanwhile hold data that
 * is newer than the commit.
 *
 * A link that breaks ends the walk at its node, and the sweep is lost; the other nodes are
 * walked to the end.  A pattern that Redis refuses (no right to SCAN, say) is marked so,
 * and the sweep goes on.  What a node of a cluster redirects is not followed: a key that
 * moves is missed, and that is said.  What has been deleted when a crash comes is deleted;
 * to delete it again does no harm.
 *
 * It costs every node its whole key space, however few keys match.
 */
#include "postgres.h"

#include "patternsweep.h"
#include "stats.h"
#include "trouble.h"

/* Buckets that one SCAN visits: some 200 microseconds of Redis's time. */
#define SCAN_COUNT		"1000"

/* Keys in one UNLINK; in a cluster one, since they must be of one slot. */
#define UNLINK_KEYS		128

static DatabaseSlot *slot;
static void (*answered) (void);

/* Of the running sweep. */
static PatternSweep sweep;
static PatternSet patterns;		/* NULL while there is none */
static char *match;				/* argument of SCAN MATCH */

/* Keys may be at nodes that do not have their slots yet. */
static bool asking;

static void send_scan(RedisNode *node, const char *cursor);

void
patternsweep_init(DatabaseSlot *my_slot, void (*when_answered) (void))
{
	slot = my_slot;
	answered = when_answered;
}

const PatternSweep *
patternsweep_begin(PatternSet set, bool must_ask)
{
	patterns = set;
	match = patternset_glob(set);
	asking = must_ask;
	memset(&sweep, 0, sizeof(sweep));
	return &sweep;
}

void
patternsweep_end(void)
{
	patterns = NULL;
	sweep.under_way = 0;
}

/* The key that was to be deleted is about to be at another node. */
static bool
is_moving(const RedisReply *reply)
{
	return redis_reply_is_error(reply, "MOVED") || redis_reply_is_error(reply, "ASK") ||
		redis_reply_is_error(reply, "TRYAGAIN");
}

/* A Redis whose user may not SCAN, or a proxy that has none, deletes single keys all the same. */
static bool
cannot_scan(const RedisReply *reply)
{
	return redis_reply_is_error(reply, "NOPERM") ||
		(redis_reply_is_error(reply, "ERR") &&
		 strstr(redis_reply_text(reply, NULL), "unknown command") != NULL);
}

/* Redis says no to this step; its patterns will be tried again later. */
static void
note_error(const RedisReply *reply, PassPattern *pattern)
{
	const char *why;

	if (node_answering()->in_cluster && is_moving(reply))
	{
		sweep.missed = true;
		return;
	}

	if (!cannot_scan(reply) && (redis_reply_type(reply) != REDIS_ERROR || trouble_is(reply, &why)))
	{
		node_note_trouble(node_answering(), reply);
		sweep.lost = true;
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

	sweep.under_way--;
	if (reply == NULL)
		sweep.lost = true;
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		int64		existed = redis_reply_integer(reply);

		pg_atomic_fetch_add_u64(&slot->stats.keys_existed, existed);
		pg_atomic_fetch_add_u64(&slot->stats.keys, existed);
		stats_count_rule(pattern->item.rule, existed, existed);
	}
	else
		note_error(reply, pattern);
	answered();
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

	if (node->in_cluster && asking)
		redis_send_texts(node->link, 1, word, asking_answered, NULL);
	if (redis_send(node->link, 1 + nkeys, argv, lens, unlink_answered, pattern))
		sweep.under_way++;
	else
		sweep.lost = true;
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

	sweep.under_way--;
	if (reply == NULL)
		sweep.lost = true;
	else if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) == 2)
	{
		const char *cursor = redis_reply_text(redis_reply_element(reply, 0), NULL);
		const RedisReply *keys = redis_reply_element(reply, 1);

		for (PassPattern *p = patterns; p; p = p->next)
			unlink_matching(node, p, keys);
		if (strcmp(cursor, "0") != 0)
			send_scan(node, cursor);
	}
	else
		note_error(reply, NULL);
	answered();
}

static void
send_scan(RedisNode *node, const char *cursor)
{
	const char *argv[] = {"SCAN", cursor, "MATCH", match, "COUNT", SCAN_COUNT};

	if (redis_send_texts(node->link, lengthof(argv), argv, scan_answered, NULL))
		sweep.under_way++;
	else
		sweep.lost = true;
}

void
patternsweep_node(RedisNode *node)
{
	send_scan(node, "0");
}
