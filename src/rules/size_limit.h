/*
 * size_limit.h
 *	  How many bytes of keys a row, and a transaction, may record.
 *
 * Without a limit, a row of 6 MB whose arrays a template combines can record 625 MB of keys,
 * and the commit would write them into the outbox while it holds the data's locks.
 */
#ifndef UNCACHE_SIZE_LIMIT_H
#define UNCACHE_SIZE_LIMIT_H

#include "postgres.h"

#include "base/compat.h"
#include "settings/settings.h"

/* The ERRORs of the checks below. */
pg_noreturn
extern void size_limit_raise_row(Oid rule);

pg_noreturn
extern void size_limit_raise_transaction(Oid rule);

/*
 * Raise an ERROR if a row's keys have more bytes than uncache.max_row_size.  "rule" is the
 * OID of the trigger that made the last one, or InvalidOid.
 */
static inline void
size_limit_check_row(Oid rule, uint64 bytes)
{
	if (unlikely(bytes > (uint64) setting_max_row_size * 1024))
		size_limit_raise_row(rule);
}

/* The same for a transaction's keys and uncache.max_transaction_size. */
static inline void
size_limit_check_transaction(Oid rule, uint64 bytes)
{
	if (unlikely(bytes > (uint64) setting_max_transaction_size * 1024))
		size_limit_raise_transaction(rule);
}

#endif							/* UNCACHE_SIZE_LIMIT_H */
