/*
 * ring.c
 *	  The byte ring between backends and one worker (see ring.h).
 *
 * Every function is called with the slot's lock held, exclusively.  Nothing in
 * here can fail, since ring_put() runs after the commit.
 */
#include "postgres.h"

#include "shmem/ring.h"

/* A head with this size fills the rest of the ring up to its end. */
#define FILLER_BIT		0x80000000U

void
ring_init(Ring *ring, char *data, uint32 size)
{
	ring->put = 0;
	ring->taken = 0;
	ring->size = size;
	ring->awaited = false;
	ring->data = data;
}

bool
ring_is_empty(const Ring *ring)
{
	return ring->put == ring->taken;
}

uint32
ring_used(const Ring *ring)
{
	return (uint32) (ring->put - ring->taken);
}

bool
ring_put(Ring *ring, const RingEntry *head, const char *items, size_t len)
{
	Size		need = MAXALIGN(MAXALIGN(sizeof(RingEntry)) + len);
	uint32		place;
	uint32		to_end;
	uint32		filler;
	RingEntry  *entry;

	/* An empty one has room for whatever fits at all. */
	if (ring_is_empty(ring) && need > ring->size - ring->put % ring->size)
		ring->taken = ring->put += ring->size - ring->put % ring->size;

	place = ring->put % ring->size;
	to_end = ring->size - place;
	filler = need > to_end ? to_end : 0;
	if (need + filler > ring->size - ring_used(ring))
		return false;

	if (filler > 0)
	{
		*(uint32 *) (ring->data + place) = filler | FILLER_BIT;
		ring->put += filler;
		place = 0;
	}
	entry = (RingEntry *) (ring->data + place);
	*entry = *head;
	entry->size = MAXALIGN(sizeof(RingEntry)) + len;
	memcpy(ring_items(entry), items, len);
	ring->awaited |= head->waiter >= 0;
	ring->put += need;
	return true;
}

RingEntry *
ring_peek(Ring *ring)
{
	uint32		size;

	if (ring_is_empty(ring))
	{
		ring->awaited = false;
		return NULL;
	}

	size = *(uint32 *) (ring->data + ring->taken % ring->size);
	if (size & FILLER_BIT)
	{
		/* A filler is only ever put together with the entry behind it. */
		ring->taken += size & ~FILLER_BIT;
		Assert(!ring_is_empty(ring));
	}
	return (RingEntry *) (ring->data + ring->taken % ring->size);
}

void
ring_take(Ring *ring)
{
	RingEntry  *entry = ring_peek(ring);

	Assert(entry != NULL);
	ring->taken += MAXALIGN(entry->size);
}

bool
ring_has_table(const Ring *ring, int table)
{
	uint64		at = ring->taken;

	while (at < ring->put)
	{
		const RingEntry *entry = (const RingEntry *) (ring->data + at % ring->size);

		if (entry->size & FILLER_BIT)
		{
			at += entry->size & ~FILLER_BIT;
			continue;
		}
		if (entry->kind == RING_COMMITTED && entry->table == table)
			return true;
		at += MAXALIGN(entry->size);
	}
	return false;
}
