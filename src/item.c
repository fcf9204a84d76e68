/*
 * item.c
 *	  Reading and writing the packed form of invalidations (see item.h).
 *
 * Needs nothing of a running server, so that the reader can be fuzzed.
 */
#include "postgres.h"

#include "item.h"

size_t
item_write(char *to, const PackedItem *item, const Oid *previous_rule)
{
	char	   *p = to;
	bool		has_rule = previous_rule == NULL || *previous_rule != item->rule;
	uint32		len = item->len;

	Assert(len <= ITEM_MAX_BYTES);

	*p++ = (char) (item->kind | (has_rule ? ITEM_HAS_RULE : 0));
	if (has_rule)
	{
		for (int shift = 0; shift < 32; shift += 8)
			*p++ = (char) ((item->rule >> shift) & 0xFF);
	}
	while (len >= 0x80)
	{
		*p++ = (char) ((len & 0x7F) | 0x80);
		len >>= 7;
	}
	*p++ = (char) len;
	memcpy(p, item->bytes, item->len);

	return (p - to) + item->len;
}

void
item_reader_init(ItemReader *reader, const char *bytes, size_t len)
{
	reader->next = bytes;
	reader->end = bytes + len;
	reader->rule = InvalidOid;
}

/* LEB128 of at most three bytes; returns false where it runs out or over. */
static bool
read_length(ItemReader *reader, uint32 *len)
{
	*len = 0;
	for (int shift = 0; shift < 21; shift += 7)
	{
		uint8		byte;

		if (reader->next >= reader->end)
			return false;
		byte = (uint8) *reader->next++;
		*len |= (uint32) (byte & 0x7F) << shift;
		if ((byte & 0x80) == 0)
			return *len <= ITEM_MAX_BYTES;
	}
	return false;
}

int
item_read(ItemReader *reader, PackedItem *item)
{
	uint8		tag;

	if (reader->next >= reader->end)
		return 0;

	tag = (uint8) *reader->next++;
	item->kind = tag & ~ITEM_HAS_RULE;
	if (item->kind < ITEM_KEY || item->kind > ITEM_FRAGMENT)
		return -1;

	if (tag & ITEM_HAS_RULE)
	{
		if (reader->end - reader->next < 4)
			return -1;
		reader->rule = 0;
		for (int shift = 0; shift < 32; shift += 8)
			reader->rule |= (Oid) (uint8) *reader->next++ << shift;
	}
	item->rule = reader->rule;

	if (!read_length(reader, &item->len) ||
		(size_t) (reader->end - reader->next) < item->len)
		return -1;
	item->bytes = reader->next;
	reader->next += item->len;
	return 1;
}
