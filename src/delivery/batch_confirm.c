/*
 * batch_confirm.c
 *	  A batch that Redis has carried out: confirmed by replicas, and announced.
 *
 * Where replicas are to acknowledge (replica_ack.c), a batch that Redis has carried out goes on
 * with the answer to the WAIT that follows it on the link.  One WAIT is for all batches before it.
 * Where too few replicas have them in time the outcome is PART_UNCONFIRMED; as long as they are
 * known to be too few, no session waits for such a batch.
 *
 * Then the stream is told of its keys (stream.c), which ends the batch.  The keys of an unconfirmed
 * batch are announced, too, since they are deleted: once, however often they are sent again, and
 * once more with the deletes that are confirmed.
 */
#include "postgres.h"

#include "delivery/batch_int.h"
#include "delivery/replica_ack.h"
#include "delivery/stream.h"

void
batch_confirm_decide(RedisNode *node, Batch *batch)
{
	Assert(node->batches != NULL && batch->kind < BATCH_ANNOUNCED);
	/* A pass asks for all of its keys at its end (pattern_scan.c). */
	batch->to_confirm = batch->kind != BATCH_FOUND && replica_ack_are_wanted() &&
		!replica_ack_are_short(node);
	node->batches->wait_is_due |= batch->to_confirm;
}

/* It has deleted its keys, and as many replicas have that as are wanted, or not. */
static void
conclude(Batch *batch, bool is_confirmed)
{
	Assert(batch->nkeys > 0 && !batch->announced);
	if (batch->kind == BATCH_FOUND)
		batch_finish(batch, PART_DELIVERED);
	else if (is_confirmed)
		stream_announce(batch);
	else
	{
		stream_announce_unconfirmed(batch);
		batch_finish(batch, PART_UNCONFIRMED);
	}
}

void
batch_confirm_carried_out(RedisNode *node, Batch *batch)
{
	Assert(node->batches != NULL);
	if (batch->to_confirm)
	{
		batch->next = node->batches->unconfirmed;
		node->batches->unconfirmed = batch;
	}
	else
		conclude(batch, !replica_ack_are_short(node));
}

static void
finish_unconfirmed(RedisNode *node, PartOutcome outcome)
{
	Batch	   *batch = node->batches->unconfirmed;

	node->batches->unconfirmed = NULL;
	while (batch)
	{
		Batch	   *next = batch->next;

		if (outcome == PART_NO_REPLY)
			batch_finish(batch, outcome);
		else
			conclude(batch, outcome == PART_DELIVERED);
		batch = next;
	}
}

/* Every batch sent before this WAIT has been answered, and none that was sent after it. */
static void
wait_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = node_answering();

	if (reply == NULL)
		finish_unconfirmed(node, PART_NO_REPLY);
	else
		finish_unconfirmed(node, replica_ack_note(node, reply) ? PART_DELIVERED : PART_UNCONFIRMED);
}

static void
ask_node(RedisNode *node, void *arg)
{
	NodeBatches *queue = node->batches;

	if (queue == NULL || !queue->wait_is_due)
		return;
	queue->wait_is_due = false;
	if (node->link == NULL || !replica_ack_ask(node, wait_answered))
		finish_unconfirmed(node, PART_NO_REPLY);	/* the link has failed */
}

void
batch_confirm_ask(void)
{
	node_for_turn(ask_node, NULL);
}
