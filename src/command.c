/*
 * command.c
 *	  Keys on their way to the nodes: many in a command, of one rule.
 *
 * Keys are gathered into an open command for each node and rule, so that the views can
 * tell how many of a rule's keys existed, and sent when it is full or all keys of the
 * turn are there.  In a cluster the keys of a command must be of one slot, so there
 * are more and smaller ones.  Where the functions of the fence are in use the command
 * is a call of uncache_invalidate, else an UNLINK.
 *
 * A refused command is sent again key by key, to find the key that is to blame.  One
 * that a cluster's node redirects follows, a few times; what is in the middle of being
 * moved is tried again (PART_AGAIN).
 *
 * Where replicas are to acknowledge (replicas.c), a command that was carried out is
 * finished with the answer to the WAIT that follows it on the link.
 *
 * A node that has fallen silent collects commands until it answers or is given up,
 * which takes it command_timeout; meanwhile the others are sent theirs.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "command.h"
#include "faultpoint.h"
#include "fence.h"
#include "lacking.h"
#include "replicas.h"
#include "stats.h"
#include "target.h"
#include "trouble.h"

/*
 * Keys in one command.  Redis carries a command out in one go: 128 keys are about
 * 150 microseconds in which nobody else is served.  Few keys of a transaction are in
 * the same slot of a cluster.
 */
#define COMMAND_KEYS		128
#define COMMAND_KEYS_OF_SLOT 8
#define COMMAND_BYTES		(64 * 1024)

/* Rules (and slots) whose keys are gathered at the same time. */
#define OPEN_COMMANDS		8

/*
 * Commands under way for each node: enough to fill a link of 1 ms round trip.  In a
 * cluster most have one key.
 */
#define SMALL_COMMANDS		64
#define BULK_COMMANDS		8
#define SLOT_FACTOR			16

/* And in all, with those of silent nodes: 50 MB at the most. */
#define MOST_COMMANDS		(16 * 1024)

/* A node with commands under way that has not moved a byte for so long is silent. */
#define SILENT_MS			50

/* How often a command follows a redirection. */
#define MAX_HOPS			5

typedef struct KeyRef
{
	Delivery   *delivery;
	const char *bytes;
	uint32		len;
	uint8		kind;			/* ITEM_KEY or ITEM_FRAGMENT */
} KeyRef;

/* Keys of one node, being gathered or under way. */
typedef struct Command
{
	struct Command *next;		/* free, or unconfirmed */
	const Target *target;
	DeliveryClass class;
	Oid			rule;
	uint16		slot;
	uint16		room;			/* of keys[] */
	uint32		nkeys;
	uint32		bytes;
	bool		awaited;		/* somebody waits for the answer, or may */
	bool		late;			/* of a node that nobody waits for */
	bool		to_confirm;		/* a WAIT follows */
	uint8		hops;
	KeyRef		keys[FLEXIBLE_ARRAY_MEMBER];
} Command;

/* What is kept of a node, in RedisNode.commands. */
typedef struct CommandQueue
{
	Command    *open[OPEN_COMMANDS];
	int			nopen;
	int			under_way[DELIVERY_CLASSES];
	int			not_awaited;	/* of those under way */
	bool		wait_is_due;	/* no WAIT was sent since the last command to confirm */
	Command    *unconfirmed;	/* carried out, the answer to WAIT is due */
} CommandQueue;

static DatabaseSlot *slot;
static MemoryContext context;

static Command *free_commands[2];	/* with room for few keys, and for many */
static int	under_way[DELIVERY_CLASSES];	/* at all nodes */
static int	silent[DELIVERY_CLASSES];	/* of these, at silent nodes */

static void send_command(RedisNode *node, Command *command);

void
command_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache commands",
									ALLOCSET_DEFAULT_SIZES);
}

static CommandQueue *
queue_of(RedisNode *node)
{
	if (node->commands == NULL)
		node->commands = MemoryContextAllocZero(node->context, sizeof(CommandQueue));
	return node->commands;
}

bool
command_under_way(void)
{
	return under_way[CLASS_SMALL] + under_way[CLASS_BULK] > 0;
}

void
command_look_for_silent(void)
{
	silent[CLASS_SMALL] = silent[CLASS_BULK] = 0;
	if (node_count() <= 1 || !command_under_way())
		return;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);
		CommandQueue *queue = queue_of(node);

		if (node->link == NULL || redis_silent_ms(node->link) < SILENT_MS)
			continue;
		silent[CLASS_SMALL] += queue->under_way[CLASS_SMALL];
		silent[CLASS_BULK] += queue->under_way[CLASS_BULK];
	}
}

bool
command_has_room(DeliveryClass class)
{
	int			limit = class == CLASS_SMALL ? SMALL_COMMANDS : BULK_COMMANDS;

	if (node_count() > 0 && node_at(0)->in_cluster)
		limit *= SLOT_FACTOR;
	return under_way[class] - silent[class] < limit * node_count() &&
		under_way[class] < MOST_COMMANDS;
}

bool
command_is_awaited(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link != NULL &&
			redis_unanswered(node->link) > (size_t) queue_of(node)->not_awaited)
			return true;
	}
	return false;
}

static Command *
new_command(const Target *target, DeliveryClass class, Oid rule, uint16 key_slot, bool many)
{
	Command    *command = free_commands[many];

	if (command)
		free_commands[many] = command->next;
	else
	{
		int			room = many ? COMMAND_KEYS : COMMAND_KEYS_OF_SLOT;

		command = MemoryContextAlloc(context, offsetof(Command, keys) + room * sizeof(KeyRef));
		command->room = room;
	}
	command->target = target;
	command->class = class;
	command->rule = rule;
	command->slot = key_slot;
	command->nkeys = 0;
	command->bytes = 0;
	command->awaited = false;
	command->late = false;
	command->to_confirm = false;
	command->hops = 0;
	return command;
}

static void
free_command(Command *command)
{
	bool		many = command->room == COMMAND_KEYS;

	command->next = free_commands[many];
	free_commands[many] = command;
}

/*
 * --------------------------------------------------------------------------
 * Ends
 * --------------------------------------------------------------------------
 */

static void
key_done(const Target *target, Oid rule, const KeyRef *key, PartOutcome outcome)
{
	PackedItem	item = {
		.kind = ITEM_KEY, .rule = rule, .bytes = key->bytes, .len = key->len
	};

	if (outcome != PART_DELIVERED && outcome != PART_REFUSED)
		lacking_note_key(target, key->bytes, key->len);
	/* The pieces themselves go to the side table, not what they make together. */
	if (key->kind == ITEM_FRAGMENT)
		item.len = 0;
	deliver_part_done(key->delivery, outcome, &item);
}

static void
finish_command(Command *command, PartOutcome outcome)
{
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		if (command->late)
			deliver_part_not_late(command->keys[i].delivery);
		key_done(command->target, command->rule, &command->keys[i], outcome);
	}
	free_command(command);
}

/* Send each key of a refused command by itself. */
static void
split_command(RedisNode *node, Command *command)
{
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		Command    *single = new_command(command->target, command->class, command->rule, command->slot, false);

		single->awaited = command->awaited;
		single->late = command->late;
		single->hops = command->hops;
		single->keys[single->nkeys++] = command->keys[i];
		send_command(node, single);
	}
	free_command(command);
}

/*
 * --------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------
 */

static void
count_command(Command *command, int64 existed)
{
	pg_atomic_fetch_add_u64(&slot->stats.batches, 1);
	pg_atomic_fetch_add_u64(&slot->stats.keys, command->nkeys);
	pg_atomic_fetch_add_u64(&slot->stats.keys_existed, existed);
	stats_count_rule(command->rule, command->nkeys, existed);
}

static void
asking_answered(void *arg, const RedisReply *reply)
{
	/* What comes after it tells. */
}

/* Send a command once more, perhaps to another node; NULL: there is none. */
static void
send_again(RedisNode *node, Command *command, bool asking)
{
	const char *argv[] = {"ASKING"};
	const size_t lens[] = {6};

	if (node == NULL || !node->open || ++command->hops > MAX_HOPS)
		finish_command(command, node != NULL && node->is_down ? PART_AWAY : PART_AGAIN);
	else if (asking && !redis_send(node->link, 1, argv, lens, asking_answered, NULL))
		finish_command(command, PART_LOST);
	else
		send_command(node, command);
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
			finish_command(command, PART_AGAIN);
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
	other = target_redirect(node->target, reply, &asking);
	send_again(other, command, other != NULL && asking);
	return true;
}

static void
command_refused(RedisNode *node, Command *command, const RedisReply *reply)
{
	const char *why;

	if (follow_cluster(node, command, reply))
		return;
	if (trouble_is(reply, &why))
	{
		node_note_trouble(node, reply);
		finish_command(command, PART_LOST);
	}
	else if (command->nkeys > 1)
		split_command(node, command);
	else
	{
		trouble_note_refusal(reply);
		finish_command(command, PART_REFUSED);
	}
}

static void
carried_out(RedisNode *node, Command *command)
{
	if (command->to_confirm)
	{
		command->next = node->commands->unconfirmed;
		node->commands->unconfirmed = command;
	}
	else
		finish_command(command, replicas_are_short(node) ? PART_UNCONFIRMED : PART_DELIVERED);
}

static void
finish_unconfirmed(RedisNode *node, PartOutcome outcome)
{
	Command    *command = node->commands->unconfirmed;

	node->commands->unconfirmed = NULL;
	while (command)
	{
		Command    *next = command->next;

		finish_command(command, outcome);
		command = next;
	}
}

/* All commands of before it have been answered, and none of after it. */
static void
wait_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply == NULL)
		finish_unconfirmed(node, PART_LOST);
	else
		finish_unconfirmed(node, replicas_note(node, reply) ? PART_DELIVERED : PART_UNCONFIRMED);
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
		finish_command(command, PART_LOST);
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		FAULT_POINT("answered");
		node_note_use(node);
		count_command(command, redis_reply_integer(reply));
		carried_out(node, command);
	}
	else if (redis_reply_type(reply) != REDIS_ERROR)
	{
		node_note_nonsense(node);
		finish_command(command, PART_LOST);
	}
	else
		command_refused(node, command, reply);
}

/*
 * --------------------------------------------------------------------------
 * Sending
 * --------------------------------------------------------------------------
 */

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
	add_text(Shared_state->incarnation);
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		snprintf(arguments.xids[i], sizeof(arguments.xids[i]), UINT64_FORMAT,
				 deliver_xid(command->keys[i].delivery));
		add_text(arguments.xids[i]);
	}
}

static void
send_command(RedisNode *node, Command *command)
{
	CommandQueue *queue = queue_of(node);

	make_arguments(node, command);
	command->to_confirm = replicas_are_wanted() && !replicas_are_short(node);
	queue->wait_is_due |= command->to_confirm;
	if (redis_send(node->link, arguments.n, arguments.argv, arguments.lens,
				   command_answered, command))
	{
		under_way[command->class]++;
		queue->under_way[command->class]++;
		if (!command->awaited)
			queue->not_awaited++;
	}
	else
		finish_command(command, PART_LOST);
}

/*
 * --------------------------------------------------------------------------
 * Gathering
 * --------------------------------------------------------------------------
 */

/* The command that gathers these keys; sends one where all are in use. */
static Command **
open_command_of(RedisNode *node, DeliveryClass class, Oid rule, uint16 key_slot)
{
	CommandQueue *queue = queue_of(node);
	Command   **unused = NULL;

	for (int i = 0; i < OPEN_COMMANDS; i++)
	{
		Command    *open = queue->open[i];

		if (open == NULL)
			unused = &queue->open[i];
		else if (open->rule == rule && open->slot == key_slot)
			return &queue->open[i];
	}
	if (unused == NULL)
	{
		unused = &queue->open[(rule + key_slot) % OPEN_COMMANDS];
		send_command(node, *unused);
		queue->nopen--;
	}
	*unused = new_command(node->target, class, rule, key_slot, !node->in_cluster);
	queue->nopen++;
	return unused;
}

static void
gather(RedisNode *node, uint16 key_slot, DeliveryClass class, Oid rule, const KeyRef *key)
{
	Command   **open = open_command_of(node, class, rule, key_slot);
	Command    *command = *open;

	/* All keys of a command are, or none. */
	if (command->nkeys == 0)
		command->late = node->late != 0 || replicas_are_short(node);
	if (command->late)
		deliver_part_late(key->delivery);
	command->keys[command->nkeys++] = *key;
	command->bytes += key->len;
	command->awaited |= deliver_is_awaited(key->delivery);
	if (command->nkeys == command->room || command->bytes >= COMMAND_BYTES)
	{
		*open = NULL;
		node->commands->nopen--;
		send_command(node, command);
	}
}

void
command_add_key(Delivery *delivery, DeliveryClass class, Oid rule, ItemKind kind,
				const char *bytes, uint32 len, bool only_lacking)
{
	KeyRef		key = {.delivery = delivery, .bytes = bytes, .len = len, .kind = kind};

	for (int i = 0; i < target_count(); i++)
	{
		Target	   *target = target_at(i);
		uint16		key_slot;
		RedisNode  *node = target_node(target, bytes, len, &key_slot);

		if (only_lacking && node != NULL && !lacking_is(node))
			key_done(target, rule, &key, PART_DELIVERED);
		else if (node != NULL && node->open)
			gather(node, key_slot, class, rule, &key);
		else if (node == NULL || node->is_down)
			key_done(target, rule, &key, PART_AWAY);
		else
			key_done(target, rule, &key, PART_AGAIN);	/* about to be connected */
	}
}

void
command_send_open(void)
{
	for (int n = 0; n < node_count(); n++)
	{
		RedisNode  *node = node_at(n);
		CommandQueue *queue = node->commands;

		for (int i = 0; queue != NULL && queue->nopen > 0 && i < OPEN_COMMANDS; i++)
		{
			Command    *command = queue->open[i];

			queue->open[i] = NULL;
			if (command)
			{
				queue->nopen--;
				send_command(node, command);
			}
		}
	}
}

void
command_ask_replicas(void)
{
	for (int n = 0; n < node_count(); n++)
	{
		RedisNode  *node = node_at(n);
		CommandQueue *queue = node->commands;

		if (queue == NULL || !queue->wait_is_due)
			continue;
		queue->wait_is_due = false;
		if (node->link == NULL || !replicas_ask(node, wait_answered))
			finish_unconfirmed(node, PART_LOST);	/* the link has failed */
	}
}
