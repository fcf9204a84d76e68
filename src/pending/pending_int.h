/*
 * pending_int.h
 *	  Private to pending_*.c: the log that holds the pending set.
 *
 * A position is a number of bytes from the log's beginning.
 */
#ifndef UNCACHE_PENDING_INT_H
#define UNCACHE_PENDING_INT_H

#include "pending/pending_set.h"

/*
 * Append an entry unless memory holds one of the same kind and bytes; true if it did.  The
 * bytes are copied; INVALIDATION_MAX_BYTES is the most.  Raises an ERROR if memory or
 * temporary disk space runs out, and then the log is unchanged.
 */
extern bool pending_log_add(InvalidationKind kind, Oid rule, const char *bytes, size_t len);

/* The position of the log's end, where the next entry will begin.  0: the log is empty. */
extern uint64 pending_log_position(void);

/* Remove everything from this position on, where an entry begins.  Neither allocates nor raises. */
extern void pending_log_cut(uint64 position);

/* Empty the log.  It closes the temporary file, which can raise an ERROR. */
extern void pending_log_clear(void);

/* The same after the resource owner has closed the file.  Neither allocates nor raises. */
extern void pending_log_forget(void);

#endif							/* UNCACHE_PENDING_INT_H */
