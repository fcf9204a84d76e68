/*
 * ring.c
 *	  The byte ring between backends and one worker (see ring.h).
 *
 * Every function is called with the lock of the DatabaseState held, exclusively.  Nothing
 * in here can fail, since ring_put() runs after the commit.
 */
#include "postgres.h"

#include "shmem/ring.h"

/* A head with this size fills the rest of the ring up to its end. */
#define FILLER_BIT		0x80000000U

void
ring_init(Ring *ring, char *data, uint32 size)
{
	Assert(size % MAXIMUM_ALIGNOF == 0 && (uintptr_t) data % MAXIMUM_ALIGNOF == 0);
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

#ifdef USE_ASSERT_CHECKING
/* Positions lie at entries, and no more is in the ring than it holds. */
static inline bool
is_sound(const Ring *ring)
{
	return ring->taken <= ring->put && ring->put - ring->taken <= ring->size &&
		ring->put % MAXIMUM_ALIGNOF == 0 && ring->taken % MAXIMUM_ALIGNOF == 0;
}
#endif

bool
ring_put(Ring *ring, const RingEntry *head, const char *items, size_t len)
{
	Size		need = MAXALIGN(MAXALIGN(sizeof(RingEntry)) + len);
	uint32		start;
	uint32		to_end;
	uint32		filler;
	RingEntry  *entry;

	Assert(is_sound(ring));
	/* An empty ring begins anew where the entry would cross its end: all of it is free. */
	if (ring_is_empty(ring) && need > ring->size - ring->put % ring->size)
		ring->taken = ring->put += ring->size - ring->put % ring->size;

	start = ring->put % ring->size;
	to_end = ring->size - start;
	filler = need > to_end ? to_end : 0;
	if (need + filler > ring->size - ring_used(ring))
		return false;

	if (filler > 0)
	{
		*(uint32 *) (ring->data + start) = filler | FILLER_BIT;
		ring->put += filler;
		start = 0;
	}
	entry = (RingEntry *) (ring->data + start);
	*entry = *head;
	entry->size = MAXALIGN(sizeof(RingEntry)) + len;
	memcpy(ring_items(entry), items, len);
	ring->awaited |= head->waiter >= 0;
	ring->put += need;
	Assert(is_sound(ring));
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
	Assert(is_sound(ring));
}

/* The next entry of a committed row from this position on, which moves behind it; or NULL. */
static RingEntry *
next_committed(const Ring *ring, uint64 *at)
{
	while (*at < ring->put)
	{
		RingEntry  *entry = (RingEntry *) (ring->data + *at % ring->size);

		if (entry->size & FILLER_BIT)
		{
			*at += entry->size & ~FILLER_BIT;
			continue;
		}
		*at += MAXALIGN(entry->size);
		if (entry->kind == RING_COMMITTED)
			return entry;
	}
	return NULL;
}

bool
ring_has_table(const Ring *ring, int table)
{
	uint64		at = ring->taken;
	const RingEntry *entry;

	Assert(is_sound(ring));
	while ((entry = next_committed(ring, &at)) != NULL)
	{
		if (entry->table == table)
			return true;
	}
	return false;
}

void
ring_discard(Ring *ring, uint64 xid)
{
	uint64		at = ring->taken;
	RingEntry  *entry;

	Assert(is_sound(ring));
	while ((entry = next_committed(ring, &at)) != NULL)
	{
		if (entry->xid == xid)
			entry->kind = RING_DISCARDED;
	}
}
