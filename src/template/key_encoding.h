/*
 * key_encoding.h
 *	  Between the database's encoding and the one that keys leave in, UTF-8.
 *
 * In an SQL_ASCII database nobody knows what the bytes mean: they go as they are.
 * Returns its argument where nothing has to be converted, otherwise palloc'd,
 * terminated text.  ERROR for what the other encoding does not have.
 */
#ifndef UNCACHE_KEYTEXT_H
#define UNCACHE_KEYTEXT_H

#include "mb/pg_wchar.h"

static inline char *
key_to_utf8(char *text, int len)
{
	if (likely(GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII))
		return text;
	return pg_server_to_any(text, len, PG_UTF8);
}

static inline char *
key_from_utf8(char *text, int len)
{
	if (likely(GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII))
		return text;
	return pg_any_to_server(text, len, PG_UTF8);
}

#endif							/* UNCACHE_KEYTEXT_H */
