/*
 * question_check.c
 *	  The worker's answer to uncache.check_redis(): what works at each Redis server.
 *
 * Each node that has a link is asked at once what it says of itself, and pinged some times.
 * When it has told the name of its user it is asked about rights: ACL DRYRUN tells whether a
 * command with a key would be allowed, and carries nothing out.  No command of this file
 * reads or writes a value, or counts as a use of a key.
 *
 * The answers of all nodes are gathered by check, and equal ones are told once.  A node whose
 * link breaks is told as not reachable.  Everything goes by the links that deliver, so an
 * answer may take as long as the commands before it, and command_timeout ends the wait.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/log_text.h"
#include "delivery/stream.h"
#include "redis/redis_error.h"
#include "settings/settings.h"
#include "topology/node.h"
#include "topology/target.h"
#include "worker/question.h"
#include "worker/worker_int.h"

/* Nodes beyond these are counted and not asked: a larger cluster has its own tools. */
#define MOST_NODES		64

/* Round trips, one after the other; enough to tell a slow link from one slow answer. */
#define PINGS			5

/* Checks of a node: those below, the rights to commands, and those to keys of patterns. */
#define MOST_CHECKS		100

/* While the worker is still connecting, look again; and give up a node that does not end. */
#define CONNECTING_MS	20
#define PATIENCE_MS		20000

/* What a node is asked first, and what is told of it. */
enum Item
{
	ITEM_REACHABLE,
	ITEM_RESOLVE,
	ITEM_TLS,
	ITEM_VERSION,
	ITEM_FUNCTIONS,
	ITEM_FENCE,
	ITEM_STREAM,
	ITEM_REPLICAS,
	ITEM_LATENCY,
	ITEM_KEYS,
	ITEM_EVICTION,
	ITEM_USER,					/* from here on told if a right is */
	ITEM_RIGHTS
};

/* A command that is tried with ACL DRYRUN; none has more words. */
#define RIGHT_WORDS		5

typedef struct Right
{
	char	   *check;			/* as it is told */
	const char *why;			/* what needs it; NULL: deletes do */
	int			flags;			/* RIGHT_*, or'ed */
	int			nwords;
	const char *words[RIGHT_WORDS];
} Right;

#define RIGHT_OF_CLUSTER	0x01	/* only a node of a cluster is asked */
#define RIGHT_ANY_KEY		0x02	/* the key is made up: a refusal may be of the key alone */

/* What was found; ok is 't', 'f' or '\0', and detail NULL if the check was not made. */
typedef struct Finding
{
	char		ok;
	char	   *detail;
} Finding;

typedef struct NodeCheck
{
	RedisNode  *node;			/* may be gone once "lost" */
	char		name[128];
	bool		in_cluster;
	bool		lost;			/* no link, or it broke */
	bool		asked_rights;
	int			due;			/* commands without an answer */
	char		user[128];		/* "" until it is known */
	TimestampTz ping_sent_at;
	int			pings;			/* answered */
	int64		ping_us[PINGS];
	Finding		findings[MOST_CHECKS];
} NodeCheck;

/* The running check; context is NULL without one. */
static MemoryContext context = NULL;
static uint16 number = 0;		/* of the question, so that late answers are known */
static TimestampTz begun_at;
static bool started;
static Right *rights;
static int	nrights;
static NodeCheck *nodes;
static int	nnodes;
static int	nleft_out;			/* nodes that are not asked */

/*
 * --------------------------------------------------------------------------
 * Findings
 * --------------------------------------------------------------------------
 */

static void find(NodeCheck *node, int item, char ok, const char *format,...)
			pg_attribute_printf(4, 5);

static void
find(NodeCheck *node, int item, char ok, const char *format,...)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);
	char		text[400];
	va_list		args;

	Assert(item >= 0 && item < MOST_CHECKS);
	va_start(args, format);
	if (vsnprintf(text, sizeof(text), format, args) >= (int) sizeof(text))
		text[pg_encoding_mbcliplen(PG_UTF8, text, strlen(text), strlen(text))] = '\0';
	va_end(args);
	node->findings[item].ok = ok;
	node->findings[item].detail = pstrdup(text);
	MemoryContextSwitchTo(old_context);
}

/* A field of INFO; NULL if it is not there.  In the current memory context. */
static char *
info_field(const char *info, const char *field)
{
	size_t		len = strlen(field);

	for (const char *line = info; line != NULL && *line; line = strchr(line, '\n'))
	{
		line += *line == '\n';
		if (strncmp(line, field, len) == 0 && line[len] == ':')
			return pnstrdup(line + len + 1, strcspn(line + len + 1, "\r\n"));
	}
	return NULL;
}

static void
find_eviction(NodeCheck *node, const char *info)
{
	char	   *policy = info_field(info, "maxmemory_policy");
	char	   *limit = info_field(info, "maxmemory");

	if (policy == NULL || limit == NULL)
		find(node, ITEM_EVICTION, '\0', "the server does not tell it");
	else if (strcmp(limit, "0") == 0)
		find(node, ITEM_EVICTION, 't', "%s, without a limit (maxmemory is 0)", policy);
	else if (strcmp(policy, "noeviction") == 0)
		find(node, ITEM_EVICTION, 'f', "noeviction with maxmemory %s: at the limit Redis refuses "
			 "to store, and readers and the functions of the fence get errors; for a cache set "
			 "maxmemory-policy to allkeys-lru or the like", limit);
	else
		find(node, ITEM_EVICTION, 't', "%s with maxmemory %s", policy, limit);
}

static void
find_replicas(NodeCheck *node, const char *info)
{
	char	   *count = info_field(info, "connected_slaves");

	if (count == NULL)
		find(node, ITEM_REPLICAS, '\0', "the server does not tell how many it has");
	else
		find(node, ITEM_REPLICAS, atoi(count) >= setting_wait_replicas ? 't' : 'f',
			 "%s connected; uncache.wait_replicas is %d", count, setting_wait_replicas);
}

static void
find_version(NodeCheck *node, const char *info)
{
	char	   *valkey = info_field(info, "valkey_version");
	char	   *redis = info_field(info, "redis_version");
	int			version = redis_version(node->node->link);

	if (redis == NULL)
		find(node, ITEM_VERSION, '\0', "the server does not tell it");
	else if (valkey != NULL)
		find(node, ITEM_VERSION, 't', "Valkey %s", valkey);
	else
		find(node, ITEM_VERSION, version >= 60200 ? 't' : 'f', "Redis %s%s", redis,
			 version >= 60200 ? "" : ": older than 6.2, which pg_uncache needs");
}

static const char *
error_of(const RedisReply *reply)
{
	return redis_reply_type(reply) == REDIS_ERROR ? redis_error_text(reply) :
		"an answer that makes no sense";
}

static void
take_info(NodeCheck *node, const RedisReply *reply)
{
	if (redis_reply_type(reply) != REDIS_STRING)
	{
		find(node, ITEM_VERSION, '\0', "the server does not answer INFO: %s", error_of(reply));
		find(node, ITEM_REPLICAS, '\0', "the server does not answer INFO");
		find(node, ITEM_EVICTION, '\0', "the server does not answer INFO");
		return;
	}
	find_version(node, redis_reply_text(reply, NULL));
	find_replicas(node, redis_reply_text(reply, NULL));
	find_eviction(node, redis_reply_text(reply, NULL));
}

static void
take_library(NodeCheck *node, const RedisReply *reply)
{
	bool		wanted = setting_fence_ttl > 0;

	if (redis_reply_type(reply) == REDIS_ARRAY && redis_reply_count(reply) > 0)
		find(node, ITEM_FUNCTIONS, 't', "the library \"uncache\" is loaded");
	else if (redis_reply_type(reply) == REDIS_ARRAY)
		find(node, ITEM_FUNCTIONS, wanted ? 'f' : 't',
			 wanted ? "the server has functions, but not the library \"uncache\" (yet)" :
			 "the server has functions; without uncache.fence_ttl the library is not loaded");
	else if (redis_reply_is_error(reply, "NOPERM"))
		find(node, ITEM_FUNCTIONS, '\0', "the user may not list them: %s", error_of(reply));
	else
		find(node, ITEM_FUNCTIONS, wanted ? 'f' : '\0',
			 "no functions: fenced fills need Redis 7 or Valkey (%s)", error_of(reply));
}

static void
take_stream_type(NodeCheck *node, const RedisReply *reply)
{
	const char *type = redis_reply_text(reply, NULL);

	if (redis_reply_type(reply) != REDIS_STATUS)
		find(node, ITEM_STREAM, '\0', "the type of the key is not known: %s", error_of(reply));
	else if (strcmp(type, "stream") == 0 || strcmp(type, "none") == 0)
		find(node, ITEM_STREAM, 't', "the key \"%s\" is %s", stream_name(),
			 type[0] == 's' ? "a stream" : "free; the first entry makes the stream");
	else
		find(node, ITEM_STREAM, 'f', "the key \"%s\" holds a %s: choose another name, or delete it",
			 stream_name(), type);
}

static void
take_keys(NodeCheck *node, const RedisReply *reply)
{
	if (redis_reply_type(reply) == REDIS_INTEGER)
		find(node, ITEM_KEYS, 't', INT64_FORMAT ", which a pattern (TRUNCATE, invalidate_table) "
			 "walks through", redis_reply_integer(reply));
	else
		find(node, ITEM_KEYS, '\0', "the server does not count them: %s", error_of(reply));
}

static void
find_latency(NodeCheck *node)
{
	int64		best = node->ping_us[0];
	int64		worst = node->ping_us[0];

	for (int i = 1; i < node->pings; i++)
	{
		best = Min(best, node->ping_us[i]);
		worst = Max(worst, node->ping_us[i]);
	}
	find(node, ITEM_LATENCY,
		 setting_wait_timeout == 0 || best < (int64) setting_wait_timeout * 1000 ? 't' : 'f',
		 "a round trip takes %.3f to %.3f ms; uncache.wait_timeout is %d ms",
		 best / 1000.0, worst / 1000.0, setting_wait_timeout);
}

static void
take_right(NodeCheck *node, const RedisReply *reply, int i)
{
	const Right *right = &rights[i];
	int			item = ITEM_RIGHTS + i;
	const char *why = right->why ? right->why : "";
	const char *colon = right->why ? ": " : "";
	const char *text = log_text_cut(redis_reply_text(reply, NULL), 150);

	if (redis_reply_type(reply) == REDIS_STATUS)
		find(node, item, 't', "allowed%s%s", colon, why);
	else if (redis_reply_type(reply) == REDIS_STRING && (right->flags & RIGHT_ANY_KEY) != 0 &&
			 strstr(text, "key") != NULL)
		find(node, item, '\0', "allowed for some keys%s%s", colon, why);
	else if (redis_reply_type(reply) == REDIS_STRING)
		find(node, item, 'f', "refused (%s)%s%s", text, colon, why);
	else if (redis_reply_is_error(reply, "ERR") && strstr(text, "not found") != NULL)
		find(node, item, 'f', "the server has no such command%s%s", colon, why);
	else
		find(node, item, '\0', "the server does not tell: %s", error_of(reply));
}

/*
 * --------------------------------------------------------------------------
 * Asking
 * --------------------------------------------------------------------------
 */

static NodeCheck *
answering_node(void)
{
	RedisNode  *answering = node_answering();

	for (int i = 0; i < nnodes; i++)
	{
		if (!nodes[i].lost && nodes[i].node == answering)
			return &nodes[i];
	}
	return NULL;
}

static bool ask(NodeCheck *node, int item, int nwords, const char **words);

static void
ping(NodeCheck *node)
{
	const char *words[] = {"PING"};

	node->ping_sent_at = clock_now();
	(void) ask(node, ITEM_LATENCY, 1, words);
}

static void
take_ping(NodeCheck *node)
{
	node->ping_us[node->pings++] = clock_now() - node->ping_sent_at;
	if (node->pings < PINGS)
		ping(node);
	else
		find_latency(node);
}

static void
take_answer(NodeCheck *node, int item, const RedisReply *reply)
{
	switch (item)
	{
		case ITEM_VERSION:
			take_info(node, reply);
			break;
		case ITEM_FUNCTIONS:
			take_library(node, reply);
			break;
		case ITEM_STREAM:
			take_stream_type(node, reply);
			break;
		case ITEM_LATENCY:
			take_ping(node);
			break;
		case ITEM_KEYS:
			take_keys(node, reply);
			break;
		case ITEM_USER:
			if (redis_reply_type(reply) == REDIS_STRING)
				strlcpy(node->user, redis_reply_text(reply, NULL), sizeof(node->user));
			else
				find(node, ITEM_USER, '\0', "not known, so that no right can be checked: %s",
					 error_of(reply));
			break;
		default:
			take_right(node, reply, item - ITEM_RIGHTS);
			break;
	}
}

/* "arg" has the question's number and the item, since the question may be over by now. */
static void
answered(void *arg, const RedisReply *reply)
{
	uint32		what = (uint32) (uintptr_t) arg;
	MemoryContext old_context;
	NodeCheck  *node;

	if (context == NULL || what >> 16 != number || (node = answering_node()) == NULL)
		return;
	node->due--;
	Assert(node->due >= 0);
	if (reply == NULL)
	{
		node->lost = true;
		return;
	}
	old_context = MemoryContextSwitchTo(context);
	take_answer(node, what & 0xFFFF, reply);
	MemoryContextSwitchTo(old_context);
}

static bool
ask(NodeCheck *node, int item, int nwords, const char **words)
{
	uintptr_t	what = (uintptr_t) ((uint32) number << 16 | item);

	if (node->node->link == NULL ||
		!redis_send_texts(node->node->link, nwords, words, answered, (void *) what))
	{
		node->lost = true;
		return false;
	}
	node->due++;
	return true;
}

/* In a cluster the node that the stream's name hashes to has it. */
static bool
has_stream(const NodeCheck *node, const char *stream)
{
	uint16		slot;

	return !node->in_cluster ||
		target_node(node->node->target, stream, strlen(stream), &slot) == node->node;
}

static void
ask_first(NodeCheck *node)
{
	const char *stream = stream_name();
	const char *info[] = {"INFO"};
	const char *size[] = {"DBSIZE"};
	const char *user[] = {"ACL", "WHOAMI"};
	const char *library[] = {"FUNCTION", "LIST", "LIBRARYNAME", "uncache"};
	const char *type[] = {"TYPE", stream};

	if (!ask(node, ITEM_VERSION, 1, info) || !ask(node, ITEM_KEYS, 1, size) ||
		!ask(node, ITEM_USER, 2, user) || !ask(node, ITEM_FUNCTIONS, 4, library))
		return;
	if (stream[0] == '\0')
		find(node, ITEM_STREAM, '\0', "off: uncache.stream is empty");
	else if (has_stream(node, stream) && !ask(node, ITEM_STREAM, 2, type))
		return;
	ping(node);
}

static void
ask_rights(NodeCheck *node)
{
	node->asked_rights = true;
	if (node->user[0] == '\0')
		return;
	find(node, ITEM_USER, 't', "%s", node->user);
	for (int i = 0; i < nrights; i++)
	{
		const char *words[3 + RIGHT_WORDS] = {"ACL", "DRYRUN", node->user};

		if ((rights[i].flags & RIGHT_OF_CLUSTER) != 0 && !node->in_cluster)
			continue;
		memcpy(&words[3], rights[i].words, rights[i].nwords * sizeof(char *));
		if (!ask(node, ITEM_RIGHTS + i, 3 + rights[i].nwords, words))
			return;
	}
}

/*
 * --------------------------------------------------------------------------
 * Which rights
 * --------------------------------------------------------------------------
 */

/* The words of the command follow, and a NULL; they must stay until the end. */
static void
want(const char *check, const char *why, int flags,...)
{
	Right	   *right = &rights[nrights];
	const char *word;
	va_list		words;

	if (ITEM_RIGHTS + nrights >= MOST_CHECKS)
		return;
	nrights++;
	right->check = pstrdup(check);
	right->why = why;
	right->flags = flags;
	va_start(words, flags);
	while ((word = va_arg(words, const char *)) != NULL)
	{
		Assert(right->nwords < RIGHT_WORDS);
		right->words[right->nwords++] = word;
	}
	va_end(words);
}

/* The fence record of a key (uncache.lua). */
static char *
record_of(const char *key)
{
	return strchr(key, '}') != NULL ? psprintf("uncache::%s", key) : psprintf("uncache:{%s}", key);
}

static void
want_for_fence(const char *key, int any_key)
{
	const char *why = "for fenced fills";
	const char *record = record_of(key);

	want("right: FCALL", why, any_key, "FCALL", "uncache_get", "1", key, NULL);
	want("right: FUNCTION LOAD", why, 0, "FUNCTION", "LOAD", "#!lua", NULL);
	want("right: GET", why, any_key, "GET", record, NULL);
	want("right: SET", why, any_key, "SET", record, "x", NULL);
	want("right: TIME", why, 0, "TIME", NULL);
}

/* "any_key": RIGHT_ANY_KEY if the key is made up, else 0. */
static void
want_commands(const char *key, int any_key)
{
	/* A copy, since a reload may free the setting before the words are sent. */
	const char *stream = pstrdup(stream_name());

	want("right: UNLINK", NULL, any_key, "UNLINK", key, NULL);
	want("right: SCAN", "for patterns", 0, "SCAN", "0", NULL);
	if (setting_fence_ttl > 0)
		want_for_fence(key, any_key);
	want("right: FUNCTION LIST", "recommended, to find functions that others have loaded", 0,
		 "FUNCTION", "LIST", NULL);
	if (stream[0] != '\0')
		want("right: XADD", "for uncache.stream", 0, "XADD", stream, "*", "keys", "[]", NULL);
	if (setting_wait_replicas > 0)
		want("right: WAIT", "for uncache.wait_replicas", 0, "WAIT", "0", "0", NULL);
	want("right: CLUSTER SLOTS", NULL, RIGHT_OF_CLUSTER, "CLUSTER", "SLOTS", NULL);
	want("right: CLUSTER NODES", NULL, RIGHT_OF_CLUSTER, "CLUSTER", "NODES", NULL);
	want("right: CLUSTER INFO", "recommended", RIGHT_OF_CLUSTER, "CLUSTER", "INFO", NULL);
	want("right: ASKING", NULL, RIGHT_OF_CLUSTER, "ASKING", NULL);
	want("right: PING", "recommended", 0, "PING", NULL);
	want("right: INFO", "recommended", 0, "INFO", NULL);
	want("right: ROLE", "recommended", 0, "ROLE", NULL);
	want("right: PTTL", "for audit_keys() alone", any_key, "PTTL", key, NULL);
}

static void
want_patterns(const char *question, size_t len)
{
	const char *end = question + len;

	for (int i = 0; question < end && i < CHECK_MOST_PATTERNS; i++)
	{
		const char *shown = question;
		const char *key = shown + strlen(shown) + 1;

		want(psprintf("right: UNLINK %s", shown), NULL, 0, "UNLINK", key, NULL);
		if (setting_fence_ttl > 0)
			want(psprintf("right: SET %s", record_of(shown)), "for fenced fills", 0,
				 "SET", record_of(key), "x", NULL);
		question = key + strlen(key) + 1;
	}
}

/*
 * --------------------------------------------------------------------------
 * What the worker itself knows
 * --------------------------------------------------------------------------
 */

static bool
is_name(const RedisTarget *url, const RedisHost *host)
{
	char		address[16];

	return url->scheme != REDIS_UNIX && inet_pton(AF_INET, host->name, address) != 1 &&
		inet_pton(AF_INET6, host->name, address) != 1;
}

/* The last error of delivery, in the current memory context. */
static char *
last_error(void)
{
	char	   *error;

	LWLockAcquire(MyDatabaseState->lock, LW_SHARED);
	error = pstrdup(MyDatabaseState->last_error);
	LWLockRelease(MyDatabaseState->lock);
	return error;
}

static void
find_resolution(NodeCheck *node, const RedisTarget *url)
{
	const char *name = NULL;
	const char *how = redis_has_resolver() ? "" :
		"; this build has no c-ares, so a silent name server holds up the worker: use IP addresses";

	for (int i = 0; i < url->nhosts && name == NULL; i++)
		name = is_name(url, &url->hosts[i]) ? url->hosts[i].name : NULL;
	if (name == NULL)
		find(node, ITEM_RESOLVE, 't', "there is no name to resolve");
	else if (!node->lost)
		find(node, ITEM_RESOLVE, 't', "\"%s\" is resolved%s", name, how);
	else if (strstr(last_error(), "could not be resolved") != NULL)
		find(node, ITEM_RESOLVE, 'f', "\"%s\": %s%s", name, last_error(), how);
	else
		find(node, ITEM_RESOLVE, '\0', "\"%s\": there is no connection%s", name, how);
}

static void
find_tls(NodeCheck *node, const RedisTarget *url)
{
	if (!url->tls)
		find(node, ITEM_TLS, '\0', "not asked for: the address does not begin with rediss");
	else if (!redis_has_tls())
		find(node, ITEM_TLS, 'f', "this build has no TLS: install hiredis with hiredis_ssl and "
			 "the headers of OpenSSL, and build again");
	else if (node->lost)
		find(node, ITEM_TLS, '\0', "asked for; there is no connection");
	else
		find(node, ITEM_TLS, 't', "in use; the server's certificate was verified");
}

static void
find_fence(NodeCheck *node)
{
	switch ((FenceState) pg_atomic_read_u32(&MyDatabaseState->fence.state))
	{
		case FENCE_ON:
			find(node, ITEM_FENCE, 't', "on");
			break;
		case FENCE_SUPERSEDED:
			find(node, ITEM_FENCE, 'f', "superseded: another server's readers fill; see "
				 "uncache.reclaim_fence()");
			break;
		case FENCE_IMPOSSIBLE:
			find(node, ITEM_FENCE, 'f', "not possible: %s", last_error());
			break;
		default:
			if (setting_fence_ttl > 0)
				find(node, ITEM_FENCE, 'f', "starting: every fill is refused for now");
			else
				find(node, ITEM_FENCE, '\0', "off: uncache.fence_ttl is 0");
			break;
	}
}

static void
find_reachable(NodeCheck *node)
{
	if (!node->lost)
		find(node, ITEM_REACHABLE, 't', "connected");
	else
		find(node, ITEM_REACHABLE, 'f', "no connection: %s", last_error());
}

/*
 * --------------------------------------------------------------------------
 * Begin, go on, end
 * --------------------------------------------------------------------------
 */

void
question_check_begin(const char *question, size_t len)
{
	char	   *copy = palloc(len + 1);

	context = CurrentMemoryContext;
	memcpy(copy, question, len);
	copy[len] = '\0';
	number++;
	begun_at = clock_now();
	started = false;
	nnodes = nleft_out = nrights = 0;
	nodes = NULL;
	rights = palloc0(sizeof(Right) * MOST_CHECKS);
	want_commands(len > 0 ? copy + strlen(copy) + 1 : "pg_uncache:check",
				  len > 0 ? 0 : RIGHT_ANY_KEY);
	want_patterns(copy, len);
}

void
question_check_end(void)
{
	context = NULL;
}

/* A cluster of which no node is known yet has none here: its target is told in its place. */
static void
add_node(RedisNode *node, const char *name)
{
	NodeCheck  *added;

	if (nnodes == MOST_NODES)
	{
		nleft_out++;
		return;
	}
	added = &nodes[nnodes++];
	added->node = node;
	added->lost = node == NULL || node->link == NULL;
	added->in_cluster = node != NULL && node->in_cluster;
	strlcpy(added->name, name, sizeof(added->name));
}

static void
add_nodes_of(const Target *target)
{
	bool		found = false;
	char		address[128];

	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i)->target != target)
			continue;
		add_node(node_at(i), node_at(i)->name);
		found = true;
	}
	if (found)
		return;
	redis_url_public(target_url(target), address, sizeof(address));
	add_node(NULL, address);
}

static void
start(void)
{
	nodes = palloc0(sizeof(NodeCheck) * MOST_NODES);
	for (int i = 0; i < target_count(); i++)
	{
		int			first = nnodes;

		add_nodes_of(target_at(i));
		for (int n = first; n < nnodes; n++)
		{
			find_resolution(&nodes[n], target_url(target_at(i)));
			find_tls(&nodes[n], target_url(target_at(i)));
			if (!nodes[n].lost)
				ask_first(&nodes[n]);
		}
	}
}

static bool
still_exists(const RedisNode *node)
{
	for (int i = 0; i < node_count(); i++)
	{
		if (node_at(i) == node)
			return true;
	}
	return false;
}

/* A node that was freed meanwhile has answered with NULL what was under way. */
static bool
is_through(NodeCheck *node)
{
	node->lost |= !still_exists(node->node);
	if (!node->lost && node->due == 0 && !node->asked_rights)
		ask_rights(node);
	return node->lost || node->due == 0;
}

/*
 * --------------------------------------------------------------------------
 * The answer
 * --------------------------------------------------------------------------
 */

static const char *
check_name(int item)
{
	static const char *const names[] = {
		"reachable", "name resolution", "TLS", "version", "functions", "fence", "stream",
		"replicas", "latency", "keys", "eviction policy", "user",
	};

	StaticAssertStmt(lengthof(names) == ITEM_RIGHTS, "every item has a name");
	return item < ITEM_RIGHTS ? names[item] : rights[item - ITEM_RIGHTS].check;
}

static void
tell(StringInfo answer, const char *check, char ok, const char *detail)
{
	appendBinaryStringInfo(answer, check, strlen(check) + 1);
	if (ok != '\0')
		appendStringInfoChar(answer, ok);
	appendStringInfoChar(answer, '\0');
	appendBinaryStringInfo(answer, detail, strlen(detail) + 1);
}

static bool
is_same(const Finding *a, const Finding *b)
{
	return a->detail != NULL && b->detail != NULL && a->ok == b->ok &&
		strcmp(a->detail, b->detail) == 0;
}

/* Tell a check of a node, and with it that of all others of which the same is true. */
static void
tell_finding(StringInfo answer, int item, int first)
{
	Finding    *finding = &nodes[first].findings[item];
	int			count = 1;

	if (finding->detail == NULL)
		return;
	for (int i = first + 1; i < nnodes; i++)
	{
		if (!is_same(finding, &nodes[i].findings[item]))
			continue;
		count++;
		nodes[i].findings[item].detail = NULL;
	}
	if (nnodes == 1)
		tell(answer, check_name(item), finding->ok, item == ITEM_REACHABLE ?
			 psprintf("%s: %s", nodes[0].name, finding->detail) : finding->detail);
	else if (count == nnodes)
		tell(answer, check_name(item), finding->ok,
			 psprintf("%s (all %d servers)", finding->detail, nnodes));
	else if (count == 1)
		tell(answer, check_name(item), finding->ok,
			 psprintf("%s: %s", nodes[first].name, finding->detail));
	else
		tell(answer, check_name(item), finding->ok,
			 psprintf("%s and %d more: %s", nodes[first].name, count - 1, finding->detail));
}

static void
write_answer(StringInfo answer)
{
	for (int n = 0; n < nnodes; n++)
	{
		find_reachable(&nodes[n]);
		find_fence(&nodes[n]);
	}
	for (int item = 0; item < ITEM_RIGHTS + nrights; item++)
	{
		for (int n = 0; n < nnodes; n++)
			tell_finding(answer, item, n);
	}
	if (nleft_out > 0)
		tell(answer, "reachable", '\0', psprintf("%d more servers are not checked", nleft_out));
}

bool
question_check_run(TimestampTz now, TimestampTz *wake, StringInfo answer)
{
	WorkerState state = pg_atomic_read_u32(&MyDatabaseState->state);
	int			connect_ms = setting_connect_timeout + setting_command_timeout;
	bool		through = true;

	if (state == WORKER_PAUSED)
	{
		tell(answer, "reachable", '\0',
			 "not checked: uncache.delivery is off, and there is no connection");
		return true;
	}
	if (!started && state == WORKER_CONNECTING &&
		!TimestampDifferenceExceeds(begun_at, now, connect_ms))
	{
		*wake = TimestampTzPlusMilliseconds(now, CONNECTING_MS);
		return false;
	}
	if (!started)
		start();
	started = true;
	for (int i = 0; i < nnodes; i++)
		through &= is_through(&nodes[i]);
	*wake = TimestampTzPlusMilliseconds(begun_at, connect_ms + PATIENCE_MS);
	if (!through && now < *wake)
		return false;
	write_answer(answer);
	return true;
}
