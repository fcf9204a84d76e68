/*
 * batch_send.c
 *	  A command under way: its words, its answer, and what follows from that.
 *
 * Where the functions of the fence are in use the command is a call of
 * uncache_invalidate, else an UNLINK; and one of the keys' records before that, where the
 * functions are in use and only this worker may not call them.  It ends (commandend.c) with its answer, unless
 *
 *		it is refused		then it is sent again key by key, to find the key that is
 *							to blame
 *		it is redirected	by a node of a cluster: it follows, a few times; what is in
 *							the middle of being moved is tried again (PART_RETRY_SOON)
 *
 * An answer that says something of the server rather than of the keys (it is loading, say)
 * is the node's trouble, and the keys are lost; as they are when the link breaks, which
 * answers all with NULL.  A command that was carried out twice has deleted twice: no harm.
 *
 * How many are under way is counted here and limited by who sends (batch.c).
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "topology/cluster_map.h"
#include "delivery/batch_int.h"
#include "base/fault_point.h"
#include "fence/fence.h"
#include "delivery/refusal.h"
#include "shmem/counters.h"
#include "redis/redis_error.h"

/* How often a command follows a redirection. */
#define MAX_HOPS			5

static MemoryContext names_context; /* of records, until they are sent */
static int	under_way[DELIVERY_PRIORITIES];	/* at all nodes */

void
batch_send_init(void)
{
	names_context = AllocSetContextCreate(TopMemoryContext, "pg_uncache record names",
										  ALLOCSET_SMALL_SIZES);
}

int
batch_send_count_under_way(DeliveryPriority class)
{
	return under_way[class];
}

/* Send each key of a refused command by itself. */
static void
split_command(RedisNode *node, Command *command)
{
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		Command    *single = batch_new(command->target, command->class, command->rule, command->slot, false);

		single->awaited = command->awaited;
		single->refusable = command->refusable;
		single->late = command->late;
		single->records_gone = command->records_gone;
		single->hops = command->hops;
		single->keys[single->nkeys++] = command->keys[i];
		batch_send(node, single);
	}
	batch_free(command);
}

/* Arguments of a command under construction. */
static struct
{
	int			n;
	const char *argv[5 + 2 * COMMAND_KEYS];
	size_t		lens[5 + 2 * COMMAND_KEYS];
	char		xids[COMMAND_KEYS][24];
	char		nkeys[12];
}			arguments;

static void
add_argument(const char *bytes, size_t len)
{
	arguments.argv[arguments.n] = bytes;
	arguments.lens[arguments.n++] = len;
}

static void
add_text(const char *text)
{
	add_argument(text, strlen(text));
}

/*
 * --------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------
 */

static void
count_command(Command *command, int64 existed)
{
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.batches, 1);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys, command->nkeys);
	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.keys_existed, existed);
	counters_count_rule(command->rule, command->nkeys, existed);
}

static void
foregoing_answered(void *arg, const RedisReply *reply)
{
	/* What comes after it tells. */
}

static void command_refused(RedisNode *node, Command *command, const RedisReply *reply);

/* Send a command once more, perhaps to another node; NULL: there is none. */
static void
send_again(RedisNode *node, Command *command, bool asking)
{
	const char *argv[] = {"ASKING"};

	command->records_gone = false;
	if (node == NULL || !node->open || ++command->hops > MAX_HOPS)
		batch_finish(command, node != NULL && node->is_down ? PART_NODE_DOWN : PART_RETRY_SOON);
	else if (asking && !redis_send_texts(node->link, 1, argv, foregoing_answered, NULL))
		batch_finish(command, PART_NO_REPLY);
	else
		batch_send(node, command);
}

/*
 * --------------------------------------------------------------------------
 * Records that a slot on the move leaves behind
 * --------------------------------------------------------------------------
 *
 * A key that has moved, or never was, is dealt with by the new node, while its record
 * may still be at the old one.  Should the slot stay there after all, or come back, the
 * record would not know of this invalidation.  So it goes first.
 */

static void
records_answered(void *arg, const RedisReply *reply)
{
	Command    *command = arg;
	RedisNode  *node = node_answering();

	/* With ASK the record is at the new node, too, or nowhere; else it is gone. */
	if (reply == NULL)
		batch_finish(command, PART_NO_REPLY);
	else if (redis_reply_type(reply) == REDIS_INTEGER || redis_reply_is_error(reply, "ASK") ||
			 redis_reply_is_error(reply, "MOVED"))
	{
		command->records_gone = true;
		batch_send(node, command);
	}
	else
		command_refused(node, command, reply);
}

/* The name of a key's record, as in lua/uncache.lua; NULL for one that can't have any. */
static char *
record_name(const KeyRef *key, size_t *len)
{
	bool		tagged = memchr(key->bytes, '}', key->len) != NULL;
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfoString(&name, tagged ? "uncache::" : "uncache:{");
	appendBinaryStringInfo(&name, key->bytes, key->len);
	if (!tagged)
		appendStringInfoChar(&name, '}');
	*len = name.len;
	return cluster_map_slot(name.data, name.len) == cluster_map_slot(key->bytes, key->len) ? name.data : NULL;
}

/* UNLINK the records of all keys.  False where that can't be sent, or there can't be any. */
static bool
unlink_records(RedisNode *node, const Command *command, RedisAnswer answer, void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(names_context);
	bool		sent;

	arguments.n = 0;
	add_text("UNLINK");
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		size_t		len;
		char	   *name = record_name(&command->keys[i], &len);

		if (name != NULL)
			add_argument(name, len);
	}
	sent = arguments.n > 1 &&
		redis_send(node->link, arguments.n, arguments.argv, arguments.lens, answer, arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(names_context);
	return sent;
}

/*
 * Answers that a cluster gives because its slots move.  Returns whether this was
 * one; then the command is taken care of.
 */
static bool
follow_cluster(RedisNode *node, Command *command, const RedisReply *reply)
{
	bool		asking;
	RedisNode  *other;

	if (!node->in_cluster)
		return false;
	if (redis_reply_is_error(reply, "TRYAGAIN"))
	{
		if (command->nkeys > 1)
			split_command(node, command);
		else
			batch_finish(command, PART_RETRY_SOON);
		return true;
	}

	/*
	 * Its record, or a later key, is not here any more.  What was here is deleted,
	 * so the next time there will be a redirection.
	 */
	if (strstr(redis_reply_text(reply, NULL), "non local key") != NULL)
	{
		send_again(node, command, false);
		return true;
	}
	if (!redis_reply_is_error(reply, "MOVED") && !redis_reply_is_error(reply, "ASK"))
		return false;
	if (redis_reply_is_error(reply, "ASK") && fence_is_used(node) && !command->records_gone &&
		unlink_records(node, command, records_answered, command))
		return true;
	other = target_redirect(node->target, reply, &asking);
	send_again(other, command, other != NULL && asking);
	return true;
}

/* It has a single key. */
static void
note_refused(const Command *command)
{
	const KeyRef *key = &command->keys[0];
	RefusedKey	refused = {
		.xid = delivery_xid(key->delivery), .rule = command->rule,
		.bytes = key->bytes, .len = key->len
	};

	refusal_note(command->target, &refused);
}

static void
note_accepted(const Command *command)
{
	for (uint32 i = 0; i < command->nkeys && refusal_is_any(); i++)
		refusal_note_accepted(command->target, command->rule,
							  command->keys[i].bytes, command->keys[i].len);
}

static void
command_refused(RedisNode *node, Command *command, const RedisReply *reply)
{
	const char *why;

	if (follow_cluster(node, command, reply))
		return;
	if (command->hops < MAX_HOPS && fence_note_loss(node, reply))
	{
		command->hops++;
		batch_send(node, command);
	}
	else if (redis_error_is_fatal(reply, &why))
	{
		node_note_trouble(node, reply);
		batch_finish(command, PART_NO_REPLY);
	}
	else if (command->nkeys > 1)
		split_command(node, command);
	else
	{
		redis_error_note_refusal(reply);
		note_refused(command);
		batch_finish(command, PART_REFUSED);
	}
}

static void
command_answered(void *arg, const RedisReply *reply)
{
	Command    *command = arg;
	RedisNode  *node = node_answering();

	under_way[command->class]--;
	node->commands->under_way[command->class]--;
	if (!command->awaited)
		node->commands->not_awaited--;
	if (reply == NULL)
		batch_finish(command, PART_NO_REPLY);
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		FAULT_POINT("answered");
		node_note_success(node);
		count_command(command, redis_reply_integer(reply));
		note_accepted(command);
		batch_carried_out(node, command);
	}
	else if (redis_reply_type(reply) != REDIS_ERROR)
	{
		node_note_nonsense(node);
		batch_finish(command, PART_NO_REPLY);
	}
	else
		command_refused(node, command, reply);
}

/*
 * --------------------------------------------------------------------------
 * Sending
 * --------------------------------------------------------------------------
 */

/* UNLINK key..., or FCALL uncache_invalidate n key... ttl incarnation xid... */
static void
make_arguments(const RedisNode *node, Command *command)
{
	bool		fenced = fence_is_used(node);

	arguments.n = 0;
	add_text(fenced ? "FCALL" : "UNLINK");
	if (fenced)
	{
		snprintf(arguments.nkeys, sizeof(arguments.nkeys), "%u", command->nkeys);
		add_text("uncache_invalidate");
		add_text(arguments.nkeys);
	}
	for (uint32 i = 0; i < command->nkeys; i++)
		add_argument(command->keys[i].bytes, command->keys[i].len);
	if (!fenced)
		return;

	add_text(fence_ttl_text());
	add_text(UncacheShmem->incarnation);
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		snprintf(arguments.xids[i], sizeof(arguments.xids[i]), UINT64_FORMAT,
				 delivery_xid(command->keys[i].delivery));
		add_text(arguments.xids[i]);
	}
}

void
batch_send(RedisNode *node, Command *command)
{
	CommandQueue *queue = command_queue_of(node);

	if (fence_is_shut_out(node))
		(void) unlink_records(node, command, foregoing_answered, NULL);
	make_arguments(node, command);
	batch_see_to_confirm(node, command);
	if (redis_send(node->link, arguments.n, arguments.argv, arguments.lens,
				   command_answered, command))
	{
		under_way[command->class]++;
		queue->under_way[command->class]++;
		if (!command->awaited)
			queue->not_awaited++;
	}
	else
		batch_finish(command, PART_NO_REPLY);
}
