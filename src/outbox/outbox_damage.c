/*
 * outbox_damage.c
 *	  Parts of the outbox that can't be read, and what the worker deletes instead.
 *
 * A block of the outbox may be damaged on disk, or a row in it.  The keys that it held can't
 * be known.  So the worker deletes every key that the rules of the database can produce,
 * once, by patterns that it writes to the outbox as any transaction does.  The rest of the
 * outbox is delivered as ever.  Keys that no pattern covers (invalidate_keys(), templates
 * that do not begin with literal text) are lost, and the log says so.
 *
 * The damaged block counts as delivered from then on, so that its table can be truncated,
 * which ends the damage.  A table that is still written to may get more rows into such a
 * block.  So the worker makes another table the current one (outbox_rotate.c), and when it
 * reads the block again to look for new rows, it writes the patterns once more if a session
 * may have written to the table since.
 *
 * This knowledge is in memory only: a new worker meets the damage again and deletes the
 * keys once more, which is harmless.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/subtransaction.h"
#include "base/clock.h"
#include "base/log_text.h"
#include "base/log_throttle.h"
#include "outbox/outbox_damage.h"
#include "rules/rules.h"
#include "outbox/outbox_tables.h"
#include "outbox/outbox_scan.h"

/* Between one deletion of everything and the next: each takes a pass over Redis. */
#define ANSWER_MS		1000

typedef struct DamagedBlock
{
	struct
	{
		int			table;
		BlockNumber block;
	}			key;			/* hash key */
	uint32		late_writers;	/* of its table, when it was noted last */
	bool		was_current;	/* the table, at that time */
} DamagedBlock;

static HTAB *blocks;
static int	count_of_table[OUTBOX_TABLES + 1];
static bool unanswered = false;
static TimestampTz answer_at = 0;
static LogThrottle throttle;	/* a damaged disk may have many such blocks */

void
outbox_damage_init(void)
{
	HASHCTL		control = {
		.keysize = sizeof(((DamagedBlock *) 0)->key),
		.entrysize = sizeof(DamagedBlock),
		.hcxt = TopMemoryContext,
	};

	Assert(blocks == NULL);
	blocks = hash_create("pg_uncache damaged blocks", 16, &control,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * A wrong checksum or page header, an error of the disk, a transaction id that never was.
 * Not a lack of memory, disk space or files: that passes.
 */
bool
outbox_damage_is_meant(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_DATA_CORRUPTED ||
		error->sqlerrcode == ERRCODE_IO_ERROR ||
		error->sqlerrcode == ERRCODE_UNDEFINED_FILE;
}

static void
report(const char *what, const char *reason)
{
	char		message[256];

	snprintf(message, sizeof(message),
			 "%s is damaged; all keys that the rules can produce are deleted instead: %s",
			 what, log_text_cut(reason, 120));
	shmem_note_error(MyDatabaseState, message);
	if (!log_throttle_passes(&throttle, NULL, clock_now(), LOG_THROTTLE_MS))
		return;
	ereport(LOG,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("%s is damaged; all keys that the rules can produce are deleted instead", what),
			 errdetail("%s. Keys of invalidate_keys() in it, and of templates that do not begin "
					   "with literal text, are not known any more.",
					   reason),
			 errhint("Look after the disk; delete such keys with invalidate_keys() or "
					 "invalidate_pattern(). This message comes at most once a minute.")));
}

/* Whether a session may have written to the table since the block was noted. */
static bool
may_have_news(DamagedBlock *block, bool found)
{
	int			table = block->key.table;
	bool		is_current = (int) pg_atomic_read_u32(&MyDatabaseState->current_table) == table;
	uint32		late_writers = table < OUTBOX_TABLES ?
		pg_atomic_read_u32(&MyDatabaseState->late_writers[table]) : 0;
	bool		result = !found || table == OUTBOX_SIDE || is_current || block->was_current ||
		block->late_writers != late_writers;

	if (result)
	{
		block->was_current = is_current;
		block->late_writers = late_writers;
	}
	return result;
}

void
outbox_damage_note_block(int table, BlockNumber number, ReadingFor what, const char *reason)
{
	DamagedBlock sought = {.key = {.table = table, .block = number}};
	bool		found;
	DamagedBlock *block = hash_search(blocks, &sought.key, HASH_ENTER, &found);
	char		place[64];

	Assert(table >= 0 && table <= OUTBOX_SIDE);
	if (!found)
		count_of_table[table]++;
	if ((found && what != READING_NEWS) || !may_have_news(block, found) ||
		what == READING_TO_DISCARD)
		return;
	unanswered = true;
	if (table == OUTBOX_SIDE)
		snprintf(place, sizeof(place), "block %u of table uncache.outbox_side", number);
	else
		snprintf(place, sizeof(place), "block %u of table uncache.outbox_%d", number, table);
	report(place, reason);
}

bool
outbox_damage_is_known(int table, BlockNumber number)
{
	DamagedBlock sought = {.key = {.table = table, .block = number}};

	Assert(table >= 0 && table <= OUTBOX_SIDE);
	return count_of_table[table] > 0 &&
		hash_search(blocks, &sought.key, HASH_FIND, NULL) != NULL;
}

void
outbox_damage_note_row(uint64 xid, const char *reason)
{
	char		what[64];

	unanswered = true;
	snprintf(what, sizeof(what), "an outbox row of transaction " UINT64_FORMAT, xid);
	report(what, reason);
}

bool
outbox_damage_is_unanswered(void)
{
	return unanswered;
}

static void
invalidate_everything(void *arg)
{
	rule_flush_all_rules(false);
}

TimestampTz
outbox_damage_run(TimestampTz now)
{
	Assert(!unanswered || !IsTransactionState());
	if (!unanswered)
		return DT_NOEND;
	if (now < answer_at)
		return answer_at;
	answer_at = TimestampTzPlusMilliseconds(now, ANSWER_MS);
	outbox_begin();
	subtransaction_run_or_report(invalidate_everything, NULL);
	outbox_end();
	unanswered = false;
	return DT_NOEND;
}

bool
outbox_damage_in_table(int table)
{
	Assert(table >= 0 && table <= OUTBOX_SIDE);
	return count_of_table[table] > 0;
}

void
outbox_damage_forget_table(int table)
{
	HASH_SEQ_STATUS scan;
	DamagedBlock *block;

	Assert(table >= 0 && table <= OUTBOX_SIDE);
	if (count_of_table[table] == 0)
		return;
	hash_seq_init(&scan, blocks);
	while ((block = hash_seq_search(&scan)) != NULL)
	{
		if (block->key.table == table)
			hash_search(blocks, &block->key, HASH_REMOVE, NULL);
	}
	count_of_table[table] = 0;
}
