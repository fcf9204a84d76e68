/*
 * counters.c
 *	  Counting deliveries, and reading what was counted.
 *
 * Counters are atomics without a lock: a reader may see the keys of a batch a
 * moment before its transactions, and a reset that meets a batch may leave a
 * part of it behind.  Counting never fails, and nothing but the views reads it.
 * A crash of the server starts all counters at zero.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_trigger.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "shmem/shmem.h"
#include "shmem/counters.h"

/*
 * How far from where it belongs a rule may be.  The whole stretch is looked at
 * before a rule counts as new, so an entry that is given back needs no tombstone;
 * a stretch of 64 runs full only when nine tenths of the array are taken.
 */
#define PROBES			64

/* Least pause between two looks for dropped rules. */
#define SWEEP_MS		60000

/* In a worker: it has taken an entry since "swept_at". */
static bool has_new_rules = false;
static TimestampTz swept_at = 0;

/* 2 to the power of 1/4, 2/4 and 3/4: where the buckets of an octave end. */
static const double quarter[] = {1.189207115002721, 1.4142135623730951, 1.681792830507429};

/* Every plain counter, so that making and resetting cannot disagree. */
static const size_t counters[] = {
	offsetof(DatabaseCounters, transactions),
	offsetof(DatabaseCounters, keys),
	offsetof(DatabaseCounters, keys_existed),
	offsetof(DatabaseCounters, batches),
	offsetof(DatabaseCounters, retries),
	offsetof(DatabaseCounters, reconnects),
	offsetof(DatabaseCounters, waits),
	offsetof(DatabaseCounters, wait_timeouts),
	offsetof(DatabaseCounters, waits_skipped),
	offsetof(DatabaseCounters, ring_overflows),
	offsetof(DatabaseCounters, pattern_passes),
	offsetof(DatabaseCounters, keys_refused),
	offsetof(DatabaseCounters, fills_plain),
	offsetof(DatabaseCounters, checked),
	offsetof(DatabaseCounters, found_stale),
	offsetof(DatabaseCounters, worker_starts),
	offsetof(DatabaseCounters, stream_entries),
	offsetof(DatabaseCounters, stream_entries_lost),
	offsetof(DatabaseCounters, latency_max),
	offsetof(DatabaseCounters, latency_sum),
};

static pg_atomic_uint64 *
nth_counter(DatabaseCounters *stats, int n)
{
	return (pg_atomic_uint64 *) ((char *) stats + counters[n]);
}

void
counters_init(DatabaseCounters *stats)
{
	for (int n = 0; n < lengthof(counters); n++)
		pg_atomic_init_u64(nth_counter(stats, n), 0);
	for (int b = 0; b < LATENCY_BUCKETS; b++)
		pg_atomic_init_u64(&stats->latency[b], 0);
	pg_atomic_init_u32(&stats->patterns_running, 0);
	pg_atomic_init_u64(&stats->keys_refused_now, 0);
	pg_atomic_init_u64(&stats->reset_at, (uint64) GetCurrentTimestamp());
}

/* ---------- latency ---------- */

static int
latency_bucket(uint64 us)
{
	int			octave;
	int			bucket;

	if (us < 1)
		return 0;
	octave = pg_leftmost_one_pos64(us);
	bucket = octave * 4;
	for (int i = 0; i < lengthof(quarter); i++)
	{
		if ((double) us >= quarter[i] * (double) (UINT64CONST(1) << octave))
			bucket++;
	}
	return Min(bucket, LATENCY_BUCKETS - 1);
}

/* The first latency that is too long for a bucket. */
static double
bucket_end(int bucket)
{
	int			edge = bucket + 1;
	double		octave = (double) (UINT64CONST(1) << (edge / 4));

	Assert(bucket >= 0 && bucket < LATENCY_BUCKETS);
	return edge % 4 == 0 ? octave : octave * quarter[edge % 4 - 1];
}

void
counters_latency(DatabaseCounters *stats, int64 microseconds)
{
	uint64		us = (uint64) Max(microseconds, 0);
	uint64		longest = pg_atomic_read_u64(&stats->latency_max);

	pg_atomic_fetch_add_u64(&stats->latency[latency_bucket(us)], 1);
	pg_atomic_fetch_add_u64(&stats->latency_sum, us);
	while (us > longest &&
		   !pg_atomic_compare_exchange_u64(&stats->latency_max, &longest, us))
		;
}

double
counters_percentile(DatabaseCounters *stats, double share)
{
	uint64		count[LATENCY_BUCKETS];
	uint64		total = 0;
	uint64		below = 0;
	double		longest = (double) pg_atomic_read_u64(&stats->latency_max);

	Assert(share >= 0 && share <= 1);
	for (int b = 0; b < LATENCY_BUCKETS; b++)
		total += count[b] = pg_atomic_read_u64(&stats->latency[b]);
	if (total == 0)
		return -1;

	/* The last bucket has no end, so what it holds is told by the maximum. */
	for (int b = 0; b < LATENCY_BUCKETS - 1; b++)
	{
		below += count[b];
		if ((double) below >= share * (double) total)
			return Min(bucket_end(b), longest);
	}
	return longest;
}

/* An octave has four buckets, so each edge is the end of a bucket. */
void
counters_latency_edges(DatabaseCounters *stats, uint64 count[LATENCY_EDGES])
{
	uint64		below = 0;
	int			edge = 0;

	for (int b = 0; b < LATENCY_BUCKETS; b++)
	{
		if (edge < LATENCY_EDGES - 1 && b == 4 * (LATENCY_FIRST_EDGE + edge))
			count[edge++] = below;
		below += pg_atomic_read_u64(&stats->latency[b]);
	}
	Assert(edge == LATENCY_EDGES - 1);
	count[edge] = below;
}

/* ---------- rules ---------- */

static uint64
rule_id(Oid dboid, Oid rule)
{
	return (uint64) dboid << 32 | rule;
}

static RuleStats *
nth_probe(uint64 id, int n)
{
	uint32		home = hash_combine(murmurhash32((uint32) (id >> 32)),
									murmurhash32((uint32) id));

	Assert(id != 0 && n < PROBES);
	return &UncacheShmem->rule_stats[(home + n) % RULE_STATS_ENTRIES];
}

static RuleStats *
find_entry(uint64 id)
{
	for (int n = 0; n < PROBES; n++)
	{
		RuleStats  *entry = nth_probe(id, n);

		if (pg_atomic_read_u64(&entry->id) == id)
			return entry;
	}
	return NULL;
}

/* Take a free entry; NULL when there is none.  Free entries hold zeros. */
static RuleStats *
take_entry(uint64 id)
{
	for (int n = 0; n < PROBES; n++)
	{
		RuleStats  *entry = nth_probe(id, n);
		uint64		free_id = 0;

		if (pg_atomic_compare_exchange_u64(&entry->id, &free_id, id))
		{
			has_new_rules = true;
			return entry;
		}
	}
	return NULL;
}

static void
zero_entry(RuleStats *entry)
{
	pg_atomic_write_u64(&entry->keys, 0);
	pg_atomic_write_u64(&entry->existed, 0);
	pg_atomic_write_u64(&entry->last_at, 0);
}

static bool
entry_is_of(RuleStats *entry, Oid dboid)
{
	return (Oid) (pg_atomic_read_u64(&entry->id) >> 32) == dboid;
}

static Oid
entry_rule(RuleStats *entry)
{
	return (Oid) (pg_atomic_read_u64(&entry->id) & 0xFFFFFFFF);
}

void
counters_count_rule(Oid rule, uint64 keys, uint64 existed)
{
	uint64		id = rule_id(MyDatabaseId, rule);
	RuleStats  *entry;

	if (UncacheShmem == NULL || !OidIsValid(rule))
		return;
	entry = find_entry(id);
	if (entry == NULL)
		entry = take_entry(id);
	if (entry == NULL)
		return;
	Assert(entry_is_of(entry, MyDatabaseId) && entry_rule(entry) == rule);
	pg_atomic_fetch_add_u64(&entry->keys, keys);
	pg_atomic_fetch_add_u64(&entry->existed, existed);
	pg_atomic_write_u64(&entry->last_at, (uint64) GetCurrentTimestamp());
}

/* The worker that takes the entry next finds zeros in it. */
static void
give_back(RuleStats *entry)
{
	zero_entry(entry);
	pg_write_barrier();
	pg_atomic_write_u64(&entry->id, 0);
}

static bool
rule_exists(Relation triggers, Oid rule)
{
	ScanKeyData key;
	SysScanDesc scan;
	bool		exists;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(rule));
	scan = systable_beginscan(triggers, TriggerOidIndexId, true, NULL, 1, &key);
	exists = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return exists;
}

bool
counters_has_new_rules(void)
{
	return has_new_rules &&
		TimestampDifferenceExceeds(swept_at, clock_now(), SWEEP_MS);
}

void
counters_forget_dropped_rules(void)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);

	has_new_rules = false;
	swept_at = clock_now();
	for (int i = 0; i < RULE_STATS_ENTRIES; i++)
	{
		RuleStats  *entry = &UncacheShmem->rule_stats[i];

		if (entry_is_of(entry, MyDatabaseId) && !rule_exists(triggers, entry_rule(entry)))
			give_back(entry);
	}
	table_close(triggers, AccessShareLock);
}

void
counters_forget_database(Oid dboid)
{
	for (int i = 0; i < RULE_STATS_ENTRIES; i++)
	{
		RuleStats  *entry = &UncacheShmem->rule_stats[i];

		if (entry_is_of(entry, dboid))
			give_back(entry);
	}
}

bool
counters_next_rule(int *entry, RuleCounts *counts)
{
	Assert(*entry >= 0);
	while (UncacheShmem != NULL && *entry < RULE_STATS_ENTRIES)
	{
		RuleStats  *found = &UncacheShmem->rule_stats[(*entry)++];

		if (!entry_is_of(found, MyDatabaseId))
			continue;
		counts->rule = entry_rule(found);
		counts->keys = pg_atomic_read_u64(&found->keys);
		counts->existed = pg_atomic_read_u64(&found->existed);
		counts->last_at = (TimestampTz) pg_atomic_read_u64(&found->last_at);
		return true;
	}
	return false;
}

void
counters_reset(DatabaseCounters *stats, Oid dboid)
{
	for (int n = 0; n < lengthof(counters); n++)
		pg_atomic_write_u64(nth_counter(stats, n), 0);
	for (int b = 0; b < LATENCY_BUCKETS; b++)
		pg_atomic_write_u64(&stats->latency[b], 0);
	pg_atomic_write_u64(&stats->reset_at, (uint64) GetCurrentTimestamp());

	for (int i = 0; i < RULE_STATS_ENTRIES; i++)
	{
		RuleStats  *entry = &UncacheShmem->rule_stats[i];

		if (entry_is_of(entry, dboid))
			zero_entry(entry);
	}
}
