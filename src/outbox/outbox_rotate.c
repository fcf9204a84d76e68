/*
 * outbox_rotate.c
 *	  The outbox tables take turns, and are truncated in place.
 *
 * Delivered rows are not deleted one by one: that would leave dead rows, which an
 * old snapshot anywhere in the server keeps alive.  Instead the current table is
 * retired when it is large or its rows are old, and an empty one takes its place.
 * A retired table is truncated, without a new file and without a change of the
 * catalogs, when everything in it was delivered at least redeliver_window ago
 * (outbox_truncate.c).
 *
 * Where no other table is empty, the current one goes on growing.  A table that can't be
 * truncated now is tried again a second later.
 *
 * A table that uncache.discard_backlog() has discarded is truncated at once, whatever the
 * window, as long as no row of the table was taken for delivery since.
 */
#include "postgres.h"

#include "access/relation.h"
#include "storage/bufmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "outbox/outbox_damage.h"
#include "outbox/delivery_map.h"
#include "outbox/outbox_truncate.h"
#include "outbox/outbox_scan.h"
#include "outbox/outbox_rotate.h"
#include "settings/settings.h"

/* Between turns while rows come, and at the most while none do. */
#define TURN_MS				1000
#define IDLE_TURN_MS		5000

/* A table of this size is retired. */
#define RETIRE_BLOCKS		(16 * 1024 * 1024 / BLCKSZ)

typedef struct Table
{
	bool		in_use;			/* may have rows; false: known to be empty */
	uint64		taken_before;	/* delivery_map_taken() when it was last truncated */
	TimestampTz in_use_since;
	TimestampTz retired_at;		/* meaningless for the current one */
	bool		discarded;		/* discard_backlog() was called for its rows ... */
	uint64		discarded_taken;	/* ... at this delivery_map_taken(): later ones count */
} Table;

static Table tables[OUTBOX_TABLES];
static TimestampTz next_turn = 0;

void
outbox_rotate_init(const OutboxSink *sink)
{
	TimestampTz now = clock_now();

	outbox_truncate_init(sink);
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		tables[t].in_use = true;
		tables[t].in_use_since = now;
		tables[t].retired_at = now;
	}
}

/* Blocks of a table; 1 for a table that another session has locked: it counts as in use. */
static BlockNumber
table_blocks(int table)
{
	BlockNumber blocks = 0;
	Relation	rel;

	switch (outbox_scan_open(table, &rel))
	{
		case OPENING_DONE:
			blocks = RelationGetNumberOfBlocks(rel);
			relation_close(rel, AccessShareLock);
			break;
		case OPENING_REFUSED:
			blocks = 1;
			break;
		case OPENING_GONE:
			break;
	}
	return blocks;
}

/*
 * --------------------------------------------------------------------------
 * Taking turns
 * --------------------------------------------------------------------------
 */

/* Note which tables have got rows since they were truncated.  Returns whether any is in use. */
static bool
note_use(TimestampTz now)
{
	bool		any = false;

	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		Table	   *table = &tables[t];

		if (!table->in_use &&
			(delivery_map_taken(t) != table->taken_before || outbox_damage_in_table(t)))
		{
			table->in_use = true;
			table->in_use_since = now;
			table->retired_at = now;	/* a retired table got rows of late writers */
		}
		any = any || table->in_use;
	}
	return any;
}

/* A table without a page has no rows, so it is not in use. */
static void
note_empty_tables(void)
{
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		if (tables[t].in_use && delivery_map_under_way(t) == 0 && table_blocks(t) == 0)
		{
			tables[t].in_use = false;
			tables[t].taken_before = delivery_map_taken(t);
			outbox_damage_forget_table(t);
		}
	}
}

/* While Redis is away rows are not taken; for discard_backlog() their tables are in use. */
static void
note_used_tables(TimestampTz now)
{
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		if (!tables[t].in_use && table_blocks(t) > 0)
		{
			tables[t].in_use = true;
			tables[t].in_use_since = now;
			tables[t].retired_at = now;
		}
	}
}

static bool
is_discarded(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	return tables[table].discarded &&
		tables[table].discarded_taken == delivery_map_taken(table);
}

static bool
is_due(int current, TimestampTz now)
{
	int			seconds = Max(setting_redeliver_window, 1);

	Assert(current >= 0 && current < OUTBOX_TABLES);
	return tables[current].in_use &&
		(is_discarded(current) || outbox_damage_in_table(current) ||
		 TimestampDifferenceExceeds(tables[current].in_use_since, now, seconds * 1000) ||
		 table_blocks(current) >= RETIRE_BLOCKS);
}

static void
retire_current(TimestampTz now)
{
	int			current = pg_atomic_read_u32(&MyDatabaseState->current_table);

	Assert(current >= 0 && current < OUTBOX_TABLES);
	if (!is_due(current, now))
		return;
	for (int i = 1; i < OUTBOX_TABLES; i++)
	{
		int			next = (current + i) % OUTBOX_TABLES;

		/* Where none is empty, one that can be written to is better than a damaged one. */
		if (tables[next].in_use &&
			!(outbox_damage_in_table(current) && !outbox_damage_in_table(next)))
			continue;
		Assert(next != current);
		tables[current].retired_at = now;
		pg_atomic_write_u32(&MyDatabaseState->current_table, next);
		return;
	}
}

void
outbox_rotate_retire(void)
{
	int			current = pg_atomic_read_u32(&MyDatabaseState->current_table);
	TimestampTz now = clock_now();

	Assert(!IsTransactionState());
	outbox_begin();
	note_empty_tables();
	note_used_tables(now);
	tables[current].discarded = tables[current].in_use;
	tables[current].discarded_taken = delivery_map_taken(current);
	retire_current(now);
	outbox_end();
}

void
outbox_rotate_discard(void)
{
	for (int t = 0; t < OUTBOX_TABLES; t++)
	{
		tables[t].discarded = tables[t].in_use;
		tables[t].discarded_taken = delivery_map_taken(t);
	}
	next_turn = 0;
}

/*
 * --------------------------------------------------------------------------
 * Truncating
 * --------------------------------------------------------------------------
 */

static bool
is_ready_to_truncate(int table, TimestampTz now)
{
	TimestampTz since = Max(tables[table].retired_at, delivery_map_last_delivery(table));

	Assert(table >= 0 && table < OUTBOX_TABLES);
	return tables[table].in_use && delivery_map_under_way(table) == 0 &&
		(is_discarded(table) ||
		 TimestampDifferenceExceeds(since, now, setting_redeliver_window * 1000));
}

/* Do a step.  Returns whether the next one is due soon. */
static bool
truncate_step(int table)
{
	TruncateResult result = outbox_truncate_run(table);

	Assert(tables[table].in_use);
	if (result == TRUNCATE_DONE)
	{
		tables[table].in_use = false;
		tables[table].taken_before = delivery_map_taken(table);
		tables[table].discarded = false;
		/* It can become the current one. */
		next_turn = clock_now();
	}
	return result == TRUNCATE_GOES_ON;
}

/*
 * Truncate the tables that are ready, one after the other, from *table on.  Returns whether
 * the next step is due soon.
 */
static bool
truncate_retired(int *table, TimestampTz now)
{
	for (; *table < OUTBOX_TABLES; (*table)++)
	{
		/* A table that is still being read may have rows that are not known yet. */
		if (outbox_scan_is_done_with(*table) &&
			*table != (int) pg_atomic_read_u32(&MyDatabaseState->current_table) &&
			is_ready_to_truncate(*table, now) && truncate_step(*table))
			return true;
	}
	return false;
}

/* An idle server is not woken every second: twelve turns in a window are enough. */
static int
time_to_next_turn(void)
{
	static uint64 taken_before = 0;
	uint64		taken = 0;
	bool		idle;

	for (int t = 0; t < OUTBOX_TABLES; t++)
		taken += delivery_map_taken(t);
	idle = taken == taken_before;
	taken_before = taken;
	if (!idle)
		return TURN_MS;
	return Min(IDLE_TURN_MS, Max(TURN_MS, setting_redeliver_window * 1000 / 12));
}

TimestampTz
outbox_rotate_run(TimestampTz now)
{
	static int	table = 0;		/* the next to be truncated; OUTBOX_TABLES: none */

	Assert(!IsTransactionState());
	if (!note_use(now))
		return DT_NOEND;
	if (now >= next_turn ||
		outbox_damage_in_table(pg_atomic_read_u32(&MyDatabaseState->current_table)))
	{
		next_turn = TimestampTzPlusMilliseconds(now, time_to_next_turn());
		outbox_begin();
		note_empty_tables();
		retire_current(now);
		outbox_end();
		if (table == OUTBOX_TABLES)
			table = 0;
	}
	Assert(table >= 0 && table <= OUTBOX_TABLES);
	return truncate_retired(&table, now) ? now : next_turn;
}
