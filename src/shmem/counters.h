/*
 * counters.h
 *	  Counters that the views show.
 *
 * The worker counts, but for what only the committing session knows; any process may
 * read.  All are atomic and reset by uncache.stat_reset().
 */
#ifndef UNCACHE_COUNTERS_H
#define UNCACHE_COUNTERS_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"

/*
 * Delivery latency (visible commit to Redis's answer) in buckets that grow by
 * a quarter of a power of two: bucket b holds latencies below
 * 2^((b + 1) / 4) microseconds, so a percentile is exact to 19 percent.
 */
#define LATENCY_BUCKETS	128

typedef struct DatabaseCounters
{
	pg_atomic_uint64 transactions;	/* delivered; by their first row */
	pg_atomic_uint64 keys;		/* delivered */
	pg_atomic_uint64 keys_existed;	/* of these, removed from Redis */
	pg_atomic_uint64 batches;	/* commands that delivered */
	pg_atomic_uint64 retries;	/* rows sent again, or perhaps again */
	pg_atomic_uint64 reconnects;
	pg_atomic_uint64 waits;		/* sessions count this and the next three */
	pg_atomic_uint64 wait_timeouts;
	pg_atomic_uint64 waits_skipped;
	pg_atomic_uint64 ring_overflows;
	pg_atomic_uint64 pattern_passes;	/* SCAN passes completed */
	pg_atomic_uint64 keys_refused;	/* keys and patterns, each once however often tried */
	pg_atomic_uint64 fills_plain;	/* this and the next two: by the word of the functions in
									 * Redis */
	pg_atomic_uint64 checked;	/* hits that readers have compared with the database */
	pg_atomic_uint64 found_stale;	/* of these, the older ones */
	pg_atomic_uint64 worker_starts;
	pg_atomic_uint64 keys_refused_now;	/* not reset: a level, of the side table */
	pg_atomic_uint64 stream_entries;	/* of uncache.stream; written */
	pg_atomic_uint64 stream_entries_lost;	/* Redis does not take them */
	pg_atomic_uint32 patterns_running;	/* not reset: a level */
	pg_atomic_uint64 latency[LATENCY_BUCKETS];
	pg_atomic_uint64 latency_max;	/* microseconds */
	pg_atomic_uint64 latency_sum;	/* microseconds, of all deliveries in "latency" */
	pg_atomic_uint64 reset_at;	/* TimestampTz */
} DatabaseCounters;

/*
 * Per rule, in one array for the server, found by (dboid, rule) with open
 * addressing.  An entry is taken once and given back when its rule is gone; when
 * none is free near where a rule belongs, the rule is not counted.
 *
 * The worker of a database is the only process that takes, counts in and gives back
 * the entries of that database; several workers share the array.
 */
#define RULE_STATS_ENTRIES	4096

typedef struct RuleStats
{
	pg_atomic_uint64 id;		/* dboid << 32 | rule; 0: free */
	pg_atomic_uint64 keys;
	pg_atomic_uint64 existed;
	pg_atomic_uint64 last_at;	/* TimestampTz */
} RuleStats;

/* What counters_next_rule() found. */
typedef struct RuleCounts
{
	Oid			rule;
	uint64		keys;
	uint64		existed;
	TimestampTz last_at;
} RuleCounts;

/* Set all counters of a database to zero, before any other process can see them. */
extern void counters_init(DatabaseCounters *stats);

/* uncache.stat_reset(): set a database's counters and its rules' to zero, not the levels. */
extern void counters_reset(DatabaseCounters *stats, Oid dboid);

/* Count one delivery that took this long (below 0 counts as 0). */
extern void counters_latency(DatabaseCounters *stats, int64 microseconds);

/*
 * The latency in microseconds that this share (0 to 1) of the deliveries did
 * not exceed, rounded up to the edge of its bucket; -1 when there were none.
 */
extern double counters_percentile(DatabaseCounters *stats, double share);

/*
 * The same deliveries for a monitor: count[i] took less than 2^(LATENCY_FIRST_EDGE + i)
 * microseconds, the last one any time at all.  128 us is less than a delivery takes, and 134 s
 * (2^27 us) more than an alert asks for.
 */
#define LATENCY_FIRST_EDGE	7
#define LATENCY_LAST_EDGE	27
#define LATENCY_EDGES		(LATENCY_LAST_EDGE - LATENCY_FIRST_EDGE + 2)
extern void counters_latency_edges(DatabaseCounters *stats, uint64 count[LATENCY_EDGES]);

/* Count keys of a rule of MyDatabaseId.  In the worker; never fails. */
extern void counters_count_rule(Oid rule, uint64 keys, uint64 existed);

/*
 * Give back the entries of this database's rules that do not exist any more.  In
 * the worker, now and then, within a transaction: reads pg_trigger.
 */
extern void counters_forget_dropped_rules(void);

/*
 * Whether that is worth a transaction: this worker has counted a new rule since
 * the last time (so an older one may be gone), and that is a minute ago.
 */
extern bool counters_has_new_rules(void);

/* Give back all entries of a database that has no worker now. */
extern void counters_forget_database(Oid dboid);

/*
 * Step through the rules of MyDatabaseId: *entry is 0 at first; false at the
 * end.
 */
extern bool counters_next_rule(int *entry, RuleCounts *counts);

#endif							/* UNCACHE_COUNTERS_H */
