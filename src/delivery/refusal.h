/*
 * refusal.h
 *	  Rules and prefixes of which Redis has refused a key: no session waits for their keys.
 *
 * Everything in here belongs to a worker.
 */
#ifndef UNCACHE_REFUSAL_H
#define UNCACHE_REFUSAL_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "delivery/delivery_int.h"
#include "topology/target.h"

/* A key that was refused, and is tried to see whether it still is.  The bytes stay for a turn. */
typedef struct RefusedKey
{
	uint64		xid;
	Oid			rule;
	const char *bytes;
	uint32		len;
} RefusedKey;

extern void refusal_init(void);

/* Whether a key of this rule with the same beginning was refused, and none accepted since. */
extern bool refusal_is_likely(const Target *target, Oid rule, const char *key, uint32 len);

/* This target has refused, or accepted, a key. */
extern void refusal_note(const Target *target, const RefusedKey *key);
extern void refusal_note_accepted(const Target *target, Oid rule, const char *key, uint32 len);

/* All links are gone, and the targets may be others: all is tried again with the next link. */
extern void refusal_forget_all(void);

/* Whether there is any: only then refusal_note_accepted() has something to do. */
extern bool refusal_is_any(void);

/*
 * The next key to ask with, of those that are due; false: none is due, and *wake is when the
 * next one will be (DT_NOEND: there is none).
 */
extern bool refusal_next_due(TimestampTz now, RefusedKey *key, TimestampTz *wake);

/* True once after such a key was accepted: refused rows are worth another try now. */
extern bool refusal_is_over(void);

#endif							/* UNCACHE_REFUSAL_H */
