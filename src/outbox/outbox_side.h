/*
 * outbox_side.h
 *	  The side table of the outbox: rows of prepared transactions, and items that
 *	  Redis refuses for a reason of their own.
 */
#ifndef UNCACHE_OUTBOX_SIDE_H
#define UNCACHE_OUTBOX_SIDE_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "outbox/outbox_row.h"

/* "sink" gets the rows that are due. */
extern void outbox_side_init(const OutboxSink *sink);

/*
 * Redis has refused these items of a row, and said why: keep them, and try again later.
 * "to_repeat": a node may have forgotten the others, so the row is sent again, too.
 */
extern void outbox_side_refused(const OutboxRow *row, const char *items, uint32 len,
								const char *error, bool to_repeat);

/* Set "to_repeat" of all rows whose refused items are not in the table yet. */
extern void outbox_side_repeat_unwritten(void);

/*
 * True once after such a row's refused items were written: the row itself is due now where it
 * came from, so a scan of the outbox is to be begun soon.
 */
extern bool outbox_side_has_released(void);

/* Mark these rows as sent, so that a scan does not take them meanwhile. */
extern void outbox_side_keep_refused(void);

/* A row of the side table is finished: delivered, or lost. */
extern void outbox_side_finished(const ItemPointerData *tid, bool delivered);

/* Try all that was refused at the next turn, without its pauses. */
extern void outbox_side_retry(void);

/* Look into the table at the next turn. */
extern void outbox_side_request_scan(void);

/*
 * Do what is due: store what was refused, delete what is delivered, take what can
 * be sent.  Returns when to come again: DT_NOEND for "when something happens".
 */
extern TimestampTz outbox_side_run(TimestampTz now, bool connected);

/* Whether all that is visible in the table is delivered. */
extern bool outbox_side_is_done(void);

/* Whether rows are known that are not delivered. */
extern bool outbox_side_has_rows(void);

/* Whether rows of running transactions were seen, most likely prepared ones. */
extern bool outbox_side_has_prepared(void);

/* Whether memory holds work that must be written before a table is emptied. */
extern int	outbox_side_unwritten(void);

/*
 * For uncache.discard_backlog(): forget the rows of a transaction (xid; 0: of all).
 * Returns the number of transactions; of one, of its rows.
 */
extern uint64 outbox_side_discard(uint64 xid);

#endif							/* UNCACHE_OUTBOX_SIDE_H */
