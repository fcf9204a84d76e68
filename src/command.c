/*
 * command.c
 *	  Keys on their way to Redis: many in a command, of one rule.
 *
 * Keys are gathered into an open command for each rule, so that the views can tell
 * how many of a rule's keys existed, and sent when it is full or all keys of the
 * turn are there.  Where the functions of the fence are in use the command is a
 * call of uncache_invalidate, else an UNLINK.
 *
 * A refused command is sent again key by key, to find the key that is to blame.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "command.h"
#include "faultpoint.h"
#include "fence.h"
#include "stats.h"
#include "trouble.h"

/*
 * Keys in one command.  Redis carries a command out in one go: 128 keys are about
 * 150 microseconds in which nobody else is served.
 */
#define COMMAND_KEYS		128
#define COMMAND_BYTES		(64 * 1024)

/* Rules whose keys are gathered at the same time. */
#define OPEN_COMMANDS		8

typedef struct KeyRef
{
	Delivery   *delivery;
	const char *bytes;
	uint32		len;
	uint8		kind;			/* ITEM_KEY, or ITEM_FRAGMENT: bytes are palloc'd */
} KeyRef;

/* An UNLINK, being gathered or under way. */
typedef struct Command
{
	struct Command *next_free;
	DeliveryClass class;
	Oid			rule;
	uint32		nkeys;
	uint32		bytes;
	bool		awaited;		/* somebody waits for the answer, or may */
	KeyRef		keys[COMMAND_KEYS];
} Command;

static DatabaseSlot *slot;
static MemoryContext context;
static RedisLink *send_link = NULL; /* of the current connection */

static Command *free_commands = NULL;
static Command *open_commands[OPEN_COMMANDS];
static int	under_way[DELIVERY_CLASSES];
static int	not_awaited = 0;	/* of those under way */

static void send_command(Command *command);

void
command_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache commands",
									ALLOCSET_DEFAULT_SIZES);
}

void
command_use_link(RedisLink *link)
{
	send_link = link;
}

int
command_under_way(DeliveryClass class)
{
	return under_way[class];
}

bool
command_is_awaited(const RedisLink *link)
{
	return redis_unanswered(link) > (size_t) not_awaited;
}

static Command *
new_command(DeliveryClass class, Oid rule)
{
	Command    *command = free_commands;

	if (command)
		free_commands = command->next_free;
	else
		command = MemoryContextAlloc(context, sizeof(Command));
	command->class = class;
	command->rule = rule;
	command->nkeys = 0;
	command->bytes = 0;
	command->awaited = false;
	return command;
}

static void
free_command(Command *command)
{
	command->next_free = free_commands;
	free_commands = command;
}

static void
key_done(Command *command, const KeyRef *key, PartOutcome outcome)
{
	PackedItem	item = {
		.kind = ITEM_KEY, .rule = command->rule, .bytes = key->bytes, .len = key->len
	};
	char	   *assembled = key->kind == ITEM_FRAGMENT ? (char *) key->bytes : NULL;

	/* The pieces themselves go to the side table, not what they make together. */
	if (assembled)
		item.len = 0;
	deliver_part_done(key->delivery, outcome, &item);
	if (assembled)
		pfree(assembled);
}

static void
finish_command(Command *command, PartOutcome outcome)
{
	for (uint32 i = 0; i < command->nkeys; i++)
		key_done(command, &command->keys[i], outcome);
	free_command(command);
}

/* Send each key of a refused command by itself. */
static void
split_command(Command *command)
{
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		Command    *single = new_command(command->class, command->rule);

		single->awaited = command->awaited;
		single->keys[single->nkeys++] = command->keys[i];
		send_command(single);
	}
	free_command(command);
}

static void
count_command(Command *command, int64 existed)
{
	pg_atomic_fetch_add_u64(&slot->stats.batches, 1);
	pg_atomic_fetch_add_u64(&slot->stats.keys, command->nkeys);
	pg_atomic_fetch_add_u64(&slot->stats.keys_existed, existed);
	stats_count_rule(command->rule, command->nkeys, existed);
}

static void
command_answered(void *arg, const RedisReply *reply)
{
	Command    *command = arg;
	const char *why;

	under_way[command->class]--;
	if (!command->awaited)
		not_awaited--;
	if (reply == NULL)
		finish_command(command, PART_LOST);
	else if (redis_reply_type(reply) == REDIS_INTEGER)
	{
		FAULT_POINT("answered");
		count_command(command, redis_reply_integer(reply));
		finish_command(command, PART_DELIVERED);
	}
	else if (redis_reply_type(reply) != REDIS_ERROR)
	{
		trouble_note_nonsense();
		finish_command(command, PART_LOST);
	}
	else if (trouble_is(reply, &why))
	{
		trouble_note(reply);
		finish_command(command, PART_LOST);
	}
	else if (command->nkeys > 1)
		split_command(command);
	else
	{
		trouble_note_refusal(reply);
		finish_command(command, PART_REFUSED);
	}
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

/* UNLINK key..., or FCALL uncache_invalidate n key... ttl incarnation xid... */
static void
make_arguments(Command *command)
{
	bool		fenced = fence_is_used();

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
send_command(Command *command)
{
	make_arguments(command);
	if (redis_send(send_link, arguments.n, arguments.argv, arguments.lens,
				   command_answered, command))
	{
		under_way[command->class]++;
		if (!command->awaited)
			not_awaited++;
	}
	else
		finish_command(command, PART_LOST);
}

/*
 * --------------------------------------------------------------------------
 * Gathering
 * --------------------------------------------------------------------------
 */

/* The command that gathers this rule's keys; sends one where all are in use. */
static Command **
open_command_of(DeliveryClass class, Oid rule)
{
	Command   **unused = NULL;

	for (int i = 0; i < OPEN_COMMANDS; i++)
	{
		if (open_commands[i] == NULL)
			unused = &open_commands[i];
		else if (open_commands[i]->rule == rule)
			return &open_commands[i];
	}
	if (unused == NULL)
	{
		unused = &open_commands[rule % OPEN_COMMANDS];
		send_command(*unused);
	}
	*unused = new_command(class, rule);
	return unused;
}

void
command_add_key(Delivery *delivery, DeliveryClass class, Oid rule, ItemKind kind,
				const char *bytes, uint32 len)
{
	Command   **open = open_command_of(class, rule);
	Command    *command = *open;
	KeyRef	   *key = &command->keys[command->nkeys++];

	key->delivery = delivery;
	key->kind = kind;
	key->bytes = bytes;
	key->len = len;
	command->bytes += len;
	command->awaited |= deliver_is_awaited(delivery);
	if (command->nkeys == COMMAND_KEYS || command->bytes >= COMMAND_BYTES)
	{
		*open = NULL;
		send_command(command);
	}
}

void
command_send_open(void)
{
	for (int i = 0; i < OPEN_COMMANDS; i++)
	{
		Command    *command = open_commands[i];

		open_commands[i] = NULL;
		if (command)
			send_command(command);
	}
}
