/*
 * commandend.c
 *	  The end of a command: what its deliveries are told, and when.
 *
 * A command ends as a whole: each of its keys ends a part of a delivery, with the same
 * outcome, and the command goes back to those that are free.  They are kept, since
 * a worker under load needs as many again at once.
 *
 * Where replicas are to acknowledge (replica_ack.c), a command that was carried out is
 * finished with the answer to the WAIT that follows it on the link.  One WAIT is for
 * all commands before it.  Where too few replicas have them in time the outcome is
 * PART_UNCONFIRMED; while they are known to be too few nobody waits for them.
 *
 * What ends otherwise than delivered or refused is noted as lacking at the node
 * (lacking.h), since its row will be sent again.  After a crash nothing of this is known,
 * and all rows are sent again, to all nodes.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/batch_int.h"
#include "delivery/lacking.h"
#include "delivery/replica_ack.h"

static MemoryContext context;
static Command *free_commands[2];	/* with room for few keys, and for many */

void
commandend_init(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache commands",
									ALLOCSET_DEFAULT_SIZES);
}

Command *
batch_new(const Target *target, DeliveryPriority class, Oid rule, uint16 key_slot, bool many)
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
	command->refusable = false;
	command->late = false;
	command->to_confirm = false;
	command->records_gone = false;
	command->hops = 0;
	return command;
}

void
batch_free(Command *command)
{
	bool		many = command->room == COMMAND_KEYS;

	command->next = free_commands[many];
	free_commands[many] = command;
}

void
batch_key_done(const Target *target, Oid rule, const KeyRef *key, PartOutcome outcome)
{
	Invalidation	item = {
		.kind = INVALIDATION_KEY, .rule = rule, .bytes = key->bytes, .len = key->len
	};

	if (outcome != PART_DELIVERED && outcome != PART_REFUSED)
		lacking_note_key(target, key->bytes, key->len);
	delivery_part_done(key->delivery, outcome, &item);
}

void
batch_finish(Command *command, PartOutcome outcome)
{
	for (uint32 i = 0; i < command->nkeys; i++)
	{
		if (command->late)
			delivery_part_awaited(command->keys[i].delivery);
		batch_key_done(command->target, command->rule, &command->keys[i], outcome);
	}
	batch_free(command);
}

/*
 * --------------------------------------------------------------------------
 * Confirmed by replicas
 * --------------------------------------------------------------------------
 */

void
batch_see_to_confirm(RedisNode *node, Command *command)
{
	command->to_confirm = replica_ack_are_wanted() && !replica_ack_are_short(node);
	node->commands->wait_is_due |= command->to_confirm;
}

void
batch_carried_out(RedisNode *node, Command *command)
{
	if (command->to_confirm)
	{
		command->next = node->commands->unconfirmed;
		node->commands->unconfirmed = command;
	}
	else
		batch_finish(command, replica_ack_are_short(node) ? PART_UNCONFIRMED : PART_DELIVERED);
}

static void
finish_unconfirmed(RedisNode *node, PartOutcome outcome)
{
	Command    *command = node->commands->unconfirmed;

	node->commands->unconfirmed = NULL;
	while (command)
	{
		Command    *next = command->next;

		batch_finish(command, outcome);
		command = next;
	}
}

/* All commands of before it have been answered, and none of after it. */
static void
wait_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply == NULL)
		finish_unconfirmed(node, PART_NO_REPLY);
	else
		finish_unconfirmed(node, replica_ack_note(node, reply) ? PART_DELIVERED : PART_UNCONFIRMED);
}

void
batch_ask_replicas(void)
{
	for (int n = 0; n < node_count(); n++)
	{
		RedisNode  *node = node_at(n);
		CommandQueue *queue = node->commands;

		if (queue == NULL || !queue->wait_is_due)
			continue;
		queue->wait_is_due = false;
		if (node->link == NULL || !replica_ack_ask(node, wait_answered))
			finish_unconfirmed(node, PART_NO_REPLY);	/* the link has failed */
	}
}
