/*
 * outbox_scan.h
 *	  The worker reads the outbox.
 */
#ifndef UNCACHE_OUTBOX_SCAN_H
#define UNCACHE_OUTBOX_SCAN_H

#include "postgres.h"
#include "access/heapam.h"

#include "base/compat.h"
#include "outbox/outbox_damage.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_row.h"
#include "shmem/shmem.h"

/* "sink" gets the rows that are found and due. */
extern void outbox_scan_init(const OutboxSink *sink);

/*
 * Read everything, from the oldest table on.  "again": the rows may have been delivered
 * before.
 */
extern void outbox_scan_start_over(bool again);

/* Take over the blocks that committers have marked since the last call. */
extern void outbox_scan_collect_dirty(void);

/*
 * Read some blocks, if there are any to read and the sink has room.  Returns when to
 * try again what is locked by others.
 */
extern TimestampTz outbox_scan_run(TimestampTz now);

/* Whether nothing is left to read. */
extern bool outbox_scan_is_done(void);
extern bool outbox_scan_is_done_with(int table);

/* Whether something is left to read in a table that is not locked by others. */
extern bool outbox_scan_has_work(void);

/*
 * Whether any row of a table that takes its turn is not delivered, or may be, since
 * others have the table locked.
 */
extern bool outbox_scan_has_undelivered(void);

/*
 * Mark all rows that are visible now as delivered, or delete those of one transaction
 * (xid; 0: all).  Returns how many transactions there were that have something to be sent;
 * of one, how many rows.
 */
extern uint64 outbox_scan_discard(uint64 xid);

/*
 * Read blocks [from, from + count) of an outbox table with the active snapshot,
 * calling the function for each row until it returns false.  The row's items
 * are valid only within the call.  A block that can't be read is noted (outbox_damage.h);
 * then the function may have been called twice for rows of the other blocks.
 */
typedef bool (*OutboxRowFunction) (const OutboxRow *row, void *arg);
extern void outbox_scan_read(Relation rel, int table, BlockNumber from, BlockNumber count,
							 ReadingFor what, OutboxRowFunction function, void *arg);

/* One row, if it is still there. */
extern void outbox_scan_read_row(Relation rel, int table, const ItemPointerData *tid,
								 OutboxRowFunction function, void *arg);

/* Open an outbox table for reading, in a transaction, if nobody has it locked. */
extern Opening outbox_scan_open(int table, Relation *rel);

/* Ends the worker where this is not the file that the table had before. */
extern void outbox_scan_check_file(int table, RelFileNumber file);

#endif							/* UNCACHE_OUTBOX_SCAN_H */
