/*
 * stats.h
 *	  Counters that the views show.
 *
 * The worker counts (but for what a waiting backend alone knows); anybody
 * reads.  All are atomic and reset by uncache.stat_reset().
 */
#ifndef UNCACHE_STATS_H
#define UNCACHE_STATS_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"

/*
 * Delivery latency (visible commit to Redis's answer) in buckets that grow by
 * a quarter of a power of two: bucket b holds latencies below
 * 2^((b + 1) / 4) microseconds, so a percentile is exact to 19 percent.
 */
#define LATENCY_BUCKETS	128

typedef struct SlotStats
{
	pg_atomic_uint64 transactions;	/* delivered */
	pg_atomic_uint64 keys;		/* delivered */
	pg_atomic_uint64 keys_existed;	/* of these, removed from Redis */
	pg_atomic_uint64 batches;	/* commands that delivered */
	pg_atomic_uint64 retries;	/* transactions sent again */
	pg_atomic_uint64 reconnects;
	pg_atomic_uint64 waits;		/* backends count the next three */
	pg_atomic_uint64 wait_timeouts;
	pg_atomic_uint64 waits_skipped;
	pg_atomic_uint64 ring_overflows;
	pg_atomic_uint64 pattern_passes;	/* SCAN passes completed */
	pg_atomic_uint32 patterns_running;	/* not reset: a level */
	pg_atomic_uint64 latency[LATENCY_BUCKETS];
	pg_atomic_uint64 latency_max;	/* microseconds */
	pg_atomic_uint64 reset_at;	/* TimestampTz */
} SlotStats;

/*
 * Per rule, in one array for the server, found by (dboid, rule) with open
 * addressing.  A place is taken once and given back when its rule is gone; when
 * all are taken, further rules are not counted.
 */
#define RULE_STATS_PLACES	4096

typedef struct RuleStats
{
	pg_atomic_uint64 id;		/* dboid << 32 | rule; 0: free */
	pg_atomic_uint64 keys;
	pg_atomic_uint64 existed;
	pg_atomic_uint64 last_at;	/* TimestampTz */
} RuleStats;

extern void stats_init(SlotStats *stats);
extern void stats_latency(SlotStats *stats, int64 microseconds);
extern void stats_count_rule(Oid rule, uint64 keys, uint64 existed);	/* of MyDatabaseId */

#endif							/* UNCACHE_STATS_H */
