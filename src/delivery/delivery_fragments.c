/*
 * delivery_fragments.c
 *	  Items that are too long for a row: put together from the fragments of several rows.
 *
 * Each fragment is the only item of its row.  It says where in the item it belongs; from that and
 * its chunk follows which chunk of the transaction is the item's first.  So fragments can come in
 * any order, and between those of other items.  When the last one is here the item is sent as
 * one, and its deliveries, chained by Delivery.joined, end together.
 *
 * A fragment that does not fit is damaged, and left out.  An item is given up when one of its
 * fragments is missing and there has been nothing left to read for a while: outbox_damage.c
 * stands in for it, and the fragments that are there count as delivered.
 *
 * When the links are gone all fragments here are forgotten, and after a crash, too: their rows
 * are in the outbox, and a scan finds them.  An item takes INVALIDATION_MAX_BYTES at the most.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "outbox/outbox_damage.h"
#include "delivery/delivery_int.h"

/*
 * The fragments of a transaction become visible together, and a scan finds one soon after the
 * other: one that has not come for so long, with nothing left to be read, does not exist.
 */
#define MISSING_MS		5000

/* An item of which some fragments have not come yet. */
typedef struct Assembly
{
	dlist_node	node;
	uint64		xid;
	int32		first_chunk;
	int			table;			/* a second delete has fragments of its own */
	Oid			rule;
	FragmentHead head;			/* of any fragment; offset means nothing */
	uint32		received;
	TimestampTz last_at;		/* when a fragment came, or something was left to be read */
	Delivery   *fragments;		/* chain by joined */
	char	   *bytes;
} Assembly;

static MemoryContext context;
static dlist_head assemblies = DLIST_STATIC_INIT(assemblies);

void
delivery_fragments_init(void)
{
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache fragments",
									ALLOCSET_DEFAULT_SIZES);
}

static Assembly *
find_assembly(const OutboxRow *row, int32 first_chunk)
{
	dlist_iter	iter;

	dlist_foreach(iter, &assemblies)
	{
		Assembly   *assembly = dlist_container(Assembly, node, iter.cur);

		if (assembly->xid == row->xid && assembly->first_chunk == first_chunk &&
			assembly->table == row->table)
			return assembly;
	}
	return NULL;
}

static Assembly *
new_assembly(const OutboxRow *row, int32 first_chunk, Oid rule, const FragmentHead *head)
{
	Assembly   *assembly = MemoryContextAllocZero(context, sizeof(Assembly));

	Assert(head->total > 0 && head->total <= INVALIDATION_MAX_BYTES);
	assembly->xid = row->xid;
	assembly->first_chunk = first_chunk;
	assembly->table = row->table;
	assembly->rule = rule;
	assembly->head = *head;
	assembly->bytes = MemoryContextAlloc(context, head->total);
	dlist_push_tail(&assemblies, &assembly->node);
	return assembly;
}

/*
 * All fragments are here, the last one with this delivery.  Where a node may have forgotten while
 * some of them were here all are marked to be sent again, since some alone never make an item.
 */
static void
complete(Delivery *last, Assembly *assembly, Invalidation *whole)
{
	bool		to_repeat = false;

	Assert(assembly->fragments == last && last->assembled == NULL);
	whole->kind = assembly->head.kind;
	whole->rule = assembly->rule;
	whole->bytes = last->assembled = assembly->bytes;
	whole->len = assembly->head.total;
	for (Delivery *fragment = last; fragment; fragment = fragment->joined)
		to_repeat |= fragment->to_repeat;
	for (Delivery *fragment = last; fragment; fragment = fragment->joined)
		fragment->to_repeat = to_repeat;
	dlist_delete(&assembly->node);
	pfree(assembly);
}

/* So far each fragment has counted one part: that it waits for the others. */
bool
delivery_fragments_parts(Delivery *last, int parts)
{
	bool		is_resend = true;

	Assert(last->is_fragment && parts > 0);
	for (Delivery *fragment = last; fragment; fragment = fragment->joined)
	{
		fragment->parts_left += parts - 1;
		is_resend &= fragment->row.is_resend;
	}
	return is_resend;
}

FragmentOutcome
delivery_fragments_add(Delivery *delivery, const Invalidation *item, Invalidation *whole)
{
	FragmentHead head;
	uint32		len;
	int32		first_chunk;
	Assembly   *assembly;

	if (!invalidation_read_head(item, &head))
		return FRAGMENT_DAMAGED;
	len = item->len - sizeof(head);
	first_chunk = delivery->row.chunk - head.offset / FRAGMENT_BYTES;
	assembly = find_assembly(&delivery->row, first_chunk);
	if (assembly == NULL)
		assembly = new_assembly(&delivery->row, first_chunk, item->rule, &head);
	if (assembly->head.total != head.total || assembly->head.kind != head.kind)
		return FRAGMENT_DAMAGED;

	Assert(head.offset + len <= head.total && !delivery->is_fragment);
	delivery->is_fragment = true;
	delivery->parts_left++;
	delivery->joined = assembly->fragments;
	assembly->fragments = delivery;
	memcpy(assembly->bytes + head.offset, item->bytes + sizeof(head), len);
	assembly->received += len;
	assembly->last_at = clock_now();
	if (assembly->received < head.total)
		return FRAGMENT_WAITS;
	complete(delivery, assembly, whole);
	return FRAGMENT_COMPLETES;
}

void
delivery_fragments_forget(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &assemblies)
	{
		Assembly   *assembly = dlist_container(Assembly, node, iter.cur);

		dlist_delete(&assembly->node);
		delivery_part_done(assembly->fragments, PART_NO_REPLY, NULL);
		pfree(assembly->bytes);
		pfree(assembly);
	}
}

static void
give_up(Assembly *assembly)
{
	Assert(assembly->fragments != NULL && assembly->received < assembly->head.total);
	outbox_damage_note_row(assembly->xid, "a part of a long key is missing");
	dlist_delete(&assembly->node);
	delivery_part_done(assembly->fragments, PART_DELIVERED, NULL);
	pfree(assembly->bytes);
	pfree(assembly);
}

TimestampTz
delivery_fragments_run(TimestampTz now, bool all_read)
{
	TimestampTz wake = DT_NOEND;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &assemblies)
	{
		Assembly   *assembly = dlist_container(Assembly, node, iter.cur);

		if (!all_read)
			assembly->last_at = now;
		else if (TimestampDifferenceExceeds(assembly->last_at, now, MISSING_MS))
			give_up(assembly);
		else
			wake = Min(wake, TimestampTzPlusMilliseconds(assembly->last_at, MISSING_MS + 1));
	}
	return wake;
}
