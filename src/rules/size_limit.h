/*
 * size_limit.h
 *	  How many bytes of keys a row, and a transaction, may record.
 *
 * One row of 6 MB can have arrays from which a template makes 625 MB of keys.  The outbox
 * would take them all, and the commit would write them with the data's locks held.
 */
#ifndef UNCACHE_SIZELIMIT_H
#define UNCACHE_SIZELIMIT_H

#include "postgres.h"

#include "base/compat.h"
#include "settings/settings.h"

/* The ERRORs of the next two.  "rule" is a trigger, or InvalidOid for keys without one. */
pg_noreturn
extern void size_limit_raise_row(Oid rule);
pg_noreturn
extern void size_limit_raise_transaction(Oid rule);

/* Raise an ERROR where these are more bytes than uncache.max_row_size. */
static inline void
size_limit_check_row(Oid rule, uint64 bytes)
{
	if (unlikely(bytes > (uint64) setting_max_row_size * 1024))
		size_limit_raise_row(rule);
}

/* Likewise uncache.max_transaction_size. */
static inline void
size_limit_check_transaction(Oid rule, uint64 bytes)
{
	if (unlikely(bytes > (uint64) setting_max_transaction_size * 1024))
		size_limit_raise_transaction(rule);
}

#endif							/* UNCACHE_SIZELIMIT_H */
