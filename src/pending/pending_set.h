/*
 * pending_set.h
 *	  The pending set: the distinct invalidations of the running transaction.
 */
#ifndef UNCACHE_PENDING_SET_H
#define UNCACHE_PENDING_SET_H

#include "base/invalidation.h"

/*
 * Add an invalidation to the running transaction.  "rule" is the OID of the trigger that
 * made it (for a partition's trigger, of the topmost one that it was cloned from), or
 * InvalidOid.  The bytes are copied.  Returns true if the transaction did not hold this kind
 * and text yet.  Raises an ERROR if memory or temporary disk space runs out, and the ERRORs
 * of pending_grown_hook.
 */
extern bool pending_set_add(InvalidationKind kind, Oid rule, const char *bytes, size_t len);

/*
 * Called after every addition that was new, with its rule.  xact_init() sets it, and nothing
 * changes it afterwards.  It may raise an ERROR.
 */
extern void (*pending_grown_hook) (Oid rule);

/* How many keys the set holds, and how many bytes all its invalidations have. */
extern uint64 pending_set_keys(void);
extern uint64 pending_set_bytes(void);

/* True if a COMMIT may wait for every invalidation of the set. */
extern bool pending_set_is_awaited(void);
extern bool pending_set_is_empty(void);

/* Empty the set.  It closes the temporary file, which can raise an ERROR. */
extern void pending_set_clear(void);

/*
 * Read the set in the order in which it was made.  Nothing may be added meanwhile, and there
 * may be one reader at a time.  An item's bytes are valid until the next call.
 */
typedef struct PendingReader PendingReader;
extern PendingReader *pending_log_read_begin(void);
extern bool pending_log_read_next(PendingReader *reader, Invalidation *item);
extern void pending_log_read_end(PendingReader *reader);

/*
 * For transaction callbacks: a subtransaction at this level has committed into its parent, or
 * was rolled back; the transaction is over.  None of these allocates or raises.
 */
extern void pending_set_subcommit(int nest_level);
extern void pending_set_subabort(int nest_level);
extern void pending_set_forget(void);

#endif							/* UNCACHE_PENDING_SET_H */
