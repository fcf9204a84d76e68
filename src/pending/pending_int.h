/*
 * pending_int.h
 *	  The log that the pending set is: entries in memory and in a temporary file.
 *
 * A position is a number of bytes from the log's beginning.
 */
#ifndef UNCACHE_PENDING_INT_H
#define UNCACHE_PENDING_INT_H

#include "pending/pending_set.h"

/*
 * Append an entry unless one of the same kind and bytes is in memory; returns whether it
 * did.  The bytes are copied; there are INVALIDATION_MAX_BYTES at the most.  Raises an ERROR for
 * want of memory or temporary disk space, and then the log is as it was.
 */
extern bool pending_log_add(InvalidationKind kind, Oid rule, const char *bytes, size_t len);

/* Where the next entry will be.  0: the log is empty. */
extern uint64 pending_log_position(void);

/* Take out all from this position on, where an entry begins.  Neither allocates nor raises. */
extern void pending_log_cut(uint64 position);

/* Empty the log.  Closes the temporary file, so it is for when errors are still allowed. */
extern void pending_log_clear(void);

/* The same once the resource owner has closed it.  Neither allocates nor raises. */
extern void pending_log_forget(void);

#endif							/* UNCACHE_PENDING_INT_H */
