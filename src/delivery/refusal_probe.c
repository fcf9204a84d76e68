/*
 * refusal_probe.c
 *	  Asking Redis once a second whether it still refuses what it has refused.
 *
 * A refused key (refusal.c) is delivered as second deletes are: from memory, without a waiter,
 * and lost without harm, since its row is in the side table.  When one is accepted the side table
 * is tried at once.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "delivery/delivery_int.h"
#include "base/invalidation.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_side.h"
#include "delivery/refusal.h"

static void
take(const RefusedKey *key)
{
	Invalidation item = {
		.kind = INVALIDATION_KEY, .rule = key->rule, .bytes = key->bytes, .len = key->len
	};
	char	   *packed = palloc(INVALIDATION_MAX_HEAD + key->len);
	OutboxRow	row = {
		.xid = key->xid,
		.chunk = 1,				/* counts as no transaction */
		.table = OUTBOX_MEMORY,
		.waiter = -1,
		.again = true,
		.answered = true,
		.items = packed,
	};

	row.len = invalidation_write(packed, &item, NULL);
	delivery_queue_take(PRIORITY_SCAN, &row);
	pfree(packed);
}

TimestampTz
refusal_probe_run(TimestampTz now)
{
	RefusedKey	key;
	TimestampTz wake = DT_NOEND;

	if (refusal_is_over())
		outbox_side_retry();
	while (delivery_queue_has_room(PRIORITY_SCAN) && refusal_next_due(now, &key, &wake))
		take(&key);
	return wake;
}
