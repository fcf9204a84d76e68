/*
 * batch.c
 *	  Keys on their way to the nodes: many in a command, of one rule.
 *
 * Keys are gathered into an open command for each node and rule, so that the views can
 * tell how many of a rule's keys existed, and sent when it is full or all keys of the
 * turn are there.  In a cluster the keys of a command must be of one slot, so there
 * are more and smaller ones.  From then on batch_send.c has the command, until it ends
 * (commandend.c).
 *
 * A key of a node that has no link is never gathered: its part ends at once, as one to be
 * sent again.  All of this is in memory; after a crash the rows are sent again.
 *
 * A node that has fallen silent collects commands until it answers or is given up,
 * which takes it command_timeout; meanwhile the others are sent theirs.
 */
#include "postgres.h"

#include "delivery/batch_int.h"
#include "delivery/lacking.h"
#include "delivery/refusal.h"
#include "delivery/replica_ack.h"

/* A command is sent when it has as many bytes, even if there is room for more keys. */
#define COMMAND_BYTES		(64 * 1024)

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

static int	silent[DELIVERY_PRIORITIES];	/* of the commands under way, at silent nodes */

void
batch_init(DatabaseState *my_slot)
{
	commandend_init();
	refusal_init();
	batch_send_init();
}

/*
 * --------------------------------------------------------------------------
 * How many may be under way
 * --------------------------------------------------------------------------
 */

bool
batch_under_way(void)
{
	return batch_send_count_under_way(PRIORITY_COMMIT) + batch_send_count_under_way(PRIORITY_SCAN) > 0;
}

void
batch_look_for_silent(void)
{
	silent[PRIORITY_COMMIT] = silent[PRIORITY_SCAN] = 0;
	if (node_count() <= 1 || !batch_under_way())
		return;
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);
		CommandQueue *queue = command_queue_of(node);

		if (node->link == NULL || redis_silent_ms(node->link) < SILENT_MS)
			continue;
		silent[PRIORITY_COMMIT] += queue->under_way[PRIORITY_COMMIT];
		silent[PRIORITY_SCAN] += queue->under_way[PRIORITY_SCAN];
	}
}

bool
batch_has_room(DeliveryPriority class)
{
	int			limit = class == PRIORITY_COMMIT ? SMALL_COMMANDS : BULK_COMMANDS;
	int			under_way = batch_send_count_under_way(class);

	if (node_count() > 0 && node_at(0)->in_cluster)
		limit *= SLOT_FACTOR;
	return under_way - silent[class] < limit * node_count() && under_way < MOST_COMMANDS;
}

bool
batch_is_awaited(void)
{
	for (int i = 0; i < node_count(); i++)
	{
		RedisNode  *node = node_at(i);

		if (node->link != NULL &&
			redis_unanswered(node->link) > (size_t) command_queue_of(node)->not_awaited)
			return true;
	}
	return false;
}

/*
 * --------------------------------------------------------------------------
 * Gathering
 * --------------------------------------------------------------------------
 */

/* The command that gathers these keys; sends one where all are in use. */
static Command **
open_command_of(RedisNode *node, DeliveryPriority class, Oid rule, uint16 key_slot, bool refusable)
{
	CommandQueue *queue = command_queue_of(node);
	Command   **unused = NULL;

	for (int i = 0; i < OPEN_COMMANDS; i++)
	{
		Command    *open = queue->open[i];

		if (open == NULL)
			unused = &queue->open[i];
		else if (open->rule == rule && open->slot == key_slot && open->refusable == refusable)
			return &queue->open[i];
	}
	if (unused == NULL)
	{
		unused = &queue->open[(rule + key_slot) % OPEN_COMMANDS];
		batch_send(node, *unused);
		queue->nopen--;
	}
	*unused = batch_new(node->target, class, rule, key_slot, !node->in_cluster);
	(*unused)->refusable = refusable;
	queue->nopen++;
	return unused;
}

static void
gather(RedisNode *node, uint16 key_slot, DeliveryPriority class, Oid rule, const KeyRef *key)
{
	bool		refusable = refusal_is_likely(node->target, rule, key->bytes, key->len);
	Command   **open = open_command_of(node, class, rule, key_slot, refusable);
	Command    *command = *open;

	/* All keys of a command are, or none. */
	if (command->nkeys == 0)
		command->late = node->slow_after_ms != 0 || replica_ack_are_short(node) || refusable;
	if (command->late)
		delivery_part_unawaited(key->delivery);
	command->keys[command->nkeys++] = *key;
	command->bytes += key->len;
	command->awaited |= delivery_is_awaited(key->delivery);
	if (command->nkeys == command->room || command->bytes >= COMMAND_BYTES)
	{
		*open = NULL;
		node->commands->nopen--;
		batch_send(node, command);
	}
}

void
batch_add_key(Delivery *delivery, DeliveryPriority class, const Invalidation *item,
				bool only_lacking)
{
	KeyRef		key = {.delivery = delivery, .bytes = item->bytes, .len = item->len};
	Oid			rule = item->rule;

	for (int i = 0; i < target_count(); i++)
	{
		Target	   *target = target_at(i);
		uint16		key_slot;
		RedisNode  *node = target_node(target, key.bytes, key.len, &key_slot);

		if (only_lacking && node != NULL && !lacking_is(node))
			batch_key_done(target, rule, &key, PART_DELIVERED);
		else if (node != NULL && node->open)
			gather(node, key_slot, class, rule, &key);
		else if (node == NULL || node->is_down)
			batch_key_done(target, rule, &key, PART_NODE_DOWN);
		else
			batch_key_done(target, rule, &key, PART_RETRY_SOON);	/* about to be connected */
	}
}

void
batch_send_open(void)
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
				batch_send(node, command);
			}
		}
	}
}
