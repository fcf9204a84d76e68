/*
 * log_reasons.h
 *	  Which reasons of a trouble the log has heard already.
 *
 * While something cannot be used, each attempt fails, once a second.  The log hears the
 * first reason at once, and a different one when it comes; not one of those that it
 * knows, which may alternate.
 */
#ifndef UNCACHE_REASONS_H
#define UNCACHE_REASONS_H

#include "postgres.h"

#include "common/hashfn.h"

/* More different ones are not logged until reasons_forget(), which comes once a minute. */
#define REASONS_MAX		5

/* All zero: none. */
typedef struct Reasons
{
	int			count;
	uint32		known[REASONS_MAX]; /* their hashes */
} Reasons;

static inline void
reasons_forget(Reasons *reasons)
{
	reasons->count = 0;
}

/* Whether the log should hear it; from then on it is known. */
static inline bool
reasons_is_new(Reasons *reasons, const char *reason)
{
	uint32		hash = hash_bytes((const unsigned char *) reason, strlen(reason));

	for (int i = 0; i < reasons->count; i++)
	{
		if (reasons->known[i] == hash)
			return false;
	}
	if (reasons->count == REASONS_MAX)
		return false;
	reasons->known[reasons->count++] = hash;
	return true;
}

#endif							/* UNCACHE_REASONS_H */
