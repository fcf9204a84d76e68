/*
 * pending_set.h
 *	  The pending set: the distinct invalidations of the running transaction.
 */
#ifndef UNCACHE_PENDING_SET_H
#define UNCACHE_PENDING_SET_H

#include "base/invalidation.h"

/*
 * Add an invalidation to the running transaction.  "rule" is the OID of the
 * trigger that made it (of the topmost one, for a trigger cloned to a
 * partition), or InvalidOid.  The bytes are copied.  Returns true when the
 * transaction did not hold this kind and text yet.  Raises an ERROR only for
 * want of memory or temporary disk space.
 */
extern bool pending_set_add(InvalidationKind kind, Oid rule, const char *bytes, size_t len);

/*
 * Called after every addition that was new, with its rule; xact.c is the one who listens.
 * It may raise an ERROR.
 */
extern void (*pending_grown_hook) (Oid rule);

/* Counts of what the transaction holds; and whether a COMMIT may wait for all of it. */
extern uint64 pending_set_keys(void);
extern uint64 pending_set_bytes(void);
extern bool pending_set_is_awaited(void);
extern bool pending_set_is_empty(void);

/* Empty the set, while errors are still allowed: it closes the temporary file. */
extern void pending_set_clear(void);

/*
 * Read the set in the order in which it was made.  The set must not change
 * while it is read; an item's bytes are valid until the next call.
 */
typedef struct PendingReader PendingReader;
extern PendingReader *pending_log_read_begin(void);
extern bool pending_log_read_next(PendingReader *reader, Invalidation *item);
extern void pending_log_read_end(PendingReader *reader);

/* What transaction callbacks do; none of these allocates or raises. */
extern void pending_set_subcommit(int nest_level);
extern void pending_set_subabort(int nest_level);
extern void pending_set_forget(void);

#endif							/* UNCACHE_PENDING_SET_H */
