/*
 * item_fuzz.c
 *	  Any bytes as packed items, as a damaged outbox could give them.
 */
#include "postgres.h"

#include "base/invalidation.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* Writing what was read, and reading that again, gives the same item. */
static void
check_round_trip(const Invalidation *item)
{
	char	   *packed = malloc(INVALIDATION_MAX_HEAD + item->len);
	size_t		len = invalidation_write(packed, item, NULL);
	InvalidationReader	reader;
	Invalidation	again;

	if (len > INVALIDATION_MAX_HEAD + item->len)
		abort();
	invalidation_reader_init(&reader, packed, len);
	if (invalidation_read(&reader, &again) != 1 || again.kind != item->kind ||
		again.rule != item->rule || again.len != item->len ||
		memcmp(again.bytes, item->bytes, item->len) != 0 ||
		invalidation_read(&reader, &again) != 0)
		abort();
	free(packed);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	InvalidationReader	reader;
	Invalidation	item;
	size_t		room = size;

	invalidation_reader_init(&reader, (const char *) data, size);
	while (invalidation_read(&reader, &item) == 1)
	{
		if (item.len > INVALIDATION_MAX_BYTES || item.len >= room ||
			item.bytes + item.len > (const char *) data + size)
			abort();
		room -= item.len;
		check_round_trip(&item);
	}
	return 0;
}
