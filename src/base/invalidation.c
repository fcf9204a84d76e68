/*
 * invalidation.c
 *	  Reading and writing the packed form of invalidations (see invalidation.h).
 *
 * This file needs nothing of a running server, so that the reader can be fuzzed.
 */
#include "postgres.h"

#include "base/invalidation.h"

/* By kind.  Its number is on disk, so a kind that is not used any more keeps its entry. */
static const ItemTraits traits[] = {
	[INVALIDATION_KEY] = {
		.name = "key",
		.may_be_cut = true,
		.is_awaited = true,
		.may_be_noted = true,
		.keys = INVALIDATION_KEYS_ITSELF,
		.command = INVALIDATION_UNLINK,
		.fence = INVALIDATION_FENCE_RECORD,
	},
	[INVALIDATION_GLOB] = {
		.name = "pattern",
		.may_be_cut = true,
		.keys = INVALIDATION_KEYS_FOUND,
		.command = INVALIDATION_SCAN,
		.fence = INVALIDATION_FENCE_EPOCH,
	},
	[INVALIDATION_KEYPATTERN] = {
		.name = "key pattern",
		.may_be_cut = true,
		.keys = INVALIDATION_KEYS_FOUND,
		.command = INVALIDATION_SCAN,
		.fence = INVALIDATION_FENCE_EPOCH,
	},
	[INVALIDATION_FRAGMENT] = {
		.name = "piece",
		.keys = INVALIDATION_KEYS_OF_WHOLE,
		.command = INVALIDATION_JOIN,
		.fence = INVALIDATION_FENCE_OF_WHOLE,
	},
};

static bool
is_kind(uint32 kind)
{
	return kind < lengthof(traits) && traits[kind].name != NULL;
}

const ItemTraits *
invalidation_traits(InvalidationKind kind)
{
	Assert(is_kind(kind));
	return &traits[kind];
}

bool
invalidation_read_head(const Invalidation *piece, FragmentHead *head)
{
	uint32		len;

	if (piece->kind != INVALIDATION_FRAGMENT || piece->len <= sizeof(FragmentHead))
		return false;
	memcpy(head, piece->bytes, sizeof(FragmentHead));
	len = piece->len - sizeof(FragmentHead);
	return is_kind(head->kind) && traits[head->kind].may_be_cut &&
		head->total <= INVALIDATION_MAX_BYTES && head->offset < head->total &&
		head->offset % FRAGMENT_BYTES == 0 &&
		len == Min(head->total - head->offset, FRAGMENT_BYTES);
}

const ItemTraits *
invalidation_traits_of_whole(const Invalidation *item)
{
	FragmentHead head;

	if (item->kind != INVALIDATION_FRAGMENT)
		return invalidation_traits(item->kind);
	return invalidation_read_head(item, &head) ? invalidation_traits(head.kind) : NULL;
}

size_t
invalidation_write(char *to, const Invalidation *item, const Oid *previous_rule)
{
	char	   *p = to;
	bool		has_rule = previous_rule == NULL || *previous_rule != item->rule;
	uint32		len = item->len;

	Assert(is_kind(item->kind));
	Assert(len <= INVALIDATION_MAX_BYTES);

	*p++ = (char) (item->kind | (has_rule ? INVALIDATION_HAS_RULE : 0));
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
	Assert(p - to <= INVALIDATION_MAX_HEAD);
	memcpy(p, item->bytes, item->len);

	return (p - to) + item->len;
}

void
invalidation_reader_init(InvalidationReader *reader, const char *bytes, size_t len)
{
	reader->next = bytes;
	reader->end = bytes + len;
	reader->rule = InvalidOid;
}

/* LEB128 of at most three bytes; false where it is longer, or its end is missing. */
static bool
read_length(InvalidationReader *reader, uint32 *len)
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
			return *len <= INVALIDATION_MAX_BYTES;
	}
	return false;
}

int
invalidation_read(InvalidationReader *reader, Invalidation *item)
{
	uint8		tag;

	if (reader->next >= reader->end)
		return 0;

	tag = (uint8) *reader->next++;
	item->kind = tag & ~INVALIDATION_HAS_RULE;
	if (!is_kind(item->kind))
		return -1;

	if (tag & INVALIDATION_HAS_RULE)
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
	Assert(reader->next <= reader->end);
	return 1;
}

/* Of an item in pieces only the first one counts. */
static bool
begins_item(const Invalidation *item)
{
	FragmentHead head;

	return item->kind != INVALIDATION_FRAGMENT ||
		(invalidation_read_head(item, &head) && head.offset == 0);
}

uint32
invalidation_count(const char *bytes, size_t len)
{
	InvalidationReader reader;
	Invalidation item;
	uint32		count = 0;

	invalidation_reader_init(&reader, bytes, len);
	while (invalidation_read(&reader, &item) > 0)
	{
		if (begins_item(&item))
			count++;
	}
	return count;
}
